//! Redis goes away, freezes, forgets and floods. Each test has a Redis of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rookery::bus::{BreakReason, BusDown, Channel, Ingress};
use rookery_test_support::PATIENCE;
use rookery_test_support::servers::Redis;
use tokio::time::{Instant, timeout};

use crate::bench::{Bench, Heard, channel, channels};

pub(crate) async fn redis() -> Redis {
    Redis::start()
        .await
        .unwrap_or_else(|error| panic!("no Redis for the test: {error:#}"))
}

/// The next message; canaries' breaks and the like are passed over.
async fn next_message(bench: &Bench) -> Channel {
    loop {
        if let Ingress::Message { channel, .. } = bench.heard.next().await {
            return channel;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_is_missed_at_once_and_found_again() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let from = Bench::redis_up(&redis.url()).await;
    let [before, meanwhile] = [channel(), channel()];
    let many = channels(3_000);
    bench.subscribes(&before).await;
    bench.bus.subscribe(&many).await.unwrap();

    redis.kill().await.unwrap();
    tokio::join!(bench.down(), from.down());
    // Wanted all the same.
    let refused = bench.bus.subscribe(std::slice::from_ref(&meanwhile)).await;
    assert_eq!(refused, Err(BusDown));
    bench.bus.unsubscribe(std::slice::from_ref(&many[0])).await;
    assert_eq!(
        bench.bus.subscription_count(),
        1 + 1 + 2_999 + 1,
        "its own channel counts"
    );
    for _ in 0..1_000 {
        from.bus
            .publish(before.clone(), Bytes::from_static(b"lost"));
    }

    redis.restart().await.unwrap();
    bench.heard.break_for(BreakReason::Reconnected).await;
    from.up().await;
    // From the break on it hears everything, without being asked: it is in step.
    for channel in [&many[0], &before, &meanwhile, &many[1], &many[2_999]] {
        from.bus
            .publish(channel.clone(), Bytes::from_static(b"back"));
    }
    for expected in [&before, &meanwhile, &many[1], &many[2_999]] {
        // What was published while Redis was away may have waited for it.
        let mut heard = next_message(&bench).await;
        while heard == before && *expected != before {
            heard = next_message(&bench).await;
        }
        assert_eq!(heard, *expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_later_is_found() {
    let redis = redis().await;
    redis.kill().await.unwrap();
    let bench = Bench::redis(&redis.url());
    let channel = channel();
    assert!(!bench.bus.is_up());
    assert_eq!(
        bench.bus.subscribe(std::slice::from_ref(&channel)).await,
        Err(BusDown)
    );
    bench
        .bus
        .publish(channel.clone(), Bytes::from_static(b"to nobody"));

    redis.restart().await.unwrap();
    bench.heard.break_for(BreakReason::Reconnected).await;
    bench.hears(&channel, &bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_forgets_does_not_matter() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let channel = channel();
    bench.subscribes(&channel).await;
    redis.flushall().await.unwrap();
    bench
        .bus
        .publish(channel.clone(), Bytes::from_static(b"after"));
    assert_eq!(
        bench.heard.message().await,
        (channel, Bytes::from_static(b"after"))
    );
    assert!(bench.bus.is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_redis_throws_out_comes_back_in_step() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let from = Bench::redis_up(&redis.url()).await;
    let all = channels(2_500);
    bench.bus.subscribe(&all).await.unwrap();
    for _ in 0..3 {
        assert_ne!(
            redis
                .cli(&["CLIENT", "KILL", "TYPE", "pubsub"])
                .await
                .unwrap(),
            "0"
        );
        bench.heard.break_for(BreakReason::CutOff).await;
        for channel in [&all[0], &all[1_250], &all[2_499]] {
            from.bus
                .publish(channel.clone(), Bytes::from_static(b"again"));
            assert_eq!(bench.heard.message().await.0, *channel);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_redis_throws_out_comes_back() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let channel = channel();
    bench.subscribes(&channel).await;
    assert_ne!(
        redis
            .cli(&["CLIENT", "KILL", "TYPE", "normal"])
            .await
            .unwrap(),
        "0"
    );
    bench.hears(&channel, &bench).await;
    bench.up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_freezes_is_found_dead_and_back_when_it_thaws() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let [before, meanwhile] = [channel(), channel()];
    bench.subscribes(&before).await;

    redis.freeze().await.unwrap();
    bench.heard.break_for(BreakReason::Canary).await;
    assert!(!bench.bus.is_up());
    assert_eq!(
        bench.bus.subscribe(std::slice::from_ref(&meanwhile)).await,
        Err(BusDown)
    );

    redis.thaw().await.unwrap();
    bench.heard.break_for(BreakReason::Reconnected).await;
    bench.up().await;
    for channel in [&before, &meanwhile] {
        bench.hears(channel, &bench).await;
    }
}

/// The subscription that Redis never confirms must not be mistaken for one, and the connection
/// that carried it must not be trusted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_not_confirmed_fails_and_is_made_good() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let channel = channel();
    redis.freeze().await.unwrap();
    let asked = bench.bus.subscribe(std::slice::from_ref(&channel));
    let refused = timeout(PATIENCE, asked).await.expect("an answer");
    assert_eq!(refused, Err(BusDown));
    assert!(!bench.bus.is_up());

    redis.thaw().await.unwrap();
    bench.heard.break_for(BreakReason::Reconnected).await;
    bench.hears(&channel, &bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_stops_whatever_redis_does() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    redis.freeze().await.unwrap();
    bench.heard.break_for(BreakReason::Canary).await;
    assert!(bench.tasks.stop(PATIENCE).await, "a task waits for Redis");
}

/// One script publishes all of it in one go, faster than any publisher.
pub(crate) async fn burst(redis: &Redis, channel: &Channel, count: usize) {
    let script = "for i = 0, ARGV[1] - 1 do redis.call('PUBLISH', KEYS[1], i) end";
    let published = redis
        .cli(&["EVAL", script, "1", &channel.name(), &count.to_string()])
        .await;
    published.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_arrives_whole() {
    const COUNT: usize = 100_000;
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let channel = channel();
    bench.subscribes(&channel).await;
    burst(&redis, &channel, COUNT).await;
    for number in 0..COUNT {
        let (from, payload) = bench.heard.message().await;
        assert_eq!(from, channel);
        assert_eq!(payload, number.to_string());
    }
}

/// A disk that is full where Redis saves: it refuses writes and even PING, and carries news.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_save_carries_news() {
    let redis = redis().await;
    let before = Bench::redis_up(&redis.url()).await;
    timeout(PATIENCE, redis.fail_to_save())
        .await
        .expect("it fails")
        .unwrap();
    let channel = channel();
    let after = Bench::redis_up(&redis.url()).await;
    for bench in [&before, &after] {
        bench.hears_after_subscribing(&channel).await;
        bench.up().await;
    }
    before.hears(&channel, &after).await;
    assert!(before.bus.is_in_step() && after.bus.is_in_step());
}

/// A sink that is slow holds up Redis, which waits: nothing is missing, and nothing is doubted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sink_that_is_slow_misses_nothing() {
    const COUNT: usize = 1_000;
    let redis = redis().await;
    let heard = Arc::new(Heard::default());
    let pass = heard.sink();
    let slow = move |item: Ingress| {
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(2)));
        pass(item);
    };
    let bench = Bench::redis_into(&redis.url(), Arc::new(slow), heard);
    bench.up().await;
    bench.heard.break_for(BreakReason::Reconnected).await;
    let channel = channel();
    bench.subscribes(&channel).await;
    burst(&redis, &channel, COUNT).await;
    for number in 0..COUNT {
        assert_eq!(bench.heard.message().await.1, number.to_string());
    }
}

/// Redis keeps what a subscriber does not take, up to a limit: beyond it, it is known that something
/// is missing, and afterwards all is as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_overflows_is_reported() {
    let redis = redis().await;
    let heard = Arc::new(Heard::default());
    let held = Arc::new(AtomicBool::new(true));
    let sink = {
        let (pass, held) = (heard.sink(), Arc::clone(&held));
        let sink = move |item: Ingress| {
            if matches!(item, Ingress::Message { .. }) && held.load(Ordering::SeqCst) {
                tokio::task::block_in_place(|| {
                    let began = Instant::now();
                    // Not for ever, so that a test that fails ends.
                    while held.load(Ordering::SeqCst) && began.elapsed() < 2 * PATIENCE {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            pass(item);
        };
        Arc::new(sink)
    };
    let bench = Bench::redis_into(&redis.url(), sink, heard);
    bench.up().await;
    let channel = channel();
    bench.subscribes(&channel).await;
    redis.limit_subscribers(1 << 20).await.unwrap();
    // Beyond that limit and the buffers of both kernels.
    redis.flood(&channel.name(), 24).await.unwrap();
    held.store(false, Ordering::SeqCst);
    bench.heard.break_for(BreakReason::CutOff).await;
    bench.hears(&channel, &bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_is_harmless() {
    let redis = redis().await;
    let bench = Bench::redis_up(&redis.url()).await;
    let channel = channel();
    bench.subscribes(&channel).await;
    let own = redis
        .cli(&["PUBSUB", "CHANNELS", "rookery:v1:node:*"])
        .await
        .unwrap();
    assert!(own.starts_with("rookery:v1:node:"), "{own}");
    for junk in ["", "junk", "\u{1}\u{2}", "{\"v\":1}"] {
        assert_eq!(redis.cli(&["PUBLISH", &own, junk]).await.unwrap(), "1");
        assert_eq!(
            redis
                .cli(&["PUBLISH", &channel.name(), junk])
                .await
                .unwrap(),
            "1"
        );
        // To the bus it is bytes; delivery counts what it cannot read.
        assert_eq!(
            bench.heard.message().await,
            (channel.clone(), Bytes::from(junk))
        );
    }
    assert!(bench.bus.is_up());
}
