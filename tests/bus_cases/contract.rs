//! What holds for every bus. `from` is what publishes: for Redis another connection, of another
//! node; in memory the bus itself.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use rookery::bus::Channel;
use rookery_test_support::servers::Redis;

use crate::bench::{Bench, channel, channels};

macro_rules! contract {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let bench = super::Bench::memory();
                super::$name(&bench, &bench).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let url = super::Redis::shared().await.url();
                let bench = super::Bench::redis_up(&url).await;
                let from = super::Bench::redis_up(&url).await;
                super::$name(&bench, &from).await;
            })*
        }
    };
}

contract! {
    a_publication_reaches_exactly_the_subscribed
    publications_keep_their_order_on_a_channel
    a_subscription_holds_once_it_resolves
    who_unsubscribed_hears_nothing_more
    many_channels_are_subscribed_at_once
    payloads_arrive_as_they_are
    empty_lists_and_repeats_do_nothing
}

fn text(text: impl ToString) -> Bytes {
    Bytes::from(text.to_string())
}

async fn a_publication_reaches_exactly_the_subscribed(bench: &Bench, from: &Bench) {
    let [one, two, other] = [channel(), channel(), channel()];
    bench
        .bus
        .subscribe(&[one.clone(), two.clone()])
        .await
        .unwrap();
    for (channel, said) in [
        (&other, "0"),
        (&one, "1"),
        (&other, "2"),
        (&two, "3"),
        (&one, "4"),
    ] {
        from.bus.publish(channel.clone(), text(said));
    }
    // One road: what was published last arrives last.
    for expected in [(&one, "1"), (&two, "3"), (&one, "4")] {
        assert_eq!(
            bench.heard.message().await,
            (expected.0.clone(), text(expected.1))
        );
    }
    assert!(bench.bus.is_up());
}

async fn publications_keep_their_order_on_a_channel(bench: &Bench, from: &Bench) {
    // Several pipelines, and few enough that no queue on the way overflows.
    const EACH: usize = 500;
    let all = channels(10);
    bench.bus.subscribe(&all).await.unwrap();
    for number in 0..EACH {
        for channel in &all {
            from.bus.publish(channel.clone(), text(number));
        }
    }
    let mut next: HashMap<Channel, usize> = HashMap::new();
    for _ in 0..EACH * all.len() {
        let (channel, payload) = bench.heard.message().await;
        let expected = next.entry(channel).or_default();
        assert_eq!(payload, text(*expected));
        *expected += 1;
    }
    assert!(next.values().all(|count| *count == EACH), "{next:?}");
}

async fn a_subscription_holds_once_it_resolves(bench: &Bench, from: &Bench) {
    for channel in channels(1_000) {
        bench.subscribes(&channel).await;
        from.bus.publish(channel.clone(), text("at once"));
        assert_eq!(bench.heard.message().await, (channel, text("at once")));
    }
}

async fn who_unsubscribed_hears_nothing_more(bench: &Bench, from: &Bench) {
    let [gone, kept, fence] = [channel(), channel(), channel()];
    bench
        .bus
        .subscribe(&[gone.clone(), kept.clone()])
        .await
        .unwrap();
    let before = bench.bus.subscription_count();
    bench.bus.unsubscribe(std::slice::from_ref(&gone)).await;
    assert_eq!(bench.bus.subscription_count(), before - 1);
    // Confirmed behind the unsubscription, on the same connection.
    bench.subscribes(&fence).await;
    for channel in [&gone, &kept, &gone, &fence] {
        from.bus.publish(channel.clone(), text("news"));
    }
    assert_eq!(bench.heard.message().await.0, kept);
    assert_eq!(bench.heard.message().await.0, fence);
    bench.subscribes(&gone).await;
    from.bus.publish(gone.clone(), text("back"));
    assert_eq!(bench.heard.message().await, (gone, text("back")));
}

async fn many_channels_are_subscribed_at_once(bench: &Bench, from: &Bench) {
    let before = bench.bus.subscription_count();
    let all = channels(20_000);
    bench.bus.subscribe(&all).await.unwrap();
    assert_eq!(bench.bus.subscription_count(), before + all.len());
    // Few enough at a time that no queue on the way overflows.
    for chunk in all.chunks(1_000) {
        for channel in chunk {
            from.bus.publish(channel.clone(), text(""));
        }
        let mut expected: HashSet<&Channel> = chunk.iter().collect();
        while !expected.is_empty() {
            let (channel, _) = bench.heard.message().await;
            assert!(
                expected.remove(&channel),
                "{channel:?} was heard twice or is not ours"
            );
        }
    }
    bench.bus.unsubscribe(&all).await;
    assert_eq!(bench.bus.subscription_count(), before);
}

async fn payloads_arrive_as_they_are(bench: &Bench, from: &Bench) {
    let channel = channel();
    bench.subscribes(&channel).await;
    let large: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for payload in [
        b"".as_slice(),
        b"text",
        "tëxt €".as_bytes(),
        b"\xff\x00\r\n",
        b"-ERR",
        &large,
    ] {
        let payload = Bytes::copy_from_slice(payload);
        from.bus.publish(channel.clone(), payload.clone());
        assert_eq!(bench.heard.message().await, (channel.clone(), payload));
    }
}

async fn empty_lists_and_repeats_do_nothing(bench: &Bench, from: &Bench) {
    let channel = channel();
    let same = std::slice::from_ref(&channel);
    for _ in 0..3 {
        bench.bus.subscribe(&[]).await.unwrap();
        bench.bus.unsubscribe(&[]).await;
        bench.bus.subscribe(same).await.unwrap();
        bench.bus.subscribe(same).await.unwrap();
        for said in ["first", "second"] {
            from.bus.publish(channel.clone(), text(said));
            // Heard once only, or the second would not be next.
            assert_eq!(bench.heard.message().await, (channel.clone(), text(said)));
        }
        bench.bus.unsubscribe(same).await;
        bench.bus.unsubscribe(same).await;
    }
}
