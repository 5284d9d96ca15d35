//! Large groups: told once on a channel of their own, with the same promises as everywhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join;
use rookery_protocol::command::{ClientCommand, Typing, Watch};
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{ConversationId, Seq};
use rookery_test_support::{Device, PATIENCE, Person, TestCluster, eventually, new_message_id};

use super::groups::{expect_created, expect_member, expect_title, seqs, settle};
use crate::ROOKERY;

/// Promised are 5 s; the rest is for a busy machine.
const REPAIR: Duration = Duration::from_secs(30);

/// Three nodes where groups of three are large.
async fn cluster() -> TestCluster {
    let builder = TestCluster::builder(ROOKERY).nodes(3);
    builder.set("ROOKERY_FANOUT_DIRECT_MAX", "2").start().await
}

fn typing(device: &Device, conversation_id: ConversationId) {
    device.command(ClientCommand::Typing(Typing {
        reference: None,
        conversation_id,
        active: true,
    }));
}

async fn expect_typing(device: &Device, id: ConversationId, who: &Person) {
    device
        .expect("typing", |event| match event {
            ServerEvent::Typing(typing) => {
                (typing.conversation_id == id && typing.user_id == who.id()).then_some(())
            }
            _ => None,
        })
        .await;
}

fn has_typing(device: &Device) -> bool {
    device.read(|record| {
        let mut events = record.events();
        events.any(|event| matches!(event, ServerEvent::Typing(_)))
    })
}

#[tokio::test]
async fn a_large_group_is_told_once_and_all_hear_it() {
    let cluster = cluster().await;
    let [ann, bob, carol, dave] = cluster.register_all(["ann", "bob", "carol", "dave"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = [
        bob.connect(cluster.node(1)).await,
        bob.connect(cluster.node(2)).await,
    ];
    let carols = carol.connect(cluster.node(2)).await;
    let room = ann.group("Hall", &[&bob, &carol]).await;
    for device in [&anns, &bobs[0], &bobs[1], &carols] {
        expect_created(device, room).await;
    }
    bobs[0].send(room, "hello").await;
    for device in [&anns, &bobs[1], &carols] {
        device.expect_message("hello").await;
    }
    let published = "rookery_bus_published_total";
    let canaries = async || cluster.metrics(1).await.get(published);
    let before = canaries().await;
    for number in 0..40 {
        bobs[0].send(room, &format!("number {number}")).await;
    }
    carols.expect_message("number 39").await;
    let each = (canaries().await - before) / 40.0;
    assert!(each < 2.0, "published {each} times for 3 members, not once");

    typing(&anns, room);
    for device in [&bobs[0], &bobs[1], &carols] {
        expect_typing(device, room, &ann).await;
    }
    ann.rename(room, "Great hall").await.expect("ann may");
    ann.add_members(room, &[dave.id()]).await.expect("ann may");
    let daves = dave.connect(cluster.node(1)).await;
    ann.remove_member(room, carol.id()).await.expect("ann may");
    let out = expect_member(&carols, room, &carol, false).await;
    anns.send(room, "without carol").await;
    for device in [&anns, &bobs[0], &bobs[1]] {
        expect_title(device, room, "Great hall").await;
        expect_member(device, room, &dave, true).await;
        expect_member(device, room, &carol, false).await;
        device.expect_all(room, Seq(1), out.next()).await;
        device.seen_once_in_order(room);
    }
    daves.expect_message("without carol").await;
    typing(&anns, room);
    expect_typing(&daves, room, &ann).await;
    settle(&cluster, &carols, 2).await;
    assert_eq!(seqs(&carols, room).last(), Some(&out));
}

#[tokio::test]
async fn what_the_channel_of_a_large_group_loses_is_repaired_for_all_its_members() {
    let cluster = TestCluster::builder(ROOKERY).nodes(2).lossy(1);
    let cluster = cluster.set("ROOKERY_FANOUT_DIRECT_MAX", "2").start().await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let room = ann.group("hall", &[&bob, &carol]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let devices = [
        bob.connect(cluster.node(1)).await,
        bob.connect(cluster.node(1)).await,
        carol.connect(cluster.node(1)).await,
    ];
    phone.send(room, "before").await;
    for device in &devices {
        device.expect_message("before").await;
    }
    cluster.proxy(1).lose("the lost one");
    phone.send(room, "the lost one").await;
    phone.send(room, "the next one").await;
    for device in &devices {
        device.expect_message_within("the next one", REPAIR).await;
        assert!(device.has("the lost one"));
    }
    assert_eq!(cluster.proxy(1).lost(), 1, "it went to the node once");
    cluster.proxy(1).lose("the last one");
    phone.send(room, "the last one").await;
    for device in &devices {
        device.expect_message_within("the last one", REPAIR).await;
        device.seen_once_in_order(room);
    }
    cluster.redis().kill().await.expect("killed");
    phone.send(room, "without redis").await;
    for device in &devices {
        device.expect_message_within("without redis", REPAIR).await;
    }
    cluster.redis().restart().await.expect("restarted");
    phone.send(room, "with redis").await;
    for device in &devices {
        device.expect_message_within("with redis", REPAIR).await;
        device.seen_once_in_order(room);
    }
}

#[tokio::test]
async fn devices_that_come_and_go_under_traffic_miss_nothing_of_a_large_group() {
    let cluster = cluster().await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let room = ann.group("hall", &[&bob, &carol]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let stop = AtomicBool::new(false);
    let chatter = async {
        let mut last = Seq(1);
        while !stop.load(Ordering::SeqCst) {
            last = anns.send(room, "chatter").await.seq;
        }
        last
    };
    let visits = async {
        let resuming = carol.connect(cluster.node(2)).await;
        for visit in 0..12 {
            let bobs = bob.connect(cluster.node(visit)).await;
            let seen = async || seqs(&bobs, room).len() >= 20;
            eventually("bob hears the chatter", seen).await;
            bobs.seen_once_in_order(room);
            resuming.resume_on(cluster.node(visit)).await;
        }
        stop.store(true, Ordering::SeqCst);
        resuming
    };
    let (last, resuming) = join(chatter, visits).await;
    let from = seqs(&resuming, room)[0];
    resuming.expect_all(room, from, last).await;
    resuming.seen_once_in_order(room);
}

#[tokio::test]
async fn a_group_grows_and_shrinks_while_messages_flow() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let [ann, bob, carol, dave] = cluster.register_all(["ann", "bob", "carol", "dave"]).await;
    let first: Vec<_> = cluster.extras(7).await;
    let extras = cluster.extras(290).await;
    let anns = ann.connect(cluster.node(0)).await;
    let devices = [
        ann.connect(cluster.node(1)).await,
        bob.connect(cluster.node(1)).await,
        bob.connect(cluster.node(2)).await,
        carol.connect(cluster.node(2)).await,
        carol.connect(cluster.node(0)).await,
    ];
    let daves = dave.connect(cluster.node(1)).await;
    let room = ann.group("village", &[&bob, &carol]).await;
    ann.add_members(room, &first).await.expect("ann may");
    let modes =
        format!("select fanout_mode from conversation_heads where conversation_id = '{room}'");
    assert_eq!(cluster.sql(&modes).await.trim(), "direct");
    let stop = AtomicBool::new(false);
    let chatter = async |device: &Device| {
        while !stop.load(Ordering::SeqCst) {
            device.send(room, "chatter").await;
        }
    };
    let story = async {
        for extras in extras.chunks(29) {
            ann.add_members(room, extras).await.expect("ann may");
        }
        assert_eq!(cluster.sql(&modes).await.trim(), "channel");
        ann.add_members(room, &[dave.id()]).await.expect("ann may");
        let said = ann.send_text(room, "dave is in").await.expect("sent");
        daves.expect_message("dave is in").await;
        ann.remove_member(room, dave.id()).await.expect("ann may");
        for extra in &extras {
            ann.remove_member(room, *extra).await.expect("ann may");
        }
        assert_eq!(cluster.sql(&modes).await.trim(), "direct");
        stop.store(true, Ordering::SeqCst);
        said.seq
    };
    let (dave_in, ((), ())) = join(story, join(chatter(&anns), chatter(&devices[3]))).await;
    let last = anns.send(room, "the end").await.seq;
    for device in &devices {
        device.expect_message_within("the end", PATIENCE).await;
        device.expect_all(room, Seq(1), last).await;
        device.seen_once_in_order(room);
    }
    let daves = seqs(&daves, room);
    assert!(daves.contains(&dave_in) && daves.len() < 100, "{daves:?}");
}

#[tokio::test]
async fn in_a_large_group_only_those_who_watch_see_who_writes() {
    let builder = TestCluster::builder(ROOKERY).nodes(3);
    let builder = builder.set("ROOKERY_FANOUT_DIRECT_MAX", "2");
    let cluster = builder
        .set("ROOKERY_RECEIPTS_FANOUT_MAX", "2")
        .start()
        .await;
    let [ann, bob, carol, eve] = cluster.register_all(["ann", "bob", "carol", "eve"]).await;
    let room = ann.group("hall", &[&bob, &carol]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(2)).await;
    let watch = |device: &Device, on: bool| {
        let watch = Watch {
            reference: Some(new_message_id().to_string()),
            conversation_id: room,
        };
        let reference = watch.reference.clone();
        device.command(if on {
            ClientCommand::ConversationWatch(watch)
        } else {
            ClientCommand::ConversationUnwatch(watch)
        });
        reference
    };
    let answered = async |device: &Device, reference: Option<String>| {
        device
            .expect("an answer", |event| match event {
                ServerEvent::Ok(ok) => (ok.reference == reference).then_some(true),
                ServerEvent::Error(error) => (error.reference == reference).then_some(false),
                _ => None,
            })
            .await
    };
    let asked = watch(&bobs, true);
    assert!(answered(&bobs, asked).await);
    let online = async |count: i64| {
        bobs.expect("the number online", |event| match event {
            ServerEvent::ConversationOnline(online) => {
                (online.conversation_id == room && online.online_count == count).then_some(())
            }
            _ => None,
        })
        .await;
    };
    online(3).await;
    typing(&anns, room);
    expect_typing(&bobs, room, &ann).await;
    anns.send(room, "written").await;
    carols.expect_message("written").await;
    assert!(!has_typing(&carols), "carol does not watch");

    carols.cut().await;
    online(2).await;
    let carols = carol.connect(cluster.node(2)).await;

    let asked = watch(&bobs, false);
    assert!(answered(&bobs, asked).await);
    typing(&carols, room);
    carols.send(room, "more").await;
    let before = bobs.read(|record| record.events().count());
    bobs.expect_message("more").await;
    let typed = bobs.read(|record| {
        let mut events = record.events().skip(before);
        events.any(|event| matches!(event, ServerEvent::Typing(_)))
    });
    assert!(!typed, "bob has ceased to watch");

    let eves = eve.connect(cluster.node(0)).await;
    let asked = watch(&eves, true);
    assert!(!answered(&eves, asked).await, "strangers cannot watch");
}
