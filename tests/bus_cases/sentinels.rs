//! Three real sentinels, a master and a replica: the bus and presence go where the master is.

use std::sync::Arc;

use rookery::bus::Channel;
use rookery::clock::Clock;
use rookery::lifecycle::Tasks;
use rookery::presence::{Presence, RedisPresence, RedisPresenceOptions};
use rookery_test_support::servers::{Redis, Sentinels};
use rookery_test_support::{Mode, Role, eventually};
use tokio::time::Instant;

use crate::bench::{Bench, channel};

async fn sentinels() -> Sentinels {
    Sentinels::start()
        .await
        .unwrap_or_else(|error| panic!("no sentinels for the test: {error:#}"))
}

/// Waits until a bus subscribes there.
async fn hosts(redis: &Redis, channel: &Channel) {
    eventually("the subscriber is there", async || {
        let name = channel.name();
        let heard = redis.cli(&["PUBSUB", "NUMSUB", &name]).await.unwrap();
        heard.ends_with("\n1")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let sentinels = sentinels().await;
    let bench = Bench::redis_up(&sentinels.url()).await;
    let channel = channel();
    bench.hears_after_subscribing(&channel).await;
    hosts(sentinels.redis(0), &channel).await;
    let killed = Instant::now();
    sentinels.redis(0).kill().await.unwrap();
    bench.down().await;
    sentinels.until_master_is(1).await.unwrap();
    let agreed = Instant::now();
    bench.up().await;
    let took = agreed.elapsed();
    let since = killed.elapsed();
    eprintln!("up {took:?} after the failover, {since:?} after the master died");
    hosts(sentinels.redis(1), &channel).await;
    bench.hears(&channel, &bench).await;
}

/// Nothing breaks and nothing is refused: the old master goes on, and is master no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_stays_on_an_island() {
    let sentinels = sentinels().await;
    let bench = Bench::redis_up(&sentinels.url()).await;
    let tasks = Tasks::new();
    let options = RedisPresenceOptions {
        url: sentinels.url(),
        node_id: "node".to_owned(),
        neighbours: Arc::default(),
    };
    let presence = RedisPresence::start(&options, Arc::default(), Clock::system(), &tasks).unwrap();
    eventually("presence is reachable", async || presence.is_reachable()).await;
    let channel = channel();
    bench.hears_after_subscribing(&channel).await;
    hosts(sentinels.redis(0), &channel).await;
    assert!(sentinels.way(0).connections_for(Role::Other) >= 1);

    sentinels.way(0).set_for(Role::Sentinel, Mode::Blackhole);
    sentinels.until_master_is(1).await.unwrap();
    let agreed = Instant::now();
    hosts(sentinels.redis(1), &channel).await;
    bench.up().await;
    eventually("nobody is left behind, presence neither", async || {
        let roles = [Role::Subscriber, Role::Publisher, Role::Other];
        let left = roles.map(|role| sentinels.way(0).connections_for(role));
        left == [0; 3] && presence.is_reachable()
    })
    .await;
    let took = agreed.elapsed();
    eprintln!("off the island {took:?} after the failover");
    let role = sentinels.redis(0).cli(&["ROLE"]).await.unwrap();
    assert!(role.starts_with("master"), "it still takes itself for one");
    bench.hears(&channel, &bench).await;
    tasks.stopping().cancel();
}
