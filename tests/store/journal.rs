//! The journal: whoever looks again and again misses nothing.

use std::collections::HashMap;
use std::time::Duration;

use rookery::store::{GroupAction, JournalPosition, JournalRow, Wait};
use rookery_protocol::{ConversationId, Seq};
use sqlx::{Connection, Executor};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, NOW, contract, message};

impl Fixture {
    /// The ends of logs that the journal tells from `from` on, and the next position.
    async fn look(&self, from: JournalPosition) -> (HashMap<ConversationId, Seq>, JournalPosition) {
        let page = self.store.journal(Some(from)).await.unwrap();
        let ends = page.rows.into_iter().filter_map(|row| match row {
            JournalRow::Entries(ends) => Some(ends),
            _ => None,
        });
        (ends.flatten().collect(), page.next)
    }
}

/// Looks until there is nothing to tell any more. On a server that others use too, rows are told
/// again as long as a transaction of theirs is open that began earlier.
async fn until_quiet(fixture: &Fixture, mut position: JournalPosition) -> JournalPosition {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let page = fixture.store.journal(Some(position)).await.unwrap();
        position = page.next;
        if page.rows.is_empty() {
            return position;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "told again and again: {:?}",
            page.rows
        );
    }
}

contract! {
    async fn a_first_look_tells_where_the_journal_is(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[]).await;
        let page = fixture.store.journal(None).await.unwrap();
        assert!(page.rows.is_empty());
        let position = until_quiet(&fixture, page.next).await;
        let add = GroupAction::AddMembers { user_ids: vec![bob] };
        fixture.change(group, alice, add).await.unwrap();
        let news = fixture.store.journal(Some(position)).await.unwrap();
        assert_eq!(news.rows, [
            JournalRow::Members { conversation_id: group, user_ids: vec![bob] },
            JournalRow::Entries(vec![(group, Seq(2))]),
        ]);
        until_quiet(&fixture, news.next).await;
    }

    async fn a_log_that_grew_often_is_told_once(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        for _ in 0..5 {
            fixture.send(group, alice, "hi").await;
        }
        let page = fixture.store.journal(Some(JournalPosition(0))).await.unwrap();
        let entries: Vec<_> =
            page.rows.iter().filter(|row| matches!(row, JournalRow::Entries(_))).collect();
        assert_eq!(entries, [&JournalRow::Entries(vec![(group, Seq(6))])]);
    }

    async fn old_rows_are_pruned_and_positions_stay_good(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        let position = fixture.store.journal(None).await.unwrap().next;
        let later = NOW.plus_millis(10);
        let send = [message(group, alice, "later")];
        fixture.store.append(&send, Wait::No, later).await.unwrap();
        assert_eq!(fixture.store.prune_journal(NOW).await.unwrap(), 0);
        assert!(fixture.store.prune_journal(later).await.unwrap() > 0);
        let (ends, next) = fixture.look(position).await;
        assert_eq!(ends[&group], Seq(2));
        // Nothing is left, and yet nothing begins anew.
        assert_eq!(fixture.store.prune_journal(later.plus_millis(1)).await.unwrap(), 1);
        assert_eq!(fixture.number("select count(*) from journal").await, 0);
        let fresh = fixture.store.journal(None).await.unwrap().next;
        fixture.send(group, alice, "again").await;
        for from in [position, next, fresh] {
            assert_eq!(fixture.look(from).await.0[&group], Seq(3));
        }
    }

    /// Commits overlap in every way; someone who looks all the while sees each of them.
    async fn looks_while_many_write_miss_nothing(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let mut groups = Vec::new();
        for _ in 0..6 {
            groups.push(fixture.group(alice, &[]).await);
        }
        let mut position = fixture.store.journal(None).await.unwrap().next;
        let (done, is_done) = watch::channel(false);
        let mut writers = JoinSet::new();
        for group in groups.clone() {
            let node = fixture.another_node().await;
            writers.spawn(async move {
                for _ in 0..40 {
                    node.append(&[message(group, alice, "hi")], Wait::Yes, NOW).await.unwrap();
                }
            });
        }
        let writing = async move {
            writers.join_all().await;
            done.send(true).unwrap();
        };
        let looking = async {
            // Each end must be told at least by the look after its commit; the sum of what is told
            // proves that no commit fell between two looks.
            let mut told: HashMap<ConversationId, Seq> = HashMap::new();
            loop {
                let was_done = *is_done.borrow();
                let (ends, next) = fixture.look(position).await;
                assert!(next.0 >= position.0);
                for (id, end) in ends {
                    let known = told.entry(id).or_insert(end);
                    *known = (*known).max(end);
                }
                // Whatever was committed before this look began is known by now.
                position = next;
                if was_done {
                    return told;
                }
            }
        };
        let ((), told) = tokio::join!(writing, looking);
        for group in groups {
            assert_eq!(told[&group], Seq(41));
        }
    }

    async fn the_epoch_stays_and_the_database_answers(fixture: Fixture) {
        let epoch = fixture.store.epoch().await.unwrap();
        assert!(epoch.len() >= 32);
        assert_eq!(fixture.another_node().await.epoch().await.unwrap(), epoch);
        fixture.store.ping().await.unwrap();
        fixture.sql("update meta set value = 'restored' where key = 'epoch'").await;
        assert_ne!(fixture.store.epoch().await.unwrap(), epoch);
    }
}

/// A transaction that began early commits late: it is found by the look after its commit, although
/// others that began after it were found before.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_open_during_a_look_is_found_by_a_later_one() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let (slow, quick) = (
        fixture.group(alice, &[]).await,
        fixture.group(alice, &[]).await,
    );
    let position = fixture.store.journal(None).await.unwrap().next;

    let mut payload = slow.as_bytes().to_vec();
    payload.extend(7_i64.to_be_bytes());
    let mut transaction = fixture.postgres_connection().await;
    transaction.execute("begin").await.unwrap();
    sqlx::query("insert into journal (kind, payload, at) values ('entries', $1, $2)")
        .bind(payload)
        .bind(NOW)
        .execute(&mut transaction)
        .await
        .unwrap();

    fixture.send(quick, alice, "two").await;
    let (ends, position) = fixture.look(position).await;
    assert_eq!(ends[&quick], Seq(2));
    fixture.send(quick, alice, "three").await;
    let (ends, position) = fixture.look(position).await;
    assert_eq!(ends[&quick], Seq(3));
    assert!(
        ends.get(&slow).is_none_or(|end| *end < Seq(7)),
        "the open one is not told yet"
    );
    transaction.execute("commit").await.unwrap();
    transaction.close().await.unwrap();
    let (ends, position) = fixture.look(position).await;
    assert_eq!(ends[&slow], Seq(7));
    until_quiet(&fixture, position).await;
}
