//! Sending: from any node, in either format, safely repeated.

use futures_util::future::join;
use rookery_protocol::command::{ClientCommand, MessageEdit};
use rookery_protocol::event::ServerEvent;
use rookery_protocol::rest::SendMessage;
use rookery_protocol::{ErrorCode, Format, Seq};
use rookery_test_support::{SendFailure, TestCluster, new_message_id};

use super::held::{hold, somebody_waits};
use crate::ROOKERY;

#[tokio::test]
async fn a_send_repeated_on_two_nodes_at_once_is_stored_once() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let laptop = ann.connect(cluster.node(1)).await;
    for round in 0..20 {
        let (id, text) = (new_message_id(), format!("round {round}"));
        let (one, other) = join(
            phone.try_send(id, room, &text),
            laptop.try_send(id, room, &text),
        )
        .await;
        let (one, other) = (one.expect("an ack"), other.expect("an ack"));
        assert_eq!(one.seq, other.seq, "both learn where it is stored");
        assert_ne!(one.duplicate, other.duplicate, "one of them was first");
        bobs.expect_message(&text).await;
    }
    let stored = ann.conversation(room).await.expect("the room").last_seq;
    assert_eq!(
        stored,
        Seq(21),
        "the notice of the group and each message once"
    );
    bobs.expect_all(room, Seq(1), stored).await;
    for device in [phone, laptop, bobs] {
        device.seen_once_in_order(room);
    }
}

#[tokio::test]
async fn a_message_id_is_taken_by_its_first_use() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let laptop = ann.connect(cluster.node(1)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let id = new_message_id();
    let first = phone.try_send(id, room, "hi").await.expect("an ack");

    let repeated = laptop.try_send(id, room, "hi").await.expect("an ack");
    assert_eq!((repeated.seq, repeated.duplicate), (first.seq, true));
    let request = SendMessage {
        message_id: id,
        content: "hi".into(),
        reply_to: None,
        metadata: None,
    };
    let repeated = ann.send_message(room, &request).await.expect("the message");
    assert_eq!(
        (repeated.message.seq, repeated.duplicate),
        (first.seq, true)
    );

    for device in [&phone, &laptop] {
        assert_conflict(device.try_send(id, room, "something else").await);
    }
    assert_conflict(bobs.try_send(id, room, "hi").await);
    let refused = bob
        .send_message(room, &request)
        .await
        .expect_err("somebody else's id");
    assert_eq!((refused.status, refused.code), (409, ErrorCode::Conflict));
    let stored = ann.conversation(room).await.expect("the room").last_seq;
    assert_eq!(stored, first.seq, "nothing more was stored");
}

fn assert_conflict<T: std::fmt::Debug>(answer: Result<T, SendFailure>) {
    match answer {
        Err(SendFailure::Refused(error)) => assert_eq!(error.code, ErrorCode::Conflict),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn json_and_messagepack_devices_talk_to_each_other() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let json = ann.connect_in(Format::Json, cluster.node(0)).await;
    let packed = bob.connect_in(Format::MsgPack, cluster.node(1)).await;
    let sent = json.send(&bob, "from JSON: äöü 🐦 \"\\").await;
    let received = packed.expect_message("from JSON: äöü 🐦 \"\\").await;
    assert_eq!(
        (received.message_id, received.seq),
        (sent.message_id, sent.seq)
    );
    assert_eq!(received.created_at, sent.created_at);
    let sent = packed.send(&ann, "from MessagePack: äöü 🐦 \"\\").await;
    let received = json.expect_message("from MessagePack: äöü 🐦 \"\\").await;
    assert_eq!(
        (received.message_id, received.seq),
        (sent.message_id, sent.seq)
    );
    // The formats share a node's frames by format: a third device on either node gets its own.
    let second = bob.connect_in(Format::Json, cluster.node(1)).await;
    json.send(&bob, "to both").await;
    packed.expect_message("to both").await;
    second.expect_message("to both").await;
}

#[tokio::test]
async fn a_change_that_has_to_wait_keeps_nothing_else_from_the_socket() {
    let cluster = TestCluster::start(ROOKERY, 1).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let room = ann.group("room", &[&bob]).await;
    let said = anns.send(room, "teh").await;
    let held = hold(&cluster, room, 4).await;
    let story = async {
        anns.command(ClientCommand::MessageEdit(MessageEdit {
            reference: Some("edit".into()),
            conversation_id: room,
            seq: said.seq,
            content: "the".into(),
        }));
        somebody_waits(&cluster).await;
        bobs.send(&ann, "meanwhile").await;
        anns.expect_message("meanwhile").await;
        let edited = anns.read(|record| {
            let mut events = record.events();
            events.any(|event| matches!(event, ServerEvent::Ok(_)))
        });
        assert!(!edited, "it was told before the edit was done");
        anns.expect("the edit", |event| match event {
            ServerEvent::Ok(ok) => (ok.reference.as_deref() == Some("edit")).then_some(()),
            _ => None,
        })
        .await;
    };
    join(held, story).await;
}
