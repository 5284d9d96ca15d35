//! Clients that do not read what they are told: each costs little, is found, and is sent to come
//! back; nobody else notices. And clients on slow links, which are heard all the same.

use std::collections::HashMap;
use std::time::Duration;

use rookery_protocol::Seq;
use rookery_test_support::wire::{Handshake, Wire};
use rookery_test_support::{Metrics, PATIENCE, Person, TestCluster, eventually, new_message_id};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior};

use crate::ROOKERY;

/// Some eighty messages of this length fill an outbox of 1 MiB.
const LONG: usize = 12_000;

fn handshake(cluster: &TestCluster, person: &Person, path: &str) -> Handshake {
    let handshake = Handshake::to(&cluster.node(0).url()).path(path);
    handshake.token(&person.tokens.access_token)
}

async fn open(cluster: &TestCluster, person: &Person, path: &str) -> Wire {
    let mut wire = handshake(cluster, person, path).open().await;
    wire.expect("ready").await;
    wire
}

fn slow_readers(metrics: &Metrics) -> f64 {
    let causes = ["frames", "bytes", "node", "stalled"];
    let series = causes.map(|cause| format!(r#"rookery_slow_readers_total{{cause="{cause}"}}"#));
    series.iter().map(|series| metrics.get(series)).sum()
}

#[tokio::test]
async fn who_does_not_read_is_sent_away_and_nobody_else_notices() {
    const DEAF: usize = 20;
    let cluster = TestCluster::builder(ROOKERY)
        .set("ROOKERY_LIMITS_SOCKETS_PER_USER", "50")
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        deaf.push(open(&cluster, &bob, "/ws").await);
    }
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let memory = async || {
        cluster
            .metrics(0)
            .await
            .get("process_resident_memory_bytes")
    };
    let before = memory().await;
    let text = "x".repeat(LONG);
    let (mut sent, mut last) = (0, Seq(0));
    while slow_readers(&cluster.metrics(0).await) < DEAF as f64 {
        assert!(sent < 1_000, "they are not found");
        for _ in 0..20 {
            last = anns.send(room, &format!("{sent} {text}")).await.seq;
            sent += 1;
        }
    }
    bobs.expect_all(room, Seq(2), last).await;
    bobs.seen_once_in_order(room);
    let grown = (memory().await - before) / 1024.0 / 1024.0;
    assert!(
        grown < 3.0 * DEAF as f64,
        "{grown} MiB more for {DEAF} readers"
    );
    eventually("they are gone", async || {
        cluster.metrics(0).await.get("rookery_sockets") == 2.0
    })
    .await;
    assert_eq!(bobs.read(|record| record.connection()), 1);
}

#[tokio::test]
async fn who_reads_a_trickle_is_too_slow() {
    let cluster = TestCluster::single(ROOKERY).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let address = cluster.node(0).url().replace("http://", "");
    let mut trickle = TcpStream::connect(address).await.expect("it listens");
    let hello = handshake(&cluster, &bob, "/ws").bytes();
    trickle.write_all(&hello).await.expect("it takes a request");
    let anns = ann.connect(cluster.node(0)).await;
    // More than the kernels on both sides hold, less than that and an outbox: only time can tell.
    for number in 0..100 {
        anns.send(room, &format!("{number} {}", "x".repeat(LONG)))
            .await;
    }
    let begun = Instant::now();
    // A pace, not a wait.
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stalled = r#"rookery_slow_readers_total{cause="stalled"}"#;
    while cluster.metrics(0).await.get(stalled) == 0.0 {
        assert!(begun.elapsed() < PATIENCE, "a trickle keeps it alive");
        seconds.tick().await;
        // Its end shows in the metric.
        trickle.read_exact(&mut [0; 1_024]).await.ok();
    }
    assert_eq!(
        slow_readers(&cluster.metrics(0).await),
        1.0,
        "for no other cause"
    );
}

#[tokio::test]
async fn a_client_on_a_slow_link_is_heard_while_it_is_told_what_it_missed() {
    let cluster = TestCluster::single(ROOKERY).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let anns = ann.connect(cluster.node(0)).await;
    // Each nearly a frame, together more than the kernels on both sides hold.
    for number in 0..300 {
        anns.send(room, &format!("{number} {}", "語".repeat(15_000)))
            .await;
    }
    let mut slow = open(&cluster, &bob, "/ws?resume=1").await;
    let cursors = HashMap::from([(room.to_string(), 1)]);
    slow.json(&json!({"type": "sync", "cursors": cursors}))
        .await;
    slow.expect("message.batch").await;
    // It reads nothing more, and what it is told is more than anybody holds for it.
    let (mut written, mut looks) = (0.0, 0);
    eventually("the node can write nothing more", async || {
        let now = cluster.metrics(0).await.get("rookery_frames_sent_total");
        looks = if now == written { looks + 1 } else { 0 };
        written = now;
        looks >= 25
    })
    .await;
    let said = json!({
        "type": "message.send", "message_id": new_message_id(), "conversation_id": room,
        "content": "I am here",
    });
    slow.json(&said).await;
    anns.expect_message("I am here").await;
    slow.expect("sync.done").await;
}

/// A fill is given to the reader as it reads, as a sync is: a hole that is larger than an outbox closes
/// nobody who reads.
#[tokio::test]
async fn a_long_hole_is_filled_at_the_pace_of_its_reader() {
    const LOST: i64 = 150;
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob, eve] = cluster.register_all(["ann", "bob", "eve"]).await;
    let room = ann.group("room", &[&bob, &eve]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let eves = eve.connect(cluster.node(1)).await;
    let node = Handshake::to(&cluster.node(1).url()).path("/ws");
    let mut bobs = node.token(&bob.tokens.access_token).open().await;
    bobs.expect("ready").await;
    cluster
        .node(1)
        .set_failpoint("reconcile-off", "return")
        .await;
    cluster.proxy(1).lose("a lost one");
    // Each nearly a frame, together several times what an outbox and the kernels hold.
    let text = "語".repeat(15_000);
    for number in 0..LOST {
        anns.send(room, &format!("a lost one, {number} {text}"))
            .await;
    }
    cluster.node(1).set_failpoint("reconcile-off", "off").await;
    let mut seqs = Vec::new();
    let mut last = Seq(LOST + 1);
    while seqs.last() != Some(&last.0) {
        let event = bobs.expect("message.new").await;
        seqs.push(event["message"]["seq"].as_i64().expect("a seq"));
        if seqs.len() == 50 {
            // While he is behind the bus brings the next ones, and he is told them in their turn.
            for _ in 0..5 {
                last = anns.send(room, "meanwhile").await.seq;
            }
        }
        // A pace, not a wait.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seqs, (2..=last.0).collect::<Vec<_>>());
    eves.expect_all(room, Seq(2), last).await;
    eves.seen_once_in_order(room);
    assert_eq!(eves.read(|record| record.connection()), 1);
    assert_eq!(slow_readers(&cluster.metrics(1).await), 0.0);
}

#[tokio::test]
async fn these_stories_notice_an_outbox_without_a_bound() {
    let cluster = TestCluster::builder(ROOKERY)
        .set("FAILPOINTS", "outbox-unbounded=return")
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let _deaf = open(&cluster, &bob, "/ws").await;
    let anns = ann.connect(cluster.node(0)).await;
    for number in 0..400 {
        anns.send(room, &format!("{number} {}", "x".repeat(LONG)))
            .await;
    }
    let too_much = r#"rookery_slow_readers_total{cause="bytes"}"#;
    assert_eq!(
        cluster.metrics(0).await.get(too_much),
        0.0,
        "it is found all the same"
    );
}
