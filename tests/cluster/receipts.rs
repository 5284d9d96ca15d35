//! Receipts between nodes: who hears of a mark, and what becomes of it when its node stops.

use rookery_client::rest::PageRequest;
use rookery_protocol::event::ServerEvent;
use rookery_protocol::rest::BulkMark;
use rookery_protocol::{ConversationId, Seq, UserId};
use rookery_test_support::{Device, TestCluster, eventually};

use crate::ROOKERY;

async fn expect_read(device: &Device, room: ConversationId, of: UserId, seq: Seq) {
    device
        .expect(&format!("receipt.read up to {seq}"), |event| match event {
            ServerEvent::ReceiptRead(receipt) => {
                let is_it = (receipt.conversation_id, receipt.user_id) == (room, of);
                (is_it && receipt.seq == seq).then_some(())
            }
            _ => None,
        })
        .await;
}

fn receipts(device: &Device) -> Vec<(UserId, Seq)> {
    device.read(|record| {
        let receipts = record.all_events().filter_map(|event| match event {
            ServerEvent::ReceiptRead(receipt) | ServerEvent::ReceiptDelivered(receipt) => {
                Some((receipt.user_id, receipt.seq))
            }
            _ => None,
        });
        receipts.collect()
    })
}

#[tokio::test]
async fn devices_on_three_nodes_agree_on_what_is_read() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let phone = bob.connect(cluster.node(1)).await;
    let laptop = bob.connect(cluster.node(2)).await;
    let room = ann.direct(&bob);
    for number in 1..=5 {
        anns.send(&bob, &format!("message {number}")).await;
    }
    phone.expect_message("message 5").await;
    laptop.expect_message("message 5").await;
    phone.mark_read(room, Seq(2));
    expect_read(&anns, room, bob.id(), Seq(2)).await;
    let counted = laptop.expect("conversation.read", |event| match event {
        ServerEvent::ConversationRead(read) => Some((read.seq, read.unread_count)),
        _ => None,
    });
    assert_eq!(counted.await, (Seq(2), 3));
    let listed = bob.all_conversations().await.expect("a list");
    assert_eq!(listed[0].unread_count, 3);
    let marks = [BulkMark {
        conversation_id: room,
        seq: Seq(5),
    }];
    bob.mark_all_read(&marks).await.expect("marks");
    for device in [&phone, &laptop] {
        device
            .expect("nothing unread", |event| match event {
                ServerEvent::ConversationRead(read) => {
                    (read.seq == Seq(5) && read.unread_count == 0).then_some(())
                }
                _ => None,
            })
            .await;
    }
    expect_read(&anns, room, bob.id(), Seq(5)).await;
}

#[tokio::test]
async fn in_a_large_group_only_authors_hear_of_marks() {
    let builder = TestCluster::builder(ROOKERY).nodes(3);
    let cluster = builder
        .set("ROOKERY_RECEIPTS_FANOUT_MAX", "3")
        .start()
        .await;
    let people = ["ann", "bob", "carol", "dave"];
    let [ann, bob, carol, dave] = cluster.register_all(people).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(2)).await;
    let daves = dave.connect(cluster.node(2)).await;
    let room = ann.group("room", &[&bob, &carol, &dave]).await;
    anns.send(room, "by ann").await;
    bobs.expect_message("by ann").await;
    bobs.mark_read(room, Seq(2));
    expect_read(&anns, room, bob.id(), Seq(2)).await;
    carols.send(room, "by carol").await;
    bobs.expect_message("by carol").await;
    bobs.mark_read(room, Seq(3));
    expect_read(&carols, room, bob.id(), Seq(3)).await;
    assert_eq!(receipts(&carols), [(bob.id(), Seq(3))], "not of ann's");

    // In a small group of the same people everybody hears, and behind what came before.
    let small = ann.group("small", &[&bob, &dave]).await;
    bobs.expect_all(small, Seq(1), Seq(1)).await;
    daves.expect_all(small, Seq(1), Seq(1)).await;
    bobs.mark_read(small, Seq(1));
    expect_read(&daves, small, bob.id(), Seq(1)).await;
    expect_read(&anns, small, bob.id(), Seq(1)).await;
    assert_eq!(
        receipts(&daves).len(),
        1,
        "dave wrote nothing in the large one"
    );
    let to_ann = receipts(&anns);
    assert!(!to_ann.contains(&(bob.id(), Seq(3))), "{to_ann:?}");
    let page = PageRequest::default();
    let shown = dave.message_receipts(room, Seq(3), &page).await;
    let shown = shown.expect("any member may ask").items;
    let read: Vec<UserId> = shown
        .iter()
        .filter(|receipt| receipt.read_at.is_some())
        .map(|receipt| receipt.user_id)
        .collect();
    assert_eq!((shown.len(), read), (3, vec![bob.id()]));
}

#[tokio::test]
async fn a_stopping_node_writes_the_marks_it_has() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    for number in 1..=20 {
        anns.send(&bob, &format!("message {number}")).await;
    }
    bobs.expect_message("message 20").await;
    let room = ann.direct(&bob);
    for seq in 1..=20 {
        bobs.mark_read(room, Seq(seq));
    }
    bobs.ping().await;
    assert_eq!(cluster.node(1).stop().await, 0);
    let mine = bob.at(cluster.node(0)).conversation(room).await;
    let mine = mine.expect("the conversation");
    assert_eq!((mine.me.read_seq, mine.unread_count), (Seq(20), 0));
    expect_read(&anns, room, bob.id(), Seq(20)).await;
}

#[tokio::test]
async fn many_marks_are_few_writes() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    for number in 1..=100 {
        anns.post(
            rookery_test_support::new_message_id(),
            &bob,
            &format!("message {number}"),
        );
    }
    bobs.expect_message("message 100").await;
    let room = ann.direct(&bob);
    for seq in 1..=100 {
        bobs.mark_delivered(room, Seq(seq));
        bobs.mark_read(room, Seq(seq));
    }
    expect_read(&anns, room, bob.id(), Seq(100)).await;
    eventually("the marks are counted", async || {
        let metrics = cluster.metrics(1).await;
        let count =
            |result: &str| metrics.get(&format!("rookery_marks_total{{result=\"{result}\"}}"));
        let (merged, written) = (count("merged"), count("written"));
        count("taken") == 200.0 && merged + written == 200.0 && merged > written
    })
    .await;
}
