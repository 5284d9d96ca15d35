//! A node that does not hear its neighbours, though all that is its own comes back.

use std::collections::HashMap;

use bytes::Bytes;
use rookery::bus::{BreakReason, BusEvent, Channel, Envelope, VERSION};
use rookery::clock::Clock;
use rookery_test_support::servers::Redis;
use rookery_test_support::{TestCluster, eventually};
use tokio::time::{Duration, Instant, interval};

use crate::bench::Bench;

const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");

fn canary(count: u64) -> Bytes {
    let envelope = Envelope {
        key: [0; 16],
        v: VERSION,
        origin: String::new(),
        skip: None,
        at: Clock::system().now(),
        members: 0,
        event: BusEvent::Canary { count },
    };
    envelope.encode().unwrap()
}

/// Has the neighbour show life until the future is done.
async fn while_alive<T>(bench: &Bench, node: &str, story: impl Future<Output = T>) -> T {
    let alive = async {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let nodes = HashMap::from([(node.to_owned(), true)]);
            bench.neighbours.seen(std::time::Instant::now(), &nodes);
        }
    };
    tokio::select! {
        told = story => told,
        () = alive => unreachable!("it lives for ever"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_neighbour_that_is_silent_has_the_subscriber_rebuilt() {
    let redis = Redis::start().await.unwrap();
    let bench = Bench::redis_up(&redis.url()).await;
    let from = Bench::redis_up(&redis.url()).await;
    let told = async {
        let began = Instant::now();
        bench.heard.break_for(BreakReason::Neighbour).await;
        let took = began.elapsed();
        eprintln!("a silent neighbour was missed after {took:?}");
        assert!(took >= Duration::from_secs(3), "missed after {took:?}");
        bench.heard.break_for(BreakReason::Reconnected).await;
        assert_eq!(bench.neighbours.silent_count(), 1);
        // On the new connection it is listened to as well.
        let channel = Channel::Node("other".to_owned());
        eventually("the neighbour is heard", async || {
            from.bus.publish(channel.clone(), canary(1));
            bench.neighbours.silent_count() == 0
        })
        .await;
    };
    while_alive(&bench, "other", told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_are_heard_are_left_in_peace_and_the_gone_are_forgotten() {
    let redis = Redis::start().await.unwrap();
    let bench = Bench::redis_up(&redis.url()).await;
    let from = Bench::redis_up(&redis.url()).await;
    let channel = Channel::Node("other".to_owned());
    let own = bench.bus.subscription_count();
    let told = async {
        let mut ticks = interval(Duration::from_millis(250));
        for count in 0..24 {
            ticks.tick().await;
            from.bus.publish(channel.clone(), canary(count));
        }
        assert_eq!(bench.bus.subscription_count(), own + 1);
    };
    while_alive(&bench, "other", told).await;
    bench
        .neighbours
        .seen(std::time::Instant::now(), &HashMap::new());
    eventually("nobody listens to it any more", async || {
        bench.bus.subscription_count() == own
    })
    .await;
    // Had there been a break it would come before this.
    let fence = crate::bench::channel();
    bench.subscribes(&fence).await;
    from.bus.publish(fence.clone(), Bytes::new());
    assert_eq!(bench.heard.message().await.0, fence);
}

/// Whole nodes: the sign of life comes by presence, and the silence is a Redis that loses pushes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_miss_each_other() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let breaks = async |node: usize| {
        let metrics = cluster.metrics(node).await;
        metrics.get(r#"rookery_ingress_breaks_total{reason="neighbour"}"#)
    };
    let subscriptions = async |node: usize| {
        let metrics = cluster.metrics(node).await;
        metrics.get("rookery_bus_subscriptions")
    };
    for node in [0, 1] {
        eventually("a node listens to the other", async || {
            subscriptions(node).await == 3.0
        })
        .await;
    }
    let channel = Channel::Node(cluster.node(0).name().to_owned());
    cluster.proxy(1).lose(&channel.name());
    eventually("the deaf node misses the other", async || {
        breaks(1).await >= 1.0
    })
    .await;
    eventually("it says so", async || {
        let metrics = cluster.metrics(1).await;
        metrics.get("rookery_bus_neighbours_silent") == 1.0
    })
    .await;
    assert_eq!(breaks(0).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_node_that_is_alone_with_its_trouble_is_not_ready() {
    let cluster = TestCluster::start(ROOKERY, 1).await;
    let node = cluster.node(0);
    let redis = cluster.redis();
    let forbid = ["ACL", "SETUSER", "default", "resetchannels"];
    redis.cli(&forbid).await.unwrap();
    eventually("it is not ready", async || !node.is_ready().await).await;
    let allow = ["ACL", "SETUSER", "default", "allchannels"];
    redis.cli(&allow).await.unwrap();
    eventually("it is ready", async || node.is_ready().await).await;

    redis.kill().await.unwrap();
    eventually("it notices that Redis is gone", async || {
        cluster.metrics(0).await.get("rookery_degraded") == 1.0
    })
    .await;
    assert!(node.is_ready().await);
}
