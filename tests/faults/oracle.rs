//! The stories are tested themselves: each is told once as the server is, and must end well, and
//! once with a step of the server left out, and must not.

use std::time::Duration;

use rookery_protocol::ConversationId;
use rookery_test_support::servers::Postgres;
use rookery_test_support::wire::Handshake;
use rookery_test_support::{
    Fate, PATIENCE, SendFailure, TestCluster, eventually, eventually_within, new_message_id,
};

use super::kit::Pair;
use crate::ROOKERY;

/// How long a story waits for what a server without the step never does.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

type Verdict = Result<(), String>;

fn so(is_so: bool, otherwise: &str) -> Verdict {
    if is_so {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}

/// Tells a story with the step, and then without it on both nodes.
async fn only_with(pair: &Pair, step: &str, story: impl AsyncFn(&str) -> Verdict) {
    assert_eq!(story("with").await, Ok(()));
    for node in pair.cluster.nodes() {
        node.set_failpoint(step, "return").await;
    }
    let verdict = story("without").await;
    println!("{step}: {verdict:?}");
    assert!(verdict.is_err(), "nothing shows that {step}");
}

#[tokio::test]
async fn without_reconciliation_a_lost_last_message_never_comes() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).lossy(1)).await;
    only_with(&pair, "reconcile-off", async |how| {
        let text = format!("the last one, {how}");
        pair.cluster.proxy(1).lose(&text);
        pair.anns.send(pair.room, &text).await;
        let patience = if how == "with" { PATIENCE } else { LONG_ENOUGH };
        let came = eventually_within(patience, async || pair.bobs.has(&text)).await;
        so(came, "a message was lost")
    })
    .await;
}

#[tokio::test]
async fn without_the_hold_a_late_message_is_overtaken() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).lossy(1)).await;
    only_with(&pair, "hold-off", async |how| {
        let (late, next) = (format!("late, {how}"), format!("next, {how}"));
        let delay = Fate::Delayed(Duration::from_millis(60));
        pair.cluster.proxy(1).mark(&late, delay);
        pair.anns.send(pair.room, &late).await;
        pair.anns.send(pair.room, &next).await;
        pair.bobs.expect_message(&next).await;
        pair.bobs.read(|record| record.check_order(pair.room))
    })
    .await;
}

#[tokio::test]
async fn without_a_bound_a_deaf_reader_is_kept() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    let text = "x".repeat(12_000);
    only_with(&pair, "outbox-unbounded", async |_| {
        let handshake = Handshake::to(&pair.cluster.node(0).url()).path("/ws");
        let mut deaf = handshake.token(&pair.bob.tokens.access_token).open().await;
        deaf.expect("ready").await;
        let causes = ["frames", "bytes"];
        let found = async || {
            let metrics = pair.cluster.metrics(0).await;
            let series = |cause| format!(r#"rookery_slow_readers_total{{cause="{cause}"}}"#);
            causes
                .iter()
                .map(|cause| metrics.get(&series(cause)))
                .sum::<f64>()
        };
        let before = found().await;
        // More than an outbox and the kernels of both sides hold.
        for _ in 0..50 {
            for _ in 0..20 {
                pair.anns.send(pair.room, &text).await;
            }
            if found().await > before {
                return Ok(());
            }
        }
        Err("a reader that reads nothing is kept".to_owned())
    })
    .await;
}

#[tokio::test]
async fn asked_before_the_lock_a_removed_member_still_posts() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    only_with(&pair, "membership-before-lock", async |_| {
        let room = pair.ann.group("another room", &[&pair.bob]).await;
        let removed = async {
            waiting(&pair.cluster, 1).await;
            let removed = pair.ann.remove_member(room, pair.bob.id()).await;
            removed.expect("ann may");
        };
        let sent = async {
            waiting(&pair.cluster, 2).await;
            pair.bobs.try_send(new_message_id(), room, "too late").await
        };
        let ((), (), sent) = tokio::join!(hold(&pair.cluster, room), removed, sent);
        match sent {
            Err(SendFailure::Refused(_)) => Ok(()),
            other => Err(format!("a removed member posted: {other:?}")),
        }
    })
    .await;
}

/// Holds a conversation's log until a removal and a send wait for it.
async fn hold(cluster: &TestCluster, room: ConversationId) {
    let statement = format!(
        "select last_seq from conversation_heads where conversation_id = '{room}' for update; \
         select pg_sleep(60)"
    );
    let let_go = async {
        waiting(cluster, 3).await;
        let sleeper = "select pg_cancel_backend(pid) from pg_stat_activity \
                       where datname = current_database() and wait_event = 'PgSleep'";
        cluster.sql(sleeper).await;
    };
    let postgres = Postgres::shared().await;
    let (held, ()) = tokio::join!(postgres.sql(cluster.database(), &statement), let_go);
    assert!(held.is_err(), "it was let go by itself");
}

/// Waits until so many hold a log or wait for it.
async fn waiting(cluster: &TestCluster, count: usize) {
    let active = "select count(*) from pg_stat_activity where datname = current_database() \
                  and (wait_event_type = 'Lock' or wait_event = 'PgSleep')";
    eventually("they wait", async || {
        let active: Option<usize> = cluster.sql(active).await.trim().parse().ok();
        active >= Some(count)
    })
    .await;
}

#[tokio::test]
async fn without_a_base_what_came_before_the_first_message_is_lost() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).lossy(1)).await;
    only_with(&pair, "base-not-read", async |how| {
        let device = pair.bob.connect(pair.cluster.node(1)).await;
        let (first, next) = (format!("first, {how}"), format!("then, {how}"));
        pair.cluster.proxy(1).lose(&first);
        pair.anns.send(pair.room, &first).await;
        pair.anns.send(pair.room, &next).await;
        device.expect_message(&next).await;
        so(device.has(&first), "a message was lost")
    })
    .await;
}
