//! The links to PostgreSQL, and transactions that nobody waits for.

use std::time::Duration;

use futures_util::future::join_all;
use rookery_test_support::{Mode, SendFailure, TestCluster, eventually, new_message_id};

use super::kit::{Pair, REPAIR};
use crate::ROOKERY;

/// F6: the answer to a commit is lost. The sender is told to repeat it, and it is stored once.
#[tokio::test]
async fn a_commit_in_doubt_is_repeated_and_stored_once() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).proxied()).await;
    let link = pair.cluster.links(0).postgres();
    link.lose_answer_to("in doubt");
    let message_id = new_message_id();
    let first = pair.anns.try_send(message_id, pair.room, "in doubt").await;
    match first {
        Err(SendFailure::Refused(error)) => assert!(error.retryable, "{error:?}"),
        // The node may have asked the store what became of it.
        Ok(_) => {}
        Err(closed) => panic!("an outage of the database closes no socket: {closed:?}"),
    }
    assert_eq!(link.counts().lost_commits, 1, "the answer was lost");
    pair.is_heard("F6", "in doubt", REPAIR).await;
    let again = pair.anns.try_send(message_id, pair.room, "in doubt").await;
    let again = again.unwrap_or_else(|failure| panic!("it is refused: {failure:?}"));
    let heard = pair.bobs.expect_message("in doubt").await;
    assert_eq!((again.seq, again.duplicate), (heard.seq, true));
    pair.all_is_well().await;
}

/// F8: PostgreSQL answers late. Everything takes longer, and nothing is refused.
#[tokio::test]
async fn a_slow_database_only_slows_down() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).proxied()).await;
    let late = Mode::Delay {
        fixed: Duration::from_millis(150),
        jitter: Duration::from_millis(100),
    };
    for node in 0..2 {
        pair.cluster.links(node).postgres().set_replies(late);
    }
    for number in 0..3 {
        pair.anns.send(pair.room, &format!("late {number}")).await;
    }
    pair.is_heard("F8", "late 2", REPAIR).await;
    for node in 0..2 {
        pair.cluster.links(node).postgres().heal();
    }
    pair.all_is_well().await;
}

/// F8: who the members of a conversation are is read late. Its messages are told late, those of
/// others are not, and no ack waits.
#[tokio::test]
async fn a_list_of_members_that_is_read_late_holds_up_no_ack() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    for node in pair.cluster.nodes() {
        node.set_failpoint("reconcile-off", "return").await;
    }
    // Made by the other node: this one has not read who is in it.
    let elsewhere = pair.ann.at(pair.cluster.node(1));
    let other = elsewhere.create_group("other", &[pair.bob.id()]).await;
    let other = other.expect("a group").conversation_id;
    let node = pair.cluster.node(0);
    // As long as the longest wait of a test: nothing here may wait for it.
    node.set_failpoint("before-lists", "1*return(wait 60000)")
        .await;
    pair.anns.send(other, "its members are not known").await;
    pair.anns.send(other, "nor are they now").await;
    pair.anns.send(pair.room, "told at once").await;
    pair.bobs.expect_message("told at once").await;
    assert!(!pair.bobs.has("its members are not known"));
}

/// F8: PostgreSQL has no connection left, and an operator ends those that there are. A send may be
/// refused for a while, and then it is stored.
#[tokio::test]
async fn a_database_that_is_full_is_waited_for() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).own_postgres()).await;
    let (postgres, database) = (pair.cluster.postgres(), pair.cluster.database());
    postgres
        .terminate_backends(database)
        .await
        .expect("it does");
    let crowd = postgres.crowd_out(database).await.expect("it fills up");
    assert!(crowd.len() > 100, "{}", crowd.len());
    let message_id = new_message_id();
    let crowded = pair.anns.try_send(message_id, pair.room, "no room").await;
    if let Err(failure) = crowded {
        let retryable = matches!(&failure, SendFailure::Refused(error) if error.retryable);
        assert!(retryable, "an outage closes no socket: {failure:?}");
    }
    drop(crowd);
    eventually("it is stored", async || {
        let sent = pair.anns.try_send(message_id, pair.room, "no room").await;
        sent.is_ok()
    })
    .await;
    pair.is_heard("F8, full", "no room", REPAIR).await;
    pair.all_is_well().await;
}

/// F9: clients leave while their messages are being stored. No transaction stays open, and no
/// connection goes back to the pool in the middle of one.
#[tokio::test]
async fn clients_that_leave_in_the_middle_leave_no_transaction_open() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    let node = pair.cluster.node(0);
    node.set_failpoint("before-commit", "return(wait 30)").await;
    for round in 0..4 {
        let devices = join_all((0..4).map(|_| pair.bob.connect(node))).await;
        for (number, device) in devices.iter().enumerate() {
            let text = format!("gone {round} {number}");
            device.post(new_message_id(), pair.room, &text);
        }
        join_all(devices.iter().map(|device| device.cut())).await;
    }
    node.set_failpoint("before-commit", "off").await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() \
                and state like 'idle in transaction%'";
    eventually("no transaction is open", async || {
        pair.cluster.sql(open).await.trim() == "0"
    })
    .await;
    // As many as the pool has connections, at once.
    let texts: Vec<String> = (0..12).map(|number| format!("stays {number}")).collect();
    join_all(texts.iter().map(|text| pair.anns.send(pair.room, text))).await;
    pair.arrives("F9", "all is well", REPAIR).await;
    pair.all_is_well().await;
}
