//! What the bus loses without a word comes all the same, within the time that is promised.

use std::time::Duration;

use rookery_protocol::Seq;
use rookery_protocol::event::ServerEvent;
use rookery_test_support::{Metrics, TestCluster, eventually, new_message_id};

use crate::ROOKERY;

/// Promised are 5 s; the rest is for a busy machine.
const REPAIR: Duration = Duration::from_secs(30);

/// Entries that reached sockets of a node, by what brought them.
#[derive(Debug)]
struct Delivered {
    fill: f64,
    reconcile: f64,
    found: f64,
}

fn delivered_between(before: &Metrics, after: &Metrics) -> Delivered {
    let grown = |series: &str| after.get(series) - before.get(series);
    Delivered {
        fill: grown(r#"rookery_delivered_total{path="fill"}"#),
        reconcile: grown(r#"rookery_delivered_total{path="reconcile"}"#),
        found: grown("rookery_reconcile_found_total"),
    }
}

#[tokio::test]
async fn a_message_lost_in_the_middle_is_filled_in_before_the_next_one() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    phone.send(room, "before").await;
    bobs.expect_message("before").await;

    let before = cluster.metrics(1).await;
    cluster.proxy(1).lose("the lost one");
    phone.send(room, "the lost one").await;
    phone.send(room, "the next one").await;
    bobs.expect_message_within("the next one", REPAIR).await;
    assert_eq!(cluster.proxy(1).lost(), 1, "the bus lost what it should");
    assert!(bobs.has("the lost one"));
    let delivered = delivered_between(&before, &cluster.metrics(1).await);
    assert!(delivered.fill >= 1.0, "{delivered:?}");
    assert!(
        delivered.found == 0.0 && delivered.reconcile == 0.0,
        "{delivered:?}"
    );

    phone.send(room, "after").await;
    bobs.expect_message("after").await;
    bobs.seen_once_in_order(room);
}

#[tokio::test]
async fn a_lost_message_that_no_other_follows_is_found_in_the_journal() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    phone.send(room, "before").await;
    bobs.expect_message("before").await;

    let before = cluster.metrics(1).await;
    cluster.proxy(1).lose("the last one");
    phone.send(room, "the last one").await;
    bobs.expect_message_within("the last one", REPAIR).await;
    assert_eq!(cluster.proxy(1).lost(), 1, "the bus lost what it should");
    let delivered = delivered_between(&before, &cluster.metrics(1).await);
    assert_eq!(
        (delivered.reconcile, delivered.found),
        (1.0, 1.0),
        "{delivered:?}"
    );
    assert!(delivered.fill == 0.0, "{delivered:?}");

    phone.send(room, "after").await;
    bobs.expect_message("after").await;
    bobs.seen_once_in_order(room);
}

#[tokio::test]
async fn a_lost_first_message_of_a_new_conversation_is_found_too() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let direct = ann.direct(&bob);
    // Both the news of the conversation and its first message name it.
    cluster.proxy(1).lose(&direct.to_string());
    phone.send(&bob, "you do not know me").await;
    bobs.expect_message_within("you do not know me", REPAIR)
        .await;
    assert!(cluster.proxy(1).lost() > 0, "the bus lost what it should");
    bobs.expect("the conversation", |event| match event {
        ServerEvent::ConversationCreated(created) => {
            (created.conversation_id == direct).then_some(())
        }
        _ => None,
    })
    .await;
    bobs.seen_once_in_order(direct);
}

#[tokio::test]
async fn news_of_a_membership_or_a_log_out_that_is_lost_is_found_in_the_journal() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[]).await;
    let bobs = bob.connect(cluster.node(1)).await;
    cluster.proxy(1).lose("ann added bob");
    ann.add_members(room, &[bob.id()])
        .await
        .expect("ann owns the room");
    bobs.expect_message_within("ann added bob", REPAIR).await;
    assert_eq!(cluster.proxy(1).lost(), 1, "the bus lost what it should");

    let session = bobs.ready().await.session_id;
    cluster.proxy(1).lose(&session.to_string());
    bob.at(cluster.node(0)).logout().await.expect("a log-out");
    assert_eq!(bobs.expect_close_within(REPAIR).await, 4001);
    assert_eq!(cluster.proxy(1).lost(), 2, "the bus lost what it should");
}

#[tokio::test]
async fn a_hole_of_any_length_is_filled_to_its_end() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let node = cluster.node(1);
    node.set_failpoint("reconcile-off", "return").await;
    cluster.proxy(1).lose("a lost one");
    for hundred in 0..13 {
        for number in 1..=100 {
            phone.post(new_message_id(), room, &format!("a lost one, {number}"));
        }
        let last = Seq(101 + hundred * 100);
        phone.expect_all(room, Seq(2), last).await;
    }
    // One look at the journal tells of all of them, and none tells again.
    node.set_failpoint("reconcile-off", "off").await;
    bobs.expect_all(room, Seq(2), Seq(1_301)).await;
    assert_eq!(
        cluster.proxy(1).lost(),
        1_300,
        "the bus lost what it should"
    );
    bobs.seen_once_in_order(room);
    let connections = bobs.read(|record| record.connection());
    assert_eq!(connections, 1, "without coming back");
}

#[tokio::test]
async fn what_was_lost_of_many_conversations_is_read_together() {
    const ROOMS: usize = 60;
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let mut rooms = Vec::new();
    for number in 0..ROOMS {
        rooms.push(ann.group(&format!("room {number}"), &[&bob]).await);
    }
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let node = cluster.node(1);
    cluster.proxy(1).lose("a lost one");
    let lose = async |count: usize| {
        node.set_failpoint("reconcile-off", "return").await;
        for room in &rooms {
            for number in 0..count {
                phone.send(*room, &format!("a lost one, {number}")).await;
            }
        }
    };

    lose(3).await;
    let reads = async || cluster.metrics(1).await.get("rookery_fill_seconds_count");
    let before = reads().await;
    node.set_failpoint("reconcile-off", "off").await;
    for room in &rooms {
        bobs.expect_all(*room, Seq(2), Seq(4)).await;
    }
    let reads = reads().await - before;
    assert!(reads < ROOMS as f64 / 2.0, "{reads} reads of {ROOMS} rooms");

    // One that cannot be read keeps no other from its messages.
    lose(1).await;
    let spoil = |metadata: &str| {
        let (room, set) = (rooms[ROOMS / 2], format!("set metadata = {metadata}"));
        format!("update messages {set} where conversation_id = '{room}' and seq = 5")
    };
    cluster.sql(&spoil("'{'")).await;
    node.set_failpoint("reconcile-off", "off").await;
    for room in rooms.iter().filter(|room| **room != rooms[ROOMS / 2]) {
        bobs.expect_all(*room, Seq(2), Seq(5)).await;
    }
    let failed = cluster.metrics(1).await;
    assert!(failed.get(r#"rookery_fills_total{result="failed"}"#) > 0.0);
    cluster.sql(&spoil("null")).await;
    for room in &rooms {
        bobs.expect_all(*room, Seq(2), Seq(5)).await;
        bobs.seen_once_in_order(*room);
    }
    assert_eq!(bobs.read(|record| record.connection()), 1);
}

#[tokio::test]
async fn a_fill_that_fails_is_tried_until_it_succeeds() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let node = cluster.node(1);
    node.set_failpoint("reconcile-off", "return").await;
    cluster.proxy(1).lose("the lost one");
    let lost = phone.send(room, "the lost one").await;
    phone
        .react(room, lost.seq, "👍", true)
        .await
        .expect("a reaction");
    // Read with the lost one, and with nothing else that happens here.
    cluster.sql("alter table reactions rename to away").await;
    node.set_failpoint("reconcile-off", "off").await;
    eventually("several attempts have failed", async || {
        let metrics = cluster.metrics(1).await;
        metrics.get(r#"rookery_fills_total{result="failed"}"#) > 2.0
    })
    .await;
    assert!(!bobs.has("the lost one"));
    cluster.sql("alter table away rename to reactions").await;
    bobs.expect_message_within("the lost one", REPAIR).await;
    bobs.seen_once_in_order(room);
}

/// Tells bob of a message that follows a lost one, on a node without one of the steps that keep the
/// order; whether he gets the lost one all the same.
async fn is_found_without(step: &str) -> bool {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    for step in [step, "reconcile-off"] {
        cluster.node(1).set_failpoint(step, "return").await;
    }
    let bobs = bob.connect(cluster.node(1)).await;
    cluster.proxy(1).lose("the lost one");
    phone.send(room, "the lost one").await;
    phone.send(room, "the next one").await;
    phone.send(room, "one more").await;
    bobs.expect_message_within("one more", REPAIR).await;
    bobs.has("the lost one")
}

#[tokio::test]
async fn these_stories_notice_when_nothing_waits_or_nobody_knows_where_a_socket_begins() {
    assert!(!is_found_without("hold-off").await);
    assert!(!is_found_without("base-not-read").await);
}

#[tokio::test]
async fn what_is_lost_while_a_socket_reads_its_base_is_found_too() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob, eve] = cluster.register_all(["ann", "bob", "eve"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let node = cluster.node(1);
    // Longer than it takes until a look into the journal has told what it found.
    let pause = "1*return(wait 6000)";
    node.set_failpoint("after-base", pause).await;
    let before = cluster.metrics(1).await.get("rookery_bus_subscriptions");
    let opening = bob.connect(node);
    let meanwhile = async {
        eventually("bob's socket is at its base", || async {
            cluster.metrics(1).await.get("rookery_bus_subscriptions") > before
        })
        .await;
        // Bases are read in turn: after hers, his has been.
        eve.connect(node).await;
        cluster.proxy(1).lose("never told");
        phone.send(room, "never told").await;
    };
    let (bobs, ()) = tokio::join!(opening, meanwhile);
    bobs.expect_message_within("never told", REPAIR).await;
    assert!(cluster.proxy(1).lost() > 0, "the bus lost what it should");
    phone.send(room, "after").await;
    bobs.expect_message("after").await;
    bobs.seen_once_in_order(room);
}
