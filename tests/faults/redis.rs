//! The links to Redis, and Redis itself: each fault costs time, never a message.

use std::time::Duration;

use rookery_test_support::{Mode, Pushes, Role, TestCluster, new_message_id};
use tokio::time::Instant;

use super::kit::{Pair, REPAIR};
use crate::ROOKERY;

/// An ack waits for the store alone.
const ACKED: Duration = Duration::from_secs(1);

/// F10: repaired within 5 s.
#[tokio::test]
async fn a_subscriber_link_that_is_reset_again_and_again_loses_nothing() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).lossy(1)).await;
    for round in 1..=4 {
        pair.is_subscribed(1).await;
        assert!(pair.cluster.proxy(1).reset_for(Role::Subscriber) > 0);
        pair.arrives("F10", &format!("after reset {round}"), REPAIR)
            .await;
    }
    pair.by_bus().await;
    pair.all_is_well().await;
}

/// F11: nobody is told that the link is dead; repaired within 5 s.
#[tokio::test]
async fn a_subscriber_link_that_goes_silent_is_noticed() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).lossy(1)).await;
    let link = pair.cluster.proxy(1);
    link.set_for(Role::Subscriber, Mode::Blackhole);
    pair.arrives("F11, at first", "into the hole", REPAIR).await;
    pair.arrives("F11, known", "into the known hole", REPAIR)
        .await;
    link.heal();
    pair.by_bus().await;
    pair.all_is_well().await;
}

/// F12: sends are acked as ever; delivered within 5 s.
#[tokio::test]
async fn a_publisher_link_that_goes_silent_holds_up_no_ack() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).lossy(0)).await;
    let link = pair.cluster.proxy(0);
    link.set_for(Role::Publisher, Mode::Blackhole);
    let mut slowest = Duration::ZERO;
    for number in 0..100 {
        let begun = Instant::now();
        pair.anns
            .send(pair.room, &format!("unheard {number}"))
            .await;
        slowest = slowest.max(begun.elapsed());
    }
    println!("F12: acked within {slowest:.2?}, promised {ACKED:?}");
    assert!(slowest < 3 * ACKED, "an ack waited for Redis: {slowest:?}");
    pair.is_heard("F12", "unheard 99", REPAIR).await;
    link.heal();
    pair.by_bus().await;
    pair.all_is_well().await;
}

/// F13: Redis throws out its subscribers, and one that is too far behind; repaired within 5 s.
#[tokio::test]
async fn a_subscriber_that_redis_throws_out_misses_nothing() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).lossy(1)).await;
    let redis = pair.cluster.redis();
    let killed = redis.kill_clients("pubsub").await.expect("it answers");
    assert!(killed >= 2, "{killed}");
    pair.arrives("F13, thrown out", "after the kill", REPAIR)
        .await;

    pair.by_bus().await;
    let before = redis.subscribers().await.expect("it answers");
    // Each of these is more than a subscriber may be behind, and than Redis keeps beside that.
    redis.limit_subscribers(1_024).await.expect("it takes it");
    let long = "x".repeat(15_990);
    for number in 0..10 {
        pair.anns.send(pair.room, &format!("{number} {long}")).await;
    }
    pair.anns.send(pair.room, "behind the burst").await;
    pair.is_heard("F13, too far behind", "behind the burst", REPAIR)
        .await;
    let after = redis.subscribers().await.expect("it answers");
    assert!(!before.is_subset(&after), "nobody was too far behind");
    redis
        .limit_subscribers(32 << 20)
        .await
        .expect("it takes it");
    pair.by_bus().await;
    pair.all_is_well().await;
}

/// F16: a bus that loses, doubles, delays and swaps; nobody sees a gap, a repeat or a wrong order,
/// and everything is there within 5 s.
#[tokio::test]
async fn a_bus_of_the_worst_kind_shows_nowhere() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).lossy(0).lossy(1)).await;
    let worst = Pushes {
        lost: 0.05,
        doubled: 0.05,
        reordered: 0.1,
        delayed: 0.1,
        longest_delay: Duration::from_millis(300),
    };
    for node in 0..2 {
        pair.cluster.proxy(node).set_pushes(worst, 16 + node as u64);
    }
    for number in 0..150 {
        pair.anns
            .post(new_message_id(), pair.room, &format!("ann {number}"));
        pair.bobs.send(pair.room, &format!("bob {number}")).await;
    }
    pair.arrives("F16", "the last one", REPAIR).await;
    pair.all_is_well().await;
    let counts = pair.cluster.proxy(1).counts();
    assert!(
        counts.lost_pushes > 0 && counts.doubled_pushes > 0,
        "{counts:?}"
    );
    assert!(
        counts.delayed_pushes > 0 && counts.reordered_pushes > 0,
        "{counts:?}"
    );
}

/// F17: a node does not take what it is sent, until Redis has no more room for it: that something is
/// missing is known, and it is repaired within 5 s.
#[tokio::test]
async fn a_subscriber_that_stalls_misses_nothing() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    let cut_off = r#"rookery_ingress_breaks_total{reason="cut_off"}"#;
    let before = pair.metric(1, cut_off).await;
    let (redis, node) = (pair.cluster.redis(), pair.cluster.node(1));
    redis.limit_subscribers(4 << 20).await.expect("it takes it");
    // Shorter than a link may be silent.
    node.set_failpoint("bus-received", "1*return(wait 1500)")
        .await;
    // Beyond the limit and the buffers of both kernels; on the node's own channel it is no news.
    let channel = format!("rookery:v1:node:{}", node.name());
    redis.flood(&channel, 24).await.expect("it publishes");
    for number in 0..200 {
        let text = format!("burst {number}");
        pair.anns.post(new_message_id(), pair.room, &text);
    }
    pair.is_heard("F17", "burst 199", REPAIR).await;
    // The journal may be quicker than a node that stalls.
    pair.by_bus().await;
    assert!(pair.metric(1, cut_off).await > before, "it was cut off");
    redis
        .limit_subscribers(32 << 20)
        .await
        .expect("it takes it");
    pair.all_is_well().await;
}

/// F18: a Redis that sleeps or answers nobody holds up no ack; delivered within 5 s.
#[tokio::test]
async fn a_redis_that_sleeps_holds_up_no_ack() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    let (redis, nap) = (pair.cluster.redis(), Duration::from_secs(3));
    let sleeping = async { redis.sleep(nap).await.expect("it wakes up") };
    let ((), ()) = tokio::join!(sleeping, acked_meanwhile(&pair, "asleep"));
    pair.by_bus().await;
    redis.pause_clients(nap).await.expect("it answers this");
    acked_meanwhile(&pair, "paused").await;
    pair.by_bus().await;
    pair.all_is_well().await;
}

async fn acked_meanwhile(pair: &Pair, how: &str) {
    let begun = Instant::now();
    pair.anns.send(pair.room, how).await;
    let took = begun.elapsed();
    println!("F18, {how}: acked after {took:.2?}, promised {ACKED:?}");
    assert!(took < 3 * ACKED, "an ack waited for Redis: {took:?}");
    pair.is_heard(&format!("F18, {how}"), how, REPAIR).await;
}
