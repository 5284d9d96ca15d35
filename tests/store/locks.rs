//! PostgreSQL: conversations that somebody else has locked, and connections that break.

use std::sync::Arc;
use std::time::Duration;

use rookery::clock::{Clock, new_id};
use rookery::lifecycle::Tasks;
use rookery::store::{
    self, CommitError, Committed, GroupAction, GroupChange, GroupCommit, Outcome, Refusal,
    StoreError, Ticket, Wait,
};
use rookery_protocol::{ConversationId, MessageId, Seq};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::timeout;

use crate::fixture::{Fixture, NOW, members_may, message, options, refusal, seqs, stored};
use rookery_test_support::eventually;
use rookery_test_support::servers::Postgres;

/// Somebody else's transaction that holds the lock of one conversation.
struct Holder(PgConnection);

impl Holder {
    async fn of(fixture: &Fixture, id: ConversationId) -> Self {
        let mut connection = fixture.postgres_connection().await;
        connection.execute("begin").await.unwrap();
        let lock =
            format!("select 1 from conversation_heads where conversation_id = '{id}' for update");
        connection.execute(AssertSqlSafe(lock)).await.unwrap();
        Self(connection)
    }

    async fn let_go(mut self) {
        self.0.execute("commit").await.unwrap();
        self.0.close().await.unwrap();
    }
}

/// Waits until `count` connections wait for a lock.
async fn waiting(fixture: &Fixture, count: i64) {
    eventually("somebody waits for the lock", async || {
        let waiting = "select count(*) from pg_stat_activity \
                       where datname = current_database() and wait_event_type = 'Lock'";
        fixture.number(waiting).await == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_conversation_delays_only_itself() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let (held, free) = (
        fixture.group(alice, &[]).await,
        fixture.group(alice, &[]).await,
    );
    let nowhere = ConversationId::from_uuid(new_id());
    let batch = [held, free, nowhere, held, free].map(|id| message(id, alice, "hi"));
    let holder = Holder::of(&fixture, held).await;
    let outcomes = fixture.store.append(&batch, Wait::No, NOW).await.unwrap();
    assert!(matches!(outcomes[0], Outcome::Held));
    assert!(matches!(outcomes[3], Outcome::Held));
    assert_eq!(refusal(&outcomes[2]), &Refusal::NotFound);
    assert_eq!(
        (stored(&outcomes[1]).seq, stored(&outcomes[4]).seq),
        (Seq(2), Seq(3))
    );
    // What is held can be read all the while, and nothing of it was stored.
    assert_eq!(seqs(&fixture.log(held).await), [1]);

    let store = fixture.store.clone();
    let late = batch.clone();
    let waiter = tokio::spawn(async move { store.append(&late, Wait::Yes, NOW).await.unwrap() });
    waiting(&fixture, 1).await;
    holder.let_go().await;
    let outcomes = waiter.await.unwrap();
    assert_eq!(
        (stored(&outcomes[0]).seq, stored(&outcomes[3]).seq),
        (Seq(2), Seq(3))
    );
    assert!(stored(&outcomes[1]).duplicate && stored(&outcomes[4]).duplicate);
    assert_eq!(seqs(&fixture.log(free).await), [1, 2, 3]);
}

/// Each of them would keep its turn for as long as the database waits for a lock.
#[tokio::test(flavor = "multi_thread")]
async fn many_held_conversations_do_not_wait_for_each_other_without_end() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let mut groups = Vec::new();
    for _ in 0..40 {
        groups.push(fixture.group(alice, &[]).await);
    }
    let mut holder = fixture.postgres_connection().await;
    holder.execute("begin").await.unwrap();
    let all = "select 1 from conversation_heads for update";
    holder.execute(all).await.unwrap();
    let tasks = Tasks::new();
    let (commits, mut outcomes) =
        GroupCommit::<()>::start(Arc::clone(&fixture.store), Clock::system(), &tasks);
    for group in &groups {
        let message = message(*group, alice, "hi");
        let ticket = Ticket { message, reply: () };
        assert!(commits.submit(ticket).await.is_ok());
    }
    // Four at a time, each with the database's patience of 8 s, would take 80 s.
    let answered = async {
        let mut answered = 0;
        while answered < groups.len() {
            let batch = outcomes.recv().await.unwrap();
            let is_unavailable =
                |one: &Committed<()>| one.result.as_ref().err() == Some(&CommitError::Unavailable);
            assert!(batch.iter().all(is_unavailable));
            answered += batch.len();
        }
    };
    timeout(Duration::from_secs(60), answered).await.unwrap();
    holder.close().await.unwrap();
    assert!(tasks.stop(Duration::from_secs(45)).await);
}

/// As in a database that was restored without its functions.
#[tokio::test]
async fn sends_are_stored_without_the_function_that_makes_them_quick() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    assert_eq!(fixture.send(group, alice, "quick").await.seq, Seq(2));
    fixture.sql("drop function append_batch").await;
    assert_eq!(fixture.send(group, alice, "slow").await.seq, Seq(3));
}

/// The removal waits for the lock before the send does, so it commits while the send waits: what
/// the send decides on must be read after its wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_removed_while_a_send_waits_does_not_post() {
    let fixture = Fixture::postgres().await;
    let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
    let group = fixture.group(alice, &[bob]).await;
    let holder = Holder::of(&fixture, group).await;
    let store = fixture.store.clone();
    let removal = tokio::spawn(async move {
        let change = GroupChange {
            conversation_id: group,
            actor: alice,
            message_id: MessageId::from_uuid(new_id()),
            action: GroupAction::RemoveMember { user_id: bob },
            direct_max: 16,
        };
        store
            .change_group(&change, members_may, NOW)
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    });
    waiting(&fixture, 1).await;
    let store = fixture.store.clone();
    let batch = [
        message(group, bob, "too late"),
        message(group, alice, "in time"),
    ];
    let send = tokio::spawn(async move { store.append(&batch, Wait::Yes, NOW).await.unwrap() });
    waiting(&fixture, 2).await;
    holder.let_go().await;
    assert_eq!(removal.await.unwrap().entry.seq, Seq(2));
    let outcomes = send.await.unwrap();
    assert_eq!(refusal(&outcomes[0]), &Refusal::NotFound);
    assert_eq!(stored(&outcomes[1]).seq, Seq(3));
}

/// Callers are gone while their transactions wait for a lock: these end by themselves, and no
/// connection goes back to the pool in the middle of one.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_whose_callers_are_gone_end() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    let holder = Holder::of(&fixture, group).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (store, send) = (fixture.store.clone(), message(group, alice, "hi"));
        callers.spawn(async move { store.append(&[send], Wait::Yes, NOW).await });
    }
    waiting(&fixture, 4).await;
    callers.shutdown().await;
    waiting(&fixture, 4).await;
    holder.let_go().await;
    eventually("all of them were stored", async || {
        fixture.log(group).await.len() == 5
    })
    .await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() \
                and application_name = 'rookery-test' and state like 'idle in transaction%'";
    eventually("no transaction is left open", async || {
        fixture.number(open).await == 0
    })
    .await;
    assert_eq!(fixture.send(group, alice, "next").await.seq, Seq(6));
}

/// The lock is not waited for without end: the caller hears that it may try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_let_go_is_given_up() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    let holder = Holder::of(&fixture, group).await;
    let result = fixture
        .store
        .append(&[message(group, alice, "hi")], Wait::Yes, NOW)
        .await;
    assert!(
        matches!(result, Err(StoreError::Unavailable(_))),
        "{result:?}"
    );
    holder.let_go().await;
    assert_eq!(fixture.send(group, alice, "hi").await.seq, Seq(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_is_unavailable_and_then_over() {
    let server = Postgres::start().await.unwrap();
    let fixture = Fixture::open(options(server.fresh_database().await), None).await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    let send = message(group, alice, "acked");
    fixture.append(std::slice::from_ref(&send)).await;
    let epoch = fixture.store.epoch().await.unwrap();
    server.stop_immediate().await.unwrap();
    assert!(matches!(
        fixture.store.ping().await,
        Err(StoreError::Unavailable(_))
    ));
    let result = fixture
        .store
        .append(&[message(group, alice, "lost")], Wait::No, NOW)
        .await;
    assert!(
        matches!(result, Err(StoreError::Unavailable(_))),
        "{result:?}"
    );
    let connect = store::connect(&fixture.options).await;
    assert!(matches!(connect, Err(StoreError::Unavailable(_))));

    server.restart().await.unwrap();
    eventually("the pool has good connections", async || {
        fixture.store.ping().await.is_ok()
    })
    .await;
    let outcomes = fixture.append(&[send, message(group, alice, "next")]).await;
    assert!(stored(&outcomes[0]).duplicate);
    assert_eq!(stored(&outcomes[1]).seq, Seq(3));
    assert_eq!(
        fixture.store.epoch().await.unwrap(),
        epoch,
        "nothing was set back"
    );
}

/// A former primary that became a standby takes no writes: not the caller's fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_is_unavailable_for_writes() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    fixture
        .sql("do $$ begin execute format('alter database %I set default_transaction_read_only = on', \
              current_database()); end $$")
        .await;
    let node = fixture.another_node().await;
    let result = node
        .append(&[message(group, alice, "hi")], Wait::No, NOW)
        .await;
    assert!(
        matches!(result, Err(StoreError::Unavailable(_))),
        "{result:?}"
    );
    assert!(node.user(alice).await.unwrap().is_some());
}

/// A promoted standby may lack what the old primary had acked.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_changes_the_epoch() {
    let primary = Postgres::start().await.unwrap();
    let url = primary.fresh_database().await;
    let fixture = Fixture::open(options(url.clone()), None).await;
    let alice = fixture.user("alice").await;
    let standby = primary.standby().await.unwrap();
    standby.caught_up_with(&primary).await.unwrap();
    let before = fixture.store.epoch().await.unwrap();
    assert_eq!(fixture.another_node().await.epoch().await.unwrap(), before);
    primary.stop_immediate().await.unwrap();
    standby.promote().await.unwrap();
    let node = store::connect(&options(standby.same_database(&url)))
        .await
        .unwrap();
    assert_ne!(node.epoch().await.unwrap(), before);
    assert!(node.user(alice).await.unwrap().is_some());
}

/// The pool is small: callers beyond it wait a while, then hear that the database is busy.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_in_use_is_unavailable_not_stuck() {
    let fixture = Fixture::postgres().await;
    let mut options = fixture.options.clone();
    options.pool_max = 1;
    let node = store::connect(&options).await.unwrap();
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    let holder = Holder::of(&fixture, group).await;
    let waiter = {
        let (node, send) = (node.clone(), message(group, alice, "hi"));
        tokio::spawn(async move { node.append(&[send], Wait::Yes, NOW).await.unwrap() })
    };
    waiting(&fixture, 1).await;
    assert!(matches!(node.ping().await, Err(StoreError::Unavailable(_))));
    holder.let_go().await;
    assert_eq!(stored(&waiter.await.unwrap()[0]).seq, Seq(2));
    tokio::time::timeout(Duration::from_secs(30), node.ping())
        .await
        .unwrap()
        .unwrap();
}
