//! Appending: what becomes of a batch, one send at a time.

use rookery::clock::new_id;
use rookery::store::{
    GroupAction, JournalPosition, JournalRow, NewMessage, Outcome, Refusal, Wait,
};
use rookery_protocol::{ConversationId, MessageId, Seq};

use crate::fixture::{NOW, contract, message, refusal, seqs, stored};

contract! {
    async fn sends_are_numbered_in_the_order_of_the_batch(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let group = fixture.group(alice, &[bob]).await;
        let batch = [
            message(direct, alice, "d1"),
            message(group, alice, "g2"),
            message(direct, bob, "d2"),
            message(group, bob, "g3"),
            message(direct, alice, "d3"),
        ];
        let outcomes = fixture.append(&batch).await;
        let given: Vec<i64> = outcomes.iter().map(|outcome| stored(outcome).seq.0).collect();
        assert_eq!(given, [1, 2, 2, 3, 3]);
        assert!(outcomes.iter().all(|outcome| !stored(outcome).duplicate));
        assert_eq!(stored(&outcomes[0]).created_at, NOW);
        let version = fixture.member_list(group).await.version;
        assert_eq!(stored(&outcomes[1]).member_version, version);
        let contents: Vec<String> =
            fixture.log(direct).await.into_iter().map(|entry| entry.content).collect();
        assert_eq!(contents, ["d1", "d2", "d3"]);
        let seen = fixture.store.conversation(bob, group).await.unwrap().unwrap();
        assert_eq!(seen.last_seq, Seq(3));
        assert!(fixture.append(&[]).await.is_empty());
    }

    async fn a_repeat_is_stored_once_and_gets_the_first_answer(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let send = message(direct, alice, "once");
        let first = stored(&fixture.append(std::slice::from_ref(&send)).await[0]);
        fixture.send(direct, bob, "between").await;
        let later = NOW.plus_millis(60_000);
        let batch = [send.clone(), message(direct, alice, "next"), send.clone()];
        let outcomes = fixture.store.append(&batch, Wait::No, later).await.unwrap();
        for outcome in [&outcomes[0], &outcomes[2]] {
            let again = stored(outcome);
            assert!(again.duplicate);
            assert_eq!((again.seq, again.created_at), (first.seq, NOW));
        }
        assert_eq!(stored(&outcomes[1]).seq, Seq(3));
        assert_eq!(seqs(&fixture.log(direct).await), [1, 2, 3]);
    }

    /// Nodes look for repeats in different ways, according to how long ago they met one.
    async fn a_repeat_is_met_at_any_time(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let mut sent = vec![message(direct, alice, "first")];
        fixture.append(&sent).await;
        for after_ms in [0, 1, 4_000, 6_000, 6_001, 60_000, 60_000, 3_600_000] {
            let at = NOW.plus_millis(after_ms);
            sent.push(message(direct, bob, "new"));
            let outcomes = fixture.store.append(&sent, Wait::No, at).await.unwrap();
            for (place, outcome) in outcomes.iter().enumerate() {
                assert_eq!(stored(outcome).seq, Seq(place as i64 + 1));
                assert_eq!(stored(outcome).duplicate, place + 1 < sent.len(), "{place}");
            }
        }
    }

    async fn a_repeat_within_the_batch_collapses(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let send = message(direct, alice, "twice");
        let outcomes = fixture.append(&[send.clone(), send]).await;
        assert_eq!(stored(&outcomes[0]).seq, stored(&outcomes[1]).seq);
        assert!(!stored(&outcomes[0]).duplicate);
        assert!(stored(&outcomes[1]).duplicate);
        assert_eq!(fixture.log(direct).await.len(), 1);
    }

    async fn a_taken_id_with_another_request_or_sender_is_a_conflict(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let stranger = fixture.user("carol").await;
        let direct = fixture.direct(alice, bob).await;
        let send = message(direct, alice, "mine");
        fixture.append(std::slice::from_ref(&send)).await;
        let other_request = NewMessage { request_hash: [8; 16], ..send.clone() };
        let other_sender = NewMessage { sender_id: bob, ..send.clone() };
        let by_stranger = NewMessage { sender_id: stranger, ..send.clone() };
        let outcomes = fixture.append(&[other_request, other_sender, by_stranger]).await;
        assert!(matches!(refusal(&outcomes[0]), Refusal::Conflict(_)));
        assert!(matches!(refusal(&outcomes[1]), Refusal::Conflict(_)));
        assert_eq!(refusal(&outcomes[2]), &Refusal::NotFound);
        assert_eq!(fixture.log(direct).await[0].content, "mine");
        // The same id names something else in another conversation.
        let elsewhere = fixture.group(alice, &[]).await;
        let outcomes = fixture.append(&[NewMessage { conversation_id: elsewhere, ..send }]).await;
        assert_eq!(stored(&outcomes[0]).seq, Seq(2));
    }

    async fn a_repeat_is_answered_also_after_leaving_or_an_edit(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[bob]).await;
        let send = message(group, bob, "before I go");
        let first = stored(&fixture.append(std::slice::from_ref(&send)).await[0]);
        let leave = GroupAction::RemoveMember { user_id: bob };
        fixture.change(group, bob, leave).await.unwrap();
        fixture.sql("update messages set content = x'', edited_at = 1 where seq = 2".replace(
            "x''",
            if fixture.options.is_postgres() { "''::bytea" } else { "x''" },
        ).as_str()).await;
        let outcomes = fixture.append(&[send, message(group, bob, "one more")]).await;
        assert_eq!((stored(&outcomes[0]).seq, stored(&outcomes[0]).duplicate), (first.seq, true));
        assert_eq!(refusal(&outcomes[1]), &Refusal::NotFound);
    }

    async fn a_refused_send_never_spoils_its_neighbours(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let direct = fixture.direct(alice, bob).await;
        let reply = |to| NewMessage { reply_to: Some(Seq(to)), ..message(direct, alice, "re") };
        let nowhere = ConversationId::from_uuid(new_id());
        let batch = [
            reply(1),
            message(direct, alice, "1"),
            message(direct, carol, "intruder"),
            message(nowhere, alice, "echo?"),
            reply(1),
            reply(0),
            reply(3),
            message(direct, bob, "3"),
        ];
        for wait in [Wait::No, Wait::Yes] {
            let mut batch = batch.clone();
            for send in &mut batch {
                send.message_id = MessageId::from_uuid(new_id());
            }
            let before = fixture.log(direct).await.len() as i64;
            if before > 0 {
                // The second time all of them name an entry that exists.
                batch[0].reply_to = Some(Seq(before + 1));
                batch[6].reply_to = Some(Seq(before + 3));
            }
            let outcomes = fixture.store.append(&batch, wait, NOW).await.unwrap();
            for place in [0, 5, 6] {
                assert!(
                    matches!(refusal(&outcomes[place]), Refusal::Invalid { field: "reply_to", .. }),
                    "{place}: {:?}", outcomes[place]
                );
            }
            for place in [2, 3] {
                assert_eq!(refusal(&outcomes[place]), &Refusal::NotFound);
            }
            let given = [1, 4, 7].map(|place| stored(&outcomes[place]).seq.0 - before);
            assert_eq!(given, [1, 2, 3]);
        }
        assert_eq!(seqs(&fixture.log(direct).await), [1, 2, 3, 4, 5, 6]);
    }

    async fn who_may_not_write_is_refused_alone_as_in_a_batch(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let group = fixture.group(alice, &[bob]).await;
        let leave = GroupAction::RemoveMember { user_id: bob };
        fixture.change(group, alice, leave).await.unwrap().unwrap();
        let direct = fixture.direct(alice, carol).await;
        fixture.store.set_block(alice, carol, true, NOW).await.unwrap();
        let before = fixture.log(group).await.len();
        for (id, sender) in [(group, bob), (group, carol), (direct, carol)] {
            for sends in [1, 2] {
                let batch: Vec<_> = (0..sends).map(|_| message(id, sender, "hi")).collect();
                let outcomes = fixture.store.append(&batch, Wait::No, NOW).await.unwrap();
                for outcome in &outcomes {
                    refusal(outcome);
                }
            }
        }
        assert_eq!(fixture.log(group).await.len(), before);
        assert!(fixture.log(direct).await.is_empty());
    }

    async fn a_batch_that_stores_nothing_leaves_no_trace(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let send = message(direct, alice, "hi");
        fixture.append(std::slice::from_ref(&send)).await;
        let rows = fixture.number("select count(*) from journal").await;
        let outcomes = fixture.append(&[send, message(direct, fixture.user("carol").await, "?")]).await;
        assert!(stored(&outcomes[0]).duplicate);
        assert_eq!(fixture.number("select count(*) from journal").await, rows);
        assert_eq!(fixture.send(direct, alice, "next").await.seq, Seq(2));
    }

    async fn one_commit_is_one_row_of_the_journal(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let (direct, group) = (fixture.direct(alice, bob).await, fixture.group(alice, &[bob]).await);
        let rows = fixture.number("select count(*) from journal").await;
        let batch = [direct, group, direct].map(|id| message(id, alice, "hi"));
        fixture.append(&batch).await;
        assert_eq!(fixture.number("select count(*) from journal").await, rows + 1);
        let page = fixture.journal(&JournalPosition::default()).await;
        let ends = page.rows.into_iter().find_map(|row| match row {
            JournalRow::Entries(ends) => Some(ends),
            _ => None,
        });
        let mut ends = ends.unwrap();
        ends.sort();
        let mut expected = [(direct, Seq(2)), (group, Seq(2))];
        expected.sort();
        assert_eq!(ends, expected);
    }

    async fn large_batches_with_large_contents_are_stored_whole(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let content = "\u{1f426}".repeat(16_000);
        let batch: Vec<NewMessage> =
            (0..128).map(|_| message(direct, alice, &content)).collect();
        let outcomes = fixture.append(&batch).await;
        assert_eq!(outcomes.len(), 128);
        let log = fixture.log(direct).await;
        assert_eq!(seqs(&log), (1..=128).collect::<Vec<_>>());
        assert!(log.iter().all(|entry| entry.content == content));
    }

    /// As behind PgBouncer, where a prepared statement may be gone the next moment.
    async fn a_store_works_without_prepared_statements(fixture: Fixture) {
        let mut options = fixture.options.clone();
        options.statement_cache = 0;
        let store = rookery::store::connect(&options).await.unwrap();
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        for number in 1..4 {
            let outcomes =
                store.append(&[message(direct, alice, "hi")], Wait::No, NOW).await.unwrap();
            assert!(matches!(outcomes[0], Outcome::Stored(stored) if stored.seq == Seq(number)));
        }
    }
}
