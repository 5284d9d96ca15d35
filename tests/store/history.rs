//! Reading logs: entries, pages of messages, and the replica.

use rookery::store::{Direction, HistoryPage, LogEntry, MessageAction, NewMessage, Stretch};
use rookery_protocol::message::MessageKind;
use rookery_protocol::{ConversationId, Seq};

use crate::fixture::{Fixture, NOW, contract, message, options, seqs};
use rookery_test_support::servers::Postgres;

impl Fixture {
    async fn page(
        &self,
        id: ConversationId,
        direction: Direction,
        range: (i64, i64),
        limit: i64,
    ) -> Vec<i64> {
        let page = HistoryPage {
            conversation_id: id,
            after: Seq(range.0),
            before: Seq(range.1),
            direction,
            limit,
            known_head: Seq(0),
        };
        seqs(&self.store.history(&page).await.unwrap())
    }
}

contract! {
    async fn an_entry_comes_back_as_it_was_sent(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let metadata = serde_json::json!({"sealed": [1, {"x": null}], "ü": "\u{1f426}"});
        let sent = NewMessage {
            content: "Grüße \u{1f426}\n'; drop table".to_owned(),
            metadata: metadata.as_object().cloned(),
            reply_to: Some(Seq(1)),
            mentions: vec![bob, alice],
            ..message(direct, alice, "")
        };
        fixture.append(&[message(direct, bob, "first"), sent.clone()]).await;
        let log = fixture.log(direct).await;
        assert_eq!(seqs(&log), [1, 2]);
        let entry = &log[1];
        assert_eq!((entry.message_id, entry.conversation_id), (sent.message_id, direct));
        assert_eq!((entry.sender_id, entry.kind), (alice, MessageKind::Text));
        assert_eq!((&entry.content, &entry.metadata), (&sent.content, &sent.metadata));
        assert_eq!((entry.reply_to, &entry.mentions), (Some(Seq(1)), &sent.mentions));
        assert_eq!((entry.created_at, entry.edited_at, entry.deleted_at), (NOW, None, None));
        assert_eq!(entry.status, None);
        assert!(entry.reactions.is_empty());
        assert_eq!((&log[0].metadata, log[0].reply_to), (&None, None));
        assert!(log[0].mentions.is_empty());
    }

    async fn entries_are_cut_by_both_ends_and_the_limit(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        let other = fixture.group(alice, &[]).await;
        for _ in 0..9 {
            fixture.send(group, alice, "hi").await;
        }
        fixture.send(other, alice, "elsewhere").await;
        let read = async |after, to, limit| {
            let entries = fixture.store.entries(group, Seq(after), Seq(to), limit).await.unwrap();
            entries.iter().map(|entry| entry.seq().0).collect::<Vec<_>>()
        };
        assert_eq!(read(0, 100, 100).await, (1..=10).collect::<Vec<_>>());
        assert_eq!(read(3, 6, 100).await, [4, 5, 6]);
        assert_eq!(read(3, 10, 2).await, [4, 5]);
        assert!(read(10, 100, 100).await.is_empty());
    }

    async fn stretches_of_several_logs_are_read_at_once(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let mut groups = Vec::new();
        for _ in 0..4 {
            let group = fixture.group(alice, &[]).await;
            for text in ["two", "three", "four"] {
                fixture.send(group, alice, text).await;
            }
            groups.push(group);
        }
        // Of one log an entry is a change of a message outside of the stretch, and one has reactions.
        let add = MessageAction::AddReaction { emoji: "👍".to_owned() };
        fixture.now(groups[2], 2, alice, add).await;
        let stretch = |(place, after, to): (usize, i64, i64)| Stretch {
            conversation_id: groups[place],
            after: Seq(after),
            to: Seq(to),
        };
        let asked = [(2, 4, 9), (0, 1, 3), (3, 4, 9), (1, 0, 4)].map(stretch);
        let together = fixture.store.entries_of(&asked).await.unwrap();
        let seqs = |log: &Vec<LogEntry>| log.iter().map(|e| e.seq().0).collect::<Vec<_>>();
        let found: Vec<_> = together.iter().map(seqs).collect();
        assert_eq!(found, [vec![5], vec![2, 3], vec![], vec![1, 2, 3, 4]]);
        for (stretch, log) in asked.iter().zip(&together) {
            let (id, after, to) = (stretch.conversation_id, stretch.after, stretch.to);
            assert_eq!(log, &fixture.store.entries(id, after, to, 100).await.unwrap());
        }
        let LogEntry::Change(change) = &together[0][0] else { panic!("{together:?}") };
        assert_eq!((change.message.seq, change.message.reactions.len()), (Seq(2), 1));
        assert!(fixture.store.entries_of(&[]).await.unwrap().is_empty());
    }

    async fn an_entry_of_a_later_release_has_a_place_and_nothing_to_tell(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        fixture.sql("update messages set kind = 'poll'").await;
        let entries = fixture.store.entries(group, Seq(0), Seq(1), 10).await.unwrap();
        assert_eq!(entries, [LogEntry::Blank { seq: Seq(1) }]);
    }

    async fn history_is_read_from_either_end(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        for _ in 0..9 {
            fixture.send(group, alice, "hi").await;
        }
        // 4 is an edit: an entry, not a message.
        fixture.sql("update messages set kind = 'edit', target_seq = 2 where seq = 4").await;
        let (back, forth) = (Direction::Backward, Direction::Forward);
        assert_eq!(fixture.page(group, back, (0, 100), 3).await, [8, 9, 10]);
        assert_eq!(fixture.page(group, back, (0, 6), 3).await, [2, 3, 5]);
        assert_eq!(fixture.page(group, back, (7, 100), 50).await, [8, 9, 10]);
        assert_eq!(fixture.page(group, forth, (0, 100), 3).await, [1, 2, 3]);
        assert_eq!(fixture.page(group, forth, (2, 6), 3).await, [3, 5]);
        assert!(fixture.page(group, forth, (10, 100), 3).await.is_empty());
    }

    async fn a_deleted_message_shows_no_content(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        fixture.send(group, alice, "regrets").await;
        fixture.sql("update messages set deleted_at = 5, edited_at = 4 where seq = 2").await;
        let log = fixture.log(group).await;
        assert_eq!(log[1].content, "");
        assert_eq!(log[1].deleted_at.unwrap().as_millis(), 5);
        assert_eq!(log[1].edited_at.unwrap().as_millis(), 4);
    }
}

/// Whatever the replica has, history is complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_passed_over() {
    let primary = Postgres::start().await.unwrap();
    let url = primary.fresh_database().await;
    let standby = primary.standby().await.unwrap();
    let mut options = options(url.clone());
    options.replica_url = Some(standby.same_database(&url));
    let fixture = Fixture::open(options, None).await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    fixture.send(group, alice, "old").await;
    standby.caught_up_with(&primary).await.unwrap();

    let read = async |known_head, before, direction| {
        let page = HistoryPage {
            conversation_id: group,
            after: Seq(0),
            before: Seq(before),
            direction,
            limit: 50,
            known_head: Seq(known_head),
        };
        seqs(&fixture.store.history(&page).await.unwrap())
    };
    assert_eq!(read(2, 100, Direction::Backward).await, [1, 2]);
    assert_eq!(read(2, 100, Direction::Forward).await, [1, 2]);
    assert_eq!(fixture.store.replica_fallbacks(), 0);

    standby.pause_replay().await.unwrap();
    fixture.send(group, alice, "new").await;
    let young = fixture.group(alice, &[]).await;
    assert_eq!(read(3, 100, Direction::Backward).await, [1, 2, 3]);
    assert_eq!(fixture.store.replica_fallbacks(), 1);
    // What lies before its end is asked of the replica: this proves that it is asked at all.
    assert_eq!(read(3, 3, Direction::Backward).await, [1, 2]);
    assert_eq!(read(2, 100, Direction::Backward).await, [1, 2]);
    assert_eq!(fixture.store.replica_fallbacks(), 1);
    // A conversation that the replica has not heard of.
    assert_eq!(
        fixture.page(young, Direction::Backward, (0, 100), 50).await,
        [1]
    );
    assert_eq!(fixture.store.replica_fallbacks(), 2);

    standby.resume_replay().await.unwrap();
    standby.caught_up_with(&primary).await.unwrap();
    assert_eq!(read(3, 100, Direction::Backward).await, [1, 2, 3]);
    assert_eq!(fixture.store.replica_fallbacks(), 2);
    standby.stop_immediate().await.unwrap();
    assert_eq!(read(3, 100, Direction::Backward).await, [1, 2, 3]);
    assert_eq!(fixture.store.replica_fallbacks(), 3);
}
