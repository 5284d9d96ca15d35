//! A device that was away gets exactly what it missed, on any node, while others go on talking.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join;
use rookery_client::rest::Span;
use rookery_protocol::command::{ClientCommand, Sync};
use rookery_protocol::event::{ResetCursor, ServerEvent};
use rookery_protocol::{ConversationId, Seq};
use rookery_test_support::{Device, TestCluster, eventually, new_message_id};

use crate::ROOKERY;

async fn chatter(device: &Device, room: ConversationId, stop: &AtomicBool) {
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        count += 1;
        device
            .send(room, &format!("{} {count}", device.person().name()))
            .await;
    }
}

/// The entries of a conversation that came on the present connection.
fn seqs_now(device: &Device, room: ConversationId) -> Vec<Seq> {
    device.read(|record| {
        let messages = record.messages_now().filter(|m| m.conversation_id == room);
        messages.map(|message| message.seq).collect()
    })
}

#[tokio::test]
async fn a_device_resumes_on_another_node_while_others_keep_talking() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    let stop = AtomicBool::new(false);
    let story = async {
        for round in 1..=6 {
            bobs.expect_message(&format!("ann {}", round * 30)).await;
            bobs.cut().await;
            let missed_from = bobs.read(|record| record.cursors()[&room]);
            let said = ann
                .send_text(room, &format!("while away {round}"))
                .await
                .expect("sent");
            let done = bobs.resume_on(cluster.node(1 + round)).await;
            assert!(done.reset.is_empty());
            bobs.expect_message(&format!("while away {round}")).await;
            let seqs = seqs_now(&bobs, room);
            assert_eq!(seqs[0], missed_from.next(), "it goes on where it stopped");
            assert!(seqs.contains(&said.seq));
        }
        stop.store(true, Ordering::SeqCst);
    };
    join(story, chatter(&phone, room, &stop)).await;
    let last = ann.conversation(room).await.expect("the room").last_seq;
    bobs.expect_all(room, Seq(1), last).await;
    bobs.seen_once_in_order(room);
}

#[tokio::test]
async fn nothing_comes_between_ready_and_the_first_sync() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let tablet = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    tablet.expect_all(room, Seq(1), Seq(1)).await;

    let resuming = bob.connect_resuming(cluster.node(1)).await;
    let other = ann.group("made meanwhile", &[&bob]).await;
    phone.send(room, "held back").await;
    phone.send(other, "held back too").await;
    tablet.expect_message("held back").await;
    tablet.expect_message("held back too").await;
    resuming.ping().await;
    let early = resuming.read(|record| record.messages().count());
    assert_eq!(early, 0, "nothing before the sync");

    let done = resuming.sync(Some(HashMap::from([(room, Seq(1))]))).await;
    assert_eq!(done.count, 3, "one of the room, two of the other group");
    assert!(resuming.has("held back") && resuming.has("held back too"));
    let introduced = resuming.read(|record| {
        let created = record.events().filter_map(|event| match event {
            ServerEvent::ConversationCreated(created) => Some(created.conversation_id),
            _ => None,
        });
        created.collect::<Vec<_>>()
    });
    assert_eq!(
        introduced,
        [other],
        "only what its cursors do not name is new to it"
    );
    phone.send(room, "live again").await;
    resuming.expect_message("live again").await;
    resuming.seen_once_in_order(room);
    resuming.seen_once_in_order(other);
}

#[tokio::test]
async fn without_cursors_a_device_gets_what_no_device_has_confirmed() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let tablet = bob.connect(cluster.node(0)).await;
    let room = ann.group("room", &[&bob]).await;
    for text in ["one", "two", "three", "four"] {
        phone.send(room, text).await;
    }
    let two = tablet.expect_message("two").await;
    tablet.mark_delivered(room, two.seq);
    eventually("the mark is stored", async || {
        bob.conversation(room)
            .await
            .expect("the room")
            .me
            .delivered_seq
            == two.seq
    })
    .await;

    let newcomer = bob.connect_resuming(cluster.node(1)).await;
    newcomer.sync(None).await;
    assert_eq!(
        seqs_now(&newcomer, room),
        [two.seq.next(), Seq(two.seq.0 + 2)]
    );
    assert!(newcomer.has("three") && newcomer.has("four"));
    phone.send(room, "five").await;
    newcomer.expect_message("five").await;
    newcomer.seen_once_in_order(room);
}

#[tokio::test]
async fn a_device_too_far_behind_is_told_to_fetch_history() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    let quiet = ann.group("quiet", &[&bob]).await;
    bobs.expect_all(room, Seq(1), Seq(1)).await;
    bobs.expect_all(quiet, Seq(1), Seq(1)).await;
    bobs.cut().await;
    for number in 1..=1_001 {
        phone.post(new_message_id(), room, &format!("message {number}"));
    }
    phone.expect_all(room, Seq(2), Seq(1_002)).await;
    phone.send(quiet, "one only").await;

    let done = bobs.resume_on(cluster.node(0)).await;
    assert_eq!(
        done.reset,
        [ResetCursor {
            conversation_id: room,
            seq: Seq(1_002)
        }]
    );
    assert_eq!(seqs_now(&bobs, room), [], "nothing of it is replayed");
    assert!(bobs.has("one only"), "the others are replayed as ever");
    phone.send(room, "live").await;
    assert_eq!(bobs.expect_message("live").await.seq, Seq(1_003));
    let page = bob
        .history(room, Span::Before(Seq(1_003)), 200)
        .await
        .expect("history");
    assert_eq!(
        page.items.last().map(|message| message.seq),
        Some(Seq(1_002))
    );
    assert!(page.has_more);

    // One less is replayed in full.
    let second = bob.connect_resuming(cluster.node(1)).await;
    let done = second
        .sync(Some(HashMap::from([(room, Seq(3)), (quiet, Seq(2))])))
        .await;
    assert!(done.reset.is_empty());
    assert_eq!(
        seqs_now(&second, room),
        (4..=1_003).map(Seq).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn nothing_beyond_a_reset_comes_before_the_device_is_told_of_it() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let room = ann.group("room", &[&bob]).await;
    for number in 1..=1_001 {
        phone.post(new_message_id(), room, &format!("message {number}"));
    }
    phone.expect_all(room, Seq(2), Seq(1_002)).await;

    let away = bob.connect_resuming(cluster.node(1)).await;
    let seam = "before-sync-done";
    cluster
        .node(1)
        .set_failpoint(seam, "1*return(wait 2000)")
        .await;
    away.command(ClientCommand::Sync(Sync {
        reference: None,
        cursors: Some(HashMap::from([(room, Seq(1))])),
        since: None,
    }));
    away.expect("the begin of the sync", |event| match event {
        ServerEvent::SyncStart(_) => Some(()),
        _ => None,
    })
    .await;
    let said = phone.send(room, "said meanwhile").await;
    bobs.expect_message("said meanwhile").await;
    // Both were offered it by the same worker, but this one's sync is not at its end.
    away.expect_message("said meanwhile").await;
    away.read(|record| {
        let events: Vec<_> = record.events().collect();
        let at = |look: fn(&ServerEvent) -> bool| events.iter().position(|event| look(event));
        let done = at(|event| matches!(event, ServerEvent::SyncDone(_)));
        let live = at(|event| matches!(event, ServerEvent::MessageNew(_)));
        assert!(
            done.is_some() && done < live,
            "a device cut off here skips 1,001 entries:\n{record}"
        );
    });
    assert_eq!(said.seq, Seq(1_003));
    away.seen_once_in_order(room);
}
