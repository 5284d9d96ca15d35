//! Loads, refusals and pauses: what has a bound keeps it, and each trouble is told by its name.

use std::time::Duration;

use bytes::Bytes;
use rookery::bus::{BreakReason, Ingress};
use rookery_test_support::{PATIENCE, eventually};
use tokio::time::{Instant, interval};

use crate::bench::{Bench, channel, channels};
use crate::faults::redis;

/// Whoever publishes never waits, whatever becomes of it, and memory has a bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_published_is_dropped_and_reported() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let channel = channel();
    bench.subscribes(&channel).await;
    redis.freeze().await.unwrap();
    let payload = Bytes::from(vec![b'x'; 1_024]);
    let began = Instant::now();
    for _ in 0..200_000 {
        bench.bus.publish(channel.clone(), payload.clone());
    }
    let took = began.elapsed();
    assert!(took < PATIENCE, "publishing took {took:?}");
    assert!(bench.bus.is_busy());
    bench.heard.break_for(BreakReason::Unpublished).await;

    redis.thaw().await.unwrap();
    eventually("the queue is empty", async || !bench.bus.is_busy()).await;
    bench.up().await;
    bench.hears(&channel, &bench).await;
}

/// With one thread that does something else, nothing of the bus runs: that is no fault of Redis.
#[tokio::test]
async fn a_process_that_stood_still_doubts_what_it_heard_and_not_its_links() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    std::thread::sleep(Duration::from_secs(4));
    let next = bench.heard.next().await;
    assert!(
        matches!(next, Ingress::Break(BreakReason::Standstill)),
        "{next:?}"
    );
    let channel = channel();
    bench.subscribes(&channel).await;
    bench
        .bus
        .publish(channel.clone(), Bytes::from_static(b"on the same link"));
    assert_eq!(bench.heard.message().await.0, channel);
}

/// Where nobody else is to blame: Redis answers, and this node cannot subscribe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_out_of_step_is_told_from_a_redis_that_is_away() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    assert!(bench.bus.is_reachable() && bench.bus.is_in_step());
    let forbid = ["ACL", "SETUSER", "default", "resetchannels"];
    redis.cli(&forbid).await.unwrap();
    bench.down().await;
    // Longer than an answer counts, so that this is no remembered one.
    let mut looks = interval(Duration::from_millis(100));
    for _ in 0..40 {
        looks.tick().await;
        assert!(!bench.bus.is_in_step(), "it is not subscribed");
    }
    eventually("Redis answers", async || bench.bus.is_reachable()).await;
    let allow = ["ACL", "SETUSER", "default", "allchannels"];
    redis.cli(&allow).await.unwrap();
    eventually("it is in step", async || bench.bus.is_in_step()).await;

    redis.kill().await.unwrap();
    eventually("Redis is away", async || !bench.bus.is_reachable()).await;
    assert!(!bench.bus.is_in_step());
}

/// What is published on a replica reaches nobody but its own subscribers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_not_taken_for_a_bus() {
    let (redis, other) = (redis().await, redis().await);
    let bench = Bench::redis_up(&redis.url()).await;
    let master = other.port().to_string();
    let follow = ["REPLICAOF", "127.0.0.1", master.as_str()];
    redis.cli(&follow).await.unwrap();
    bench.down().await;
    assert!(bench.bus.is_reachable());
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    bench.up().await;
    let channel = channel();
    bench.hears_after_subscribing(&channel).await;
}

/// The whole of a full node, in chunks, each confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_channels_are_back_soon() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let all = channels(10_000);
    bench.bus.subscribe(&all).await.unwrap();
    redis.kill().await.unwrap();
    bench.down().await;
    bench.heard.forget();
    redis.restart().await.unwrap();
    let answers = Instant::now();
    bench.heard.break_for(BreakReason::Reconnected).await;
    let took = answers.elapsed();
    eprintln!("10,000 channels confirmed {took:?} after Redis was back");
    for channel in [&all[0], &all[5_000], &all[9_999]] {
        bench.hears(channel, &bench).await;
    }
}

/// A system call for each publication was a quarter of what a busy node did. Redis counts how often
/// it had to read, which is never more often than somebody wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_share_writes() {
    const COUNT: usize = 60_000;
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let [channel, fence] = [channel(), channel()];
    bench.hears_after_subscribing(&fence).await;
    let reads = async || -> usize {
        let stats = redis.cli(&["INFO", "stats"]).await.unwrap();
        let mut lines = stats.lines();
        let count = lines.find_map(|line| line.strip_prefix("total_reads_processed:"));
        count.unwrap().trim().parse().unwrap()
    };
    let before = reads().await;
    for _ in 0..COUNT {
        bench
            .bus
            .publish(channel.clone(), Bytes::from_static(b"to nobody"));
    }
    let last = Bytes::from_static(b"the last");
    bench.bus.publish(fence.clone(), last.clone());
    let mut newest = Bytes::new();
    while newest != last {
        newest = bench.heard.message().await.1;
    }
    let took = reads().await - before;
    eprintln!("{COUNT} publications in {took} reads");
    assert!(took < COUNT / 20, "{took} reads");
}
