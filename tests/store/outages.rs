//! PostgreSQL goes away, in every way it can: each wait has an end, and nothing is left half-way.

use std::sync::Arc;
use std::time::Duration;

use rookery::clock::{Clock, new_id};
use rookery::lifecycle::Tasks;
use rookery::metrics;
use rookery::store::{
    self, CommitError, GroupAction, GroupChange, GroupCommit, MarkKind, MarkRaise, MessageAction,
    MessageActor, MessageChange, MessageState, Outcome, Refusal, Result, Store, StoreError, Ticket,
    Wait,
};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use rookery_test_support::eventually;
use rookery_test_support::servers::Postgres;
use sqlx::{Executor, PgConnection};
use tokio::time::{Instant, timeout};

use crate::fixture::{Fixture, NOW, WITHIN, members_may, message, stored};
use crate::link::Link;

/// What an operation may take that the database does not answer; the rest is for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(45);
/// How soon service is back: promised are 5 s, the rest is for a busy machine.
const BACK: Duration = Duration::from_secs(45);
/// What is told at once, many times over: far less than a time-out for each would add up to.
const AT_ONCE: Duration = Duration::from_secs(30);

/// A node whose way to the database is a link.
struct Outage {
    fixture: Fixture,
    link: Link,
    node: Arc<dyn Store>,
    alice: UserId,
    group: ConversationId,
}

impl Outage {
    async fn prepare() -> Self {
        Self::prepare_with(5).await
    }

    async fn prepare_with(pool_max: u32) -> Self {
        let fixture = Fixture::postgres().await;
        let link = Link::to(Postgres::shared().await).await;
        let mut options = fixture.options.clone();
        options.url = link.url(&options.url);
        options.application_name = "rookery-linked".to_owned();
        options.pool_max = pool_max;
        let node = store::connect(&options).await.unwrap();
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        Self {
            fixture,
            link,
            node,
            alice,
            group,
        }
    }

    async fn send(&self, text: &str) -> Result<Seq> {
        let batch = [message(self.group, self.alice, text)];
        let outcomes = self.node.append(&batch, Wait::No, NOW).await?;
        Ok(stored(&outcomes[0]).seq)
    }

    async fn is_back(&self) {
        let began = Instant::now();
        eventually("the node stores again", async || {
            self.send("again").await.is_ok()
        })
        .await;
        assert!(began.elapsed() < BACK, "{:?}", began.elapsed());
    }

    /// A change waits for a lock longer than it may. The link falls silent meanwhile, so that nobody
    /// hears the server give up first.
    async fn give_up_a_change(&self) {
        let mut holder = self.fixture.postgres_connection().await;
        holder.execute("begin").await.unwrap();
        sqlx::query("select 1 from conversation_heads where conversation_id = $1 for update")
            .bind(self.group)
            .execute(&mut holder)
            .await
            .unwrap();
        let change = reaction(self.group, self.alice, "👍");
        let changing = self.node.change_message(&change, anybody_may, NOW);
        let silencing = async {
            waiting_for_locks(&self.fixture, 1).await;
            self.link.silence();
        };
        let (changed, ()) = tokio::join!(changing, silencing);
        assert!(is_unavailable(&changed), "{changed:?}");
        holder.execute("rollback").await.unwrap();
    }

    /// Transactions that this node left open on the server.
    async fn open_transactions(&self) -> i64 {
        let open = "select count(*) from pg_stat_activity where datname = current_database() \
                    and application_name = 'rookery-linked' and state like 'idle in transaction%'";
        self.fixture.number(open).await
    }
}

fn is_unavailable<T>(result: &Result<T>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

/// A reaction by whoever is a member.
fn anybody_may(state: &MessageState, _: &MessageChange) -> std::result::Result<bool, Refusal> {
    let may = |_: &MessageActor| true;
    if state.actor.as_ref().is_some_and(may) {
        Ok(true)
    } else {
        Err(Refusal::NotFound)
    }
}

fn reaction(group: ConversationId, actor: UserId, emoji: &str) -> MessageChange {
    MessageChange {
        conversation_id: group,
        actor,
        message_id: MessageId::from_uuid(new_id()),
        seq: Seq(1),
        action: MessageAction::AddReaction {
            emoji: emoji.to_owned(),
        },
    }
}

/// The host vanishes without a word. Whoever waits is told within seconds, whoever comes later at
/// once; afterwards no place in the pool is lost, and no transaction is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_holds_nobody_up_for_long() {
    let outage = Outage::prepare().await;
    // As many connections as there may be, all of them in use when it happens.
    for _ in 0..2 {
        let users = (0..5).map(|_| outage.node.user(outage.alice));
        futures_util::future::try_join_all(users).await.unwrap();
    }
    outage.link.silence();
    let began = Instant::now();
    let change = reaction(outage.group, outage.alice, "👍");
    let (sent, read, changed, looked) = tokio::join!(
        outage.send("lost"),
        outage.node.user(outage.alice),
        outage.node.change_message(&change, anybody_may, NOW),
        outage.node.journal(None, WITHIN),
    );
    assert!(is_unavailable(&sent), "{sent:?}");
    assert!(is_unavailable(&read), "{read:?}");
    assert!(is_unavailable(&changed), "{changed:?}");
    assert!(is_unavailable(&looked));
    assert!(began.elapsed() < GIVEN_UP, "{:?}", began.elapsed());

    // Noticed by now, or by this one.
    assert!(is_unavailable(&outage.send("refused").await));
    let began = Instant::now();
    for _ in 0..50 {
        assert!(is_unavailable(&outage.send("refused").await));
    }
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());

    outage.link.speak();
    outage.is_back().await;
    let users = (0..20).map(|_| outage.node.user(outage.alice));
    let all = futures_util::future::try_join_all(users);
    timeout(BACK, all).await.unwrap().unwrap();
    eventually("no transaction is left open", async || {
        outage.open_transactions().await == 0
    })
    .await;
}

/// The host vanishes and comes back, but nobody can log in any more: all places may be taken. The
/// connections that there are show that it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lets_nobody_in_is_there_for_those_who_are() {
    let outage = Outage::prepare().await;
    for _ in 0..2 {
        let users = (0..5).map(|_| outage.node.user(outage.alice));
        futures_util::future::try_join_all(users).await.unwrap();
    }
    // The pool asks each connection once more behind the answer, when it takes it back: one that the
    // silence met there would be lost, and with all of them lost nobody would be in.
    let all_back = async || outage.node.connections().used == 0;
    eventually("the pool has its connections back", all_back).await;
    let before = counted("rookery_store_outages_total");
    outage.link.silence();
    let asked = outage.node.user(outage.alice).await;
    assert!(is_unavailable(&asked), "{asked:?}");
    let is_away = async || counted("rookery_store_outages_total") > before;
    eventually("it counts as away", is_away).await;
    outage.link.admit_nobody();
    outage.is_back().await;
}

/// A transaction is given up, and neither its statement nor its rollback is ever answered: the one
/// place in the pool is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_is_never_answered_costs_no_place_in_the_pool() {
    let outage = Outage::prepare_with(1).await;
    outage.give_up_a_change().await;
    outage.link.forsake();
    eventually("the node stores again", async || {
        outage.send("again").await.is_ok()
    })
    .await;
}

/// A transaction is given up while a statement waits, which fails before the rollback is sent: the
/// connection comes back without the transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_given_up_in_a_failing_statement_is_not_left_to_others() {
    let outage = Outage::prepare_with(1).await;
    outage.give_up_a_change().await;
    // The error is the first that comes, to whoever asks for the rollback.
    outage.link.speak();
    for _ in 0..3 {
        let user = timeout(BACK, outage.node.user(outage.alice)).await.unwrap();
        assert!(user.unwrap().is_some());
    }
    assert_eq!(outage.open_transactions().await, 0);
}

/// A queue full of sends is answered at once, not a batch for each time-out.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_answered_while_nobody_listens() {
    let mut outage = Outage::prepare().await;
    outage.send("before").await.unwrap();
    let tasks = Tasks::new();
    let (commits, mut outcomes) =
        GroupCommit::<()>::start(Arc::clone(&outage.node), Clock::system(), &tasks);
    outage.link.refuse().await;
    let began = Instant::now();
    let (group, alice) = (outage.group, outage.alice);
    let submitting = tokio::spawn(async move {
        for _ in 0..4_000 {
            let message = message(group, alice, "hi");
            let ticket = Ticket { message, reply: () };
            assert!(commits.submit(ticket).await.is_ok());
        }
    });
    let mut answered = 0;
    while answered < 4_000 {
        let batch = timeout(GIVEN_UP, outcomes.recv()).await.unwrap().unwrap();
        for one in &batch {
            assert_eq!(one.result.as_ref().err(), Some(&CommitError::Unavailable));
        }
        answered += batch.len();
    }
    submitting.await.unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    outage.link.accept_again().await;
    outage.is_back().await;
    assert!(tasks.stop(BACK).await);
}

/// The commit happened, and its answer was lost: the repetition finds what it stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_by_its_repetition() {
    let outage = Outage::prepare().await;
    let send = [message(outage.group, outage.alice, "once")];
    outage.link.cut_at("COMMIT");
    let first = outage.node.append(&send, Wait::Yes, NOW).await;
    assert!(is_unavailable(&first), "{first:?}");
    // The server may be about to end the transaction.
    let again = outage.node.append(&send, Wait::Yes, NOW).await.unwrap();
    assert!(stored(&again[0]).duplicate, "{again:?}");
    assert_eq!(stored(&again[0]).seq, Seq(2));
    assert_eq!(outage.fixture.log(outage.group).await.len(), 2);
}

/// The same of a batch that is stored by one statement: the store itself has a second look.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_answer_is_lost_is_looked_for() {
    let outage = Outage::prepare().await;
    outage.send("before").await.unwrap();
    let send = [message(outage.group, outage.alice, "its answer is lost")];
    outage.link.cut_at("its answer is lost");
    let mut outcomes = outage.node.append(&send, Wait::No, NOW).await.unwrap();
    if matches!(outcomes[0], Outcome::Held) {
        // The server is about to end the transaction.
        outcomes = outage.node.append(&send, Wait::Yes, NOW).await.unwrap();
    } else {
        // Whichever of the two the server came to first: nobody was told of it yet.
        assert!(!stored(&outcomes[0]).duplicate, "{outcomes:?}");
    }
    assert_eq!(stored(&outcomes[0]).seq, Seq(3));
    assert_eq!(outage.fixture.log(outage.group).await.len(), 3);
}

/// Connections that were ended while they were idle cost the next transactions nothing.
#[tokio::test(flavor = "multi_thread")]
async fn ended_connections_are_replaced_unseen() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let group = fixture.group(alice, &[]).await;
    let users = (0..5).map(|_| fixture.store.user(alice));
    futures_util::future::try_join_all(users).await.unwrap();
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where datname = current_database() and application_name = 'rookery-test'";
    assert!(fixture.number(end).await >= 1);
    for seq in 2..8 {
        assert_eq!(fixture.send(group, alice, "hi").await.seq, Seq(seq));
    }
}

/// One conversation is stuck. However many want to change it, others have the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_conversation_does_not_use_up_the_pool() {
    let fixture = Fixture::postgres().await;
    let alice = fixture.user("alice").await;
    let (stuck, free) = (
        fixture.group(alice, &[]).await,
        fixture.group(alice, &[]).await,
    );
    let mut holder = fixture.postgres_connection().await;
    holder.execute("begin").await.unwrap();
    sqlx::query("select 1 from conversation_heads where conversation_id = $1 for update")
        .bind(stuck)
        .execute(&mut holder)
        .await
        .unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..20 {
        let store = Arc::clone(&fixture.store);
        waiting.spawn(async move {
            let change = reaction(stuck, alice, &format!("{number}"));
            store.change_message(&change, anybody_may, NOW).await
        });
    }
    waiting_for_locks(&fixture, 1).await;
    // Whoever waits for the stuck one gives up after a while, which would fail below.
    assert_eq!(fixture.send(free, alice, "hi").await.seq, Seq(2));
    let change = reaction(free, alice, "👍");
    let changed = fixture
        .store
        .change_message(&change, anybody_may, NOW)
        .await;
    assert!(changed.unwrap().is_ok());
    holder.execute("commit").await.unwrap();
    for changed in waiting.join_all().await {
        assert!(changed.unwrap().is_ok());
    }
}

/// One after the other, since what is counted is counted for the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn deadlocks_are_avoided_where_that_is_possible_and_repeated_elsewhere() {
    let before = repeated_after_deadlocks();
    end_a_group_while_marks_are_raised().await;
    assert_eq!(repeated_after_deadlocks(), before);
    run_into_a_deadlock().await;
    assert_eq!(repeated_after_deadlocks(), before + 1);
}

fn repeated_after_deadlocks() -> u64 {
    counted(r#"rookery_store_retries_total{reason="deadlock"}"#)
}

/// What this process has counted so far.
fn counted(series: &str) -> u64 {
    let metrics = metrics::render(&metrics::install());
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap().trim().parse().unwrap()
}

/// Marks are raised without the lock of the head, behind which memberships end: both take the
/// members' rows in one order. Here both are under way when they come to a row that is held.
async fn end_a_group_while_marks_are_raised() {
    let fixture = Fixture::postgres().await;
    let mut people = Vec::new();
    for number in 0..9 {
        people.push(fixture.user(&format!("user-{number}")).await);
    }
    people.sort_unstable();
    let group = fixture.group(people[0], &people[1..]).await;
    let mut holder = fixture.postgres_connection().await;
    holder.execute("begin").await.unwrap();
    sqlx::query("select 1 from members where conversation_id = $1 and user_id = $2 for update")
        .bind(group)
        .bind(people[4])
        .execute(&mut holder)
        .await
        .unwrap();
    let (node, members) = (fixture.another_node().await, people.clone());
    let raising = tokio::spawn(async move {
        let mark = |user_id: &UserId| MarkRaise {
            conversation_id: group,
            user_id: *user_id,
            kind: MarkKind::Delivered,
            seq: Seq(1),
        };
        let marks: Vec<MarkRaise> = members.iter().map(mark).collect();
        node.raise_marks(&marks, NOW).await.unwrap();
    });
    waiting_for_locks(&fixture, 1).await;
    let (store, owner) = (Arc::clone(&fixture.store), people[0]);
    let ending = tokio::spawn(async move {
        let change = GroupChange {
            conversation_id: group,
            actor: owner,
            message_id: MessageId::from_uuid(new_id()),
            action: GroupAction::Delete,
            direct_max: 16,
        };
        store.change_group(&change, members_may, NOW).await
    });
    waiting_for_locks(&fixture, 2).await;
    holder.execute("commit").await.unwrap();
    raising.await.unwrap();
    let ended = ending.await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(ended.removed.len(), 9);
}

/// Transactions that do wait for each other: both are done in the end.
async fn run_into_a_deadlock() {
    let fixture = Fixture::postgres().await;
    let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
    let (one, other) = if alice < bob {
        (alice, bob)
    } else {
        (bob, alice)
    };
    let group = fixture.group(alice, &[bob]).await;
    let hold = async |connection: &mut PgConnection, user: UserId| {
        sqlx::query(
            "update members set muted_until = 1 where conversation_id = $1 and user_id = $2",
        )
        .bind(group)
        .bind(user)
        .execute(connection)
        .await
    };
    let mut holder = fixture.postgres_connection().await;
    // Whoever else is found to be in the way gives way.
    holder
        .execute("set deadlock_timeout = '60s'; begin")
        .await
        .unwrap();
    hold(&mut holder, other).await.unwrap();
    let node = fixture.another_node().await;
    let raising = tokio::spawn(async move {
        let mark = |user_id| MarkRaise {
            conversation_id: group,
            user_id,
            kind: MarkKind::Delivered,
            seq: Seq(1),
        };
        node.raise_marks(&[mark(one), mark(other)], NOW).await
    });
    waiting_for_locks(&fixture, 1).await;
    hold(&mut holder, one).await.unwrap();
    holder.execute("commit").await.unwrap();
    assert_eq!(raising.await.unwrap().unwrap().len(), 2);
}

/// Waits until so many connections wait for a lock.
async fn waiting_for_locks(fixture: &Fixture, count: i64) {
    eventually("somebody waits for a lock", async || {
        let waiting = "select count(*) from pg_stat_activity \
                       where datname = current_database() and wait_event_type = 'Lock'";
        fixture.number(waiting).await == count
    })
    .await;
}
