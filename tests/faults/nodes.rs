//! Nodes that are killed, hang, or die at the worst moment.

use std::time::Duration;

use rookery_protocol::{MessageId, Seq};
use rookery_test_support::{Device, SendFailure, TestCluster, new_message_id};
use tokio::time::Instant;

use super::kit::{LENIENCE, Pair, REPAIR};
use crate::ROOKERY;

/// A device whose node was killed is back elsewhere within this.
const RESUMED: Duration = Duration::from_secs(3);

/// F1: the people of a killed node resume elsewhere within 3 s.
#[tokio::test]
async fn people_of_a_killed_node_are_back_at_once() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    pair.cluster.node(1).kill().await;
    let begun = Instant::now();
    pair.bobs.expect_close().await;
    pair.anns.send(pair.room, "while bob was away").await;
    pair.bobs.resume_on(pair.cluster.node(0)).await;
    let took = begun.elapsed();
    println!("F1: {took:.2?}, promised {RESUMED:?}");
    assert!(took < LENIENCE * RESUMED, "{took:?}");
    assert!(pair.bobs.has("while bob was away"));
    pair.all_is_well().await;
}

/// F2: a node that hung goes on where the world is by then.
#[tokio::test]
async fn a_node_that_hung_catches_up() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    pair.cluster.node(1).pause().await;
    for number in 0..20 {
        pair.anns.send(pair.room, &format!("unseen {number}")).await;
    }
    // It hangs for longer than a sign of life may take.
    tokio::time::sleep(Duration::from_secs(4)).await;
    pair.cluster.node(1).resume().await;
    pair.is_heard("F2", "unseen 19", REPAIR).await;
    pair.by_bus().await;
    pair.all_is_well().await;
}

/// F26: a clock that is an hour ahead orders nothing, hides nothing and loses nothing. Tokens are
/// judged by the clock of the node that sees them.
#[tokio::test]
async fn a_clock_that_is_wrong_decides_nothing_but_tokens() {
    let hour = Duration::from_secs(3_600);
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .ahead(1, hour)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let (right, ahead) = (cluster.node(0), cluster.node(1));
    let (ann, bob) = (ann.log_in_at(right).await, bob.log_in_at(ahead).await);
    let room = ann.group("room", &[&bob]).await;
    let (anns, bobs) = (ann.connect(right).await, bob.connect(ahead).await);
    for number in 0..10 {
        anns.send(room, &format!("ann {number}")).await;
        let seq = bobs.send(room, &format!("bob {number}")).await.seq;
        for device in [&anns, &bobs] {
            device.expect_all(room, Seq(2), seq).await;
        }
    }
    let (anns_now, bobs_now) = (
        anns.ready().await.server_time,
        bobs.ready().await.server_time,
    );
    let apart = bobs_now.as_millis() - anns_now.as_millis();
    assert!(apart > 3_500_000, "the clocks are {apart} ms apart");
    for device in [&anns, &bobs] {
        device.seen_once_in_order(room);
    }
    let (early, late) = (bob.at(right).me().await, ann.at(ahead).me().await);
    for refused in [early, late] {
        assert!(refused.is_err(), "a token is good only within its time");
    }
}

/// F4: the sender's node dies when the message is stored and nobody else was told; found in the
/// journal within 5 s.
#[tokio::test]
async fn a_node_that_dies_before_it_tells_others_loses_nothing() {
    dies_at("F4", "before-publish").await;
}

/// F5: the sender's node dies when the message is stored and its sender was not told; repeating it
/// stores it no second time.
#[tokio::test]
async fn a_node_that_dies_before_the_ack_has_stored_it_once() {
    dies_at("F5", "after-commit").await;
}

async fn dies_at(fault: &str, seam: &str) {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    let node = pair.cluster.node(0);
    node.set_failpoint(seam, "1*return(die)").await;
    let message_id = new_message_id();
    let sent = pair
        .anns
        .try_send(message_id, pair.room, "last words")
        .await;
    if let Err(failure) = &sent {
        assert!(matches!(failure, SendFailure::Closed(_)), "{failure:?}");
    }
    pair.is_heard(fault, "last words", REPAIR).await;
    pair.anns.expect_close().await;
    pair.anns.resume_on(pair.cluster.node(1)).await;
    let again = repeat(&pair.anns, &pair, message_id).await;
    let heard = pair.bobs.expect_message("last words").await;
    assert_eq!((again.0, again.1), (heard.seq.0, true), "stored once");
    pair.arrives(fault, "and life goes on", REPAIR).await;
    pair.all_is_well().await;
}

/// Sends it again; its place, and whether it was there already.
async fn repeat(device: &Device, pair: &Pair, message_id: MessageId) -> (i64, bool) {
    let again = device.try_send(message_id, pair.room, "last words").await;
    let again = again.unwrap_or_else(|failure| panic!("it is refused: {failure:?}"));
    (again.seq.0, again.duplicate)
}
