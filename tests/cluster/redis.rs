//! Redis dies, hangs and forgets under traffic. That costs time, never a message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join3;
use rookery_protocol::{ConversationId, Seq};
use rookery_test_support::{Device, TestCluster, eventually};

use crate::ROOKERY;

/// While Redis is away about one second is promised; the first look after it went may take three.
const IN_THE_DARK: Duration = Duration::from_secs(30);

/// Says something every now and then until told to stop; returns how often.
async fn chatter(device: &Device, room: ConversationId, stop: &AtomicBool) -> i64 {
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        count += 1;
        device
            .send(room, &format!("{} {count}", device.person().name()))
            .await;
        // A pace, not a wait: more than this would only fill the log.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    count
}

async fn has_bus(cluster: &TestCluster, up: bool) {
    eventually(
        &format!("every node notices that Redis is up: {up}"),
        async || {
            let mut all = true;
            for number in 0..cluster.nodes().len() {
                let connected = cluster.metrics(number).await.get("rookery_bus_connected");
                all &= (connected == 1.0) == up;
            }
            all
        },
    )
    .await;
}

/// Waits until a message takes the bus again, as many as that needs.
async fn takes_the_bus(cluster: &TestCluster, from: &Device, room: ConversationId, to: &Device) {
    let by_bus = async || {
        cluster
            .metrics(1)
            .await
            .get(r#"rookery_delivered_total{path="bus"}"#)
    };
    let before = by_bus().await;
    let mut number = 0;
    eventually("messages take the bus", async || {
        number += 1;
        let text = format!("by bus? {number}");
        from.send(room, &text).await;
        to.expect_message(&text).await;
        by_bus().await > before
    })
    .await;
}

#[tokio::test]
async fn messages_travel_through_the_store_while_redis_is_dead() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    let stop = AtomicBool::new(false);
    let story = async {
        bobs.expect_message("ann 10").await;
        cluster.redis().kill().await.expect("a dead Redis");
        has_bus(&cluster, false).await;
        phone.send(room, "in the dark").await;
        bobs.expect_message_within("in the dark", IN_THE_DARK).await;
        let newcomer = bob.connect(cluster.node(1)).await;
        let group = ann.group("made in the dark", &[&bob]).await;
        phone.send(group, "hello there").await;
        newcomer
            .expect_message_within("hello there", IN_THE_DARK)
            .await;
        bobs.expect_message_within("hello there", IN_THE_DARK).await;
        assert!(cluster.node(0).is_ready().await && cluster.node(1).is_ready().await);

        cluster.redis().restart().await.expect("an empty Redis");
        has_bus(&cluster, true).await;
        takes_the_bus(&cluster, &phone, room, &bobs).await;
        stop.store(true, Ordering::SeqCst);
        newcomer.seen_once_in_order(room);
        newcomer.seen_once_in_order(group);
    };
    join3(
        story,
        chatter(&phone, room, &stop),
        chatter(&bobs, room, &stop),
    )
    .await;
    let last = ann.conversation(room).await.expect("the room").last_seq;
    for device in [&phone, &bobs] {
        device.expect_all(room, Seq(1), last).await;
        device.seen_once_in_order(room);
    }
}

#[tokio::test]
async fn a_redis_that_hangs_or_forgets_everything_loses_nothing() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    let stop = AtomicBool::new(false);
    let story = async {
        for round in 1..=5 {
            cluster.redis().flushall().await.expect("FLUSHALL");
            bobs.expect_message(&format!("ann {}", round * 5)).await;
        }
        cluster.redis().freeze().await.expect("a Redis that hangs");
        phone.send(room, "nobody answers").await;
        bobs.expect_message_within("nobody answers", IN_THE_DARK)
            .await;
        let newcomer = bob.connect(cluster.node(1)).await;
        phone.send(room, "still nobody").await;
        newcomer
            .expect_message_within("still nobody", IN_THE_DARK)
            .await;
        cluster.redis().thaw().await.expect("a Redis that answers");
        has_bus(&cluster, true).await;
        takes_the_bus(&cluster, &phone, room, &newcomer).await;
        stop.store(true, Ordering::SeqCst);
        newcomer.seen_once_in_order(room);
    };
    join3(
        story,
        chatter(&phone, room, &stop),
        chatter(&bobs, room, &stop),
    )
    .await;
    let last = ann.conversation(room).await.expect("the room").last_seq;
    for device in [&phone, &bobs] {
        device.expect_all(room, Seq(1), last).await;
        device.seen_once_in_order(room);
    }
}
