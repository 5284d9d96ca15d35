//! The journal: whoever looks again and again misses nothing.

use std::collections::HashMap;
use std::time::Duration;

use rookery::store::{GroupAction, JournalPosition, JournalRow, Wait};
use rookery_protocol::{ConversationId, Seq};
use sqlx::{Connection, Executor};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, NOW, WITHIN, contract, message, options};
use rookery_test_support::eventually;
use rookery_test_support::servers::Postgres;

impl Fixture {
    /// The ends of logs that the journal tells from `from` on, and the next position.
    async fn look(
        &self,
        from: &JournalPosition,
    ) -> (HashMap<ConversationId, Seq>, JournalPosition) {
        let page = self.journal(from).await;
        let ends = page.rows.into_iter().filter_map(|row| match row {
            JournalRow::Entries(ends) => Some(ends),
            _ => None,
        });
        (ends.flatten().collect(), page.next)
    }
}

const HOUR: Duration = Duration::from_secs(60 * 60);

contract! {
    async fn a_first_look_tells_where_the_journal_is(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[]).await;
        let page = fixture.store.journal(None, WITHIN).await.unwrap();
        assert!(page.rows.is_empty() && !page.more && !page.lost);
        let add = GroupAction::AddMembers { user_ids: vec![bob] };
        fixture.change(group, alice, add).await.unwrap();
        let news = fixture.journal(&page.next).await;
        assert_eq!(news.rows, [
            JournalRow::Members { conversation_id: group, user_ids: vec![bob] },
            JournalRow::Entries(vec![(group, Seq(2))]),
        ]);
        let nothing = fixture.journal(&news.next).await;
        assert_eq!(nothing.rows, []);
        assert!(!nothing.more && !nothing.lost);
    }

    async fn a_log_that_grew_often_is_told_once(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        for _ in 0..5 {
            fixture.send(group, alice, "hi").await;
        }
        let page = fixture.journal(&JournalPosition::default()).await;
        let entries: Vec<_> =
            page.rows.iter().filter(|row| matches!(row, JournalRow::Entries(_))).collect();
        assert_eq!(entries, [&JournalRow::Entries(vec![(group, Seq(6))])]);
    }

    /// Whatever the node that wrote a row takes for the time: here it is years behind.
    async fn rows_age_by_the_clock_of_the_database(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        let position = fixture.journal_position().await;
        assert_eq!(fixture.store.prune_journal(HOUR).await.unwrap(), 0);
        fixture.sql("update journal set at = at - 3600001").await;
        fixture.send(group, alice, "later").await;
        assert!(fixture.store.prune_journal(HOUR).await.unwrap() > 0);
        let (ends, next) = fixture.look(&position).await;
        assert_eq!(ends[&group], Seq(2));
        // Nothing is left, and yet nothing begins anew.
        fixture.sql("delete from journal").await;
        let fresh = fixture.journal_position().await;
        fixture.send(group, alice, "again").await;
        for from in [position, next, fresh] {
            assert_eq!(fixture.look(&from).await.0[&group], Seq(3));
        }
    }

    async fn a_position_older_than_the_rows_that_are_kept_has_lost_some(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        fixture.group(alice, &[]).await;
        let beginning = fixture.journal(&JournalPosition::default()).await;
        assert!(beginning.lost, "it is decades old");
        assert!(!fixture.journal(&beginning.next).await.lost);
    }

    async fn a_backlog_is_told_in_pages(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let (first, last) = (fixture.group(alice, &[]).await, fixture.group(alice, &[]).await);
        let position = fixture.journal_position().await;
        fixture.send(first, alice, "the first").await;
        // They say nothing.
        let many = if fixture.options.is_postgres() {
            "do $$ begin for i in 1..5000 loop \
             insert into journal (kind, payload, at) values ('entries', '', 0); commit; \
             end loop; end $$"
        } else {
            "with recursive n (i) as (select 1 union all select i + 1 from n where i < 5000) \
             insert into journal (kind, payload, at) select 'entries', x'', 0 from n"
        };
        fixture.sql(many).await;
        fixture.send(last, alice, "the last").await;
        let page = fixture.journal(&position).await;
        assert!(page.more);
        assert_eq!(page.rows, [JournalRow::Entries(vec![(first, Seq(2))])]);
        let rest = fixture.journal(&page.next).await;
        assert!(!rest.more);
        assert_eq!(rest.rows, [JournalRow::Entries(vec![(last, Seq(2))])]);
        assert_eq!(fixture.journal(&rest.next).await.rows, []);
    }

    /// Commits overlap in every way; someone who looks all the while sees each of them.
    async fn looks_while_many_write_miss_nothing(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let mut groups = Vec::new();
        for _ in 0..6 {
            groups.push(fixture.group(alice, &[]).await);
        }
        let mut position = fixture.journal_position().await;
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
                let (ends, next) = fixture.look(&position).await;
                for (id, end) in ends {
                    let known = told.insert(id, end).unwrap_or_default();
                    assert!(known < end, "told twice: {end:?}");
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

/// As after a long stop: removing all of it takes longer than a statement may.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_any_size_is_pruned() {
    let fixture = Fixture::postgres().await;
    let slow = "create function slow() returns trigger language plpgsql as $$ \
         begin perform pg_sleep((select count(*) from gone) / 5000.0); return null; end $$; \
         create trigger slow after delete on journal referencing old table as gone \
         for each statement execute function slow(); \
         insert into journal (kind, payload, at) \
         select 'entries', '', 0 from generate_series(1, 30000)";
    fixture.sql(slow).await;
    let mut pruned = 0;
    while pruned < 30_000 {
        let some = fixture.store.prune_journal(HOUR).await.unwrap();
        assert!(some > 0);
        pruned += some;
    }
    assert_eq!(fixture.store.prune_journal(HOUR).await.unwrap(), 0);
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
    let position = fixture.journal_position().await;

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
    let (ends, position) = fixture.look(&position).await;
    assert_eq!(ends, HashMap::from([(quick, Seq(2))]));
    let (nothing, position) = fixture.look(&position).await;
    assert_eq!(nothing, HashMap::new(), "told once, whoever has not ended");
    fixture.send(quick, alice, "three").await;
    let (ends, position) = fixture.look(&position).await;
    assert_eq!(ends, HashMap::from([(quick, Seq(3))]));
    transaction.execute("commit").await.unwrap();
    transaction.close().await.unwrap();
    let (ends, position) = fixture.look(&position).await;
    assert_eq!(ends, HashMap::from([(slow, Seq(7))]));
    assert_eq!(fixture.look(&position).await.0, HashMap::new());
}

/// A server that starts again after a crash goes on where it was: nothing was set back, and nothing
/// is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_no_setting_back() {
    let server = Postgres::start().await.unwrap();
    let fixture = Fixture::open(options(server.fresh_database().await), None).await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    let epoch = fixture.store.epoch().await.unwrap();
    let position = fixture.journal_position().await;
    server.stop_immediate().await.unwrap();
    assert!(
        fixture
            .store
            .journal(Some(&position), WITHIN)
            .await
            .is_err()
    );
    server.restart().await.unwrap();
    eventually("the server answers", async || {
        fixture.store.ping().await.is_ok()
    })
    .await;
    fixture.send(group, alice, "after").await;
    let page = fixture.journal(&position).await;
    assert!(!page.lost);
    assert!(
        page.rows
            .contains(&JournalRow::Entries(vec![(group, Seq(2))]))
    );
    assert_eq!(fixture.store.epoch().await.unwrap(), epoch);
}
