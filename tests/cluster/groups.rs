//! Groups: every device of every member learns of every change, and strangers learn nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join;
use rookery_client::rest::Span;
use rookery_protocol::conversation::{Conversation, MemberRole};
use rookery_protocol::event::ServerEvent;
use rookery_protocol::message::{Message, SystemNotice};
use rookery_protocol::{ConversationId, ErrorCode, Seq, UserId};
use rookery_test_support::{
    Device, PATIENCE, Person, Record, SendFailure, TestCluster, eventually, new_message_id,
};
use serde_json::Value;

use crate::ROOKERY;

pub(super) async fn expect_created(device: &Device, id: ConversationId) -> Conversation {
    device
        .expect("conversation.created", |event| match event {
            ServerEvent::ConversationCreated(created) if created.conversation_id == id => {
                Some(created.conversation.clone())
            }
            _ => None,
        })
        .await
}

pub(super) async fn expect_title(device: &Device, id: ConversationId, title: &str) {
    device
        .expect("conversation.updated", |event| match event {
            ServerEvent::ConversationUpdated(updated) if updated.conversation_id == id => {
                (updated.conversation.title.as_deref() == Some(title)).then_some(())
            }
            _ => None,
        })
        .await;
}

/// Returns where in the log it says so.
pub(super) async fn expect_member(
    device: &Device,
    id: ConversationId,
    who: &Person,
    added: bool,
) -> Seq {
    let what = format!("news of {} (added: {added})", who.name());
    device
        .expect(&what, |event| {
            let change = match event {
                ServerEvent::MemberAdded(change) if added => change,
                ServerEvent::MemberRemoved(change) if !added => change,
                _ => return None,
            };
            let is_it = change.conversation_id == id && change.member.user_id == who.id();
            is_it.then_some(change.seq)
        })
        .await
}

/// The entries of a conversation that this device received.
pub(super) fn seqs(device: &Device, id: ConversationId) -> Vec<Seq> {
    device.read(|record| {
        let messages = record
            .messages()
            .filter(|message| message.conversation_id == id);
        messages.map(|message| message.seq).collect()
    })
}

/// Everything that was on its way to this device has arrived: whatever the bus brings has come with
/// another message, and the journal has been looked at since.
pub(super) async fn settle(cluster: &TestCluster, device: &Device, node: usize) {
    const LOOKS: &str = r#"rookery_reconcile_looks_total{result="ok"}"#;
    let before = cluster.metrics(node).await.get(LOOKS);
    eventually("the node looks into the journal twice", async || {
        cluster.metrics(node).await.get(LOOKS) >= before + 2.0
    })
    .await;
    device.ping().await;
}

#[tokio::test]
async fn every_device_on_every_node_learns_of_every_change() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = [
        bob.connect(cluster.node(1)).await,
        bob.connect(cluster.node(2)).await,
    ];
    let carols = carol.connect(cluster.node(2)).await;

    let room = ann.group("Team", &[&bob]).await;
    let view = expect_created(&anns, room).await;
    assert_eq!((view.me.role, view.member_count), (MemberRole::Owner, 2));
    for device in &bobs {
        let view = expect_created(device, room).await;
        assert_eq!(
            (view.title.as_deref(), view.me.role),
            (Some("Team"), MemberRole::Member)
        );
        device.expect_all(room, Seq(1), Seq(1)).await;
    }
    anns.send(room, "without carol").await;

    ann.add_members(room, &[carol.id()]).await.expect("ann may");
    for device in [&anns, &bobs[0], &bobs[1]] {
        assert_eq!(expect_member(device, room, &carol, true).await, Seq(3));
    }
    let view = expect_created(&carols, room).await;
    assert_eq!((view.member_count, view.me.joined_seq), (3, Seq(0)));
    anns.send(room, "with carol").await;
    carols.expect_message("with carol").await;

    ann.rename(room, "Crew").await.expect("ann may");
    ann.change_role(room, bob.id(), MemberRole::Admin)
        .await
        .expect("ann may");
    for device in [&anns, &bobs[0], &bobs[1], &carols] {
        expect_title(device, room, "Crew").await;
    }
    for device in &bobs {
        device
            .expect("the new role", |event| match event {
                ServerEvent::ConversationUpdated(updated) => {
                    (updated.conversation.me.role == MemberRole::Admin).then_some(())
                }
                _ => None,
            })
            .await;
    }
    carol
        .leave(room, carol.id())
        .await
        .expect("anyone may leave");
    for device in [&anns, &bobs[0], &bobs[1], &carols] {
        assert_eq!(expect_member(device, room, &carol, false).await, Seq(7));
    }
    settle(&cluster, &carols, 2).await;
    assert_eq!(
        seqs(&carols, room),
        [3, 4, 5, 6, 7].map(Seq),
        "from joining to leaving"
    );
    for device in [&anns, &bobs[0], &bobs[1]] {
        device.expect_all(room, Seq(1), Seq(7)).await;
        device.seen_once_in_order(room);
    }
}

#[tokio::test]
async fn who_was_removed_gets_nothing_more_and_who_was_added_nothing_before() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let carols = [
        carol.connect(cluster.node(1)).await,
        carol.connect(cluster.node(2)).await,
    ];
    let room = ann.secretive_group("room", &[&bob, &carol]).await;
    anns.send(room, "to all").await;
    for device in &carols {
        device.expect_message("to all").await;
    }

    bob.remove_member(room, carol.id())
        .await
        .expect_err("bob is a plain member");
    ann.remove_member(room, carol.id()).await.expect("ann may");
    for device in &carols {
        assert_eq!(expect_member(device, room, &carol, false).await, Seq(3));
    }
    anns.send(room, "behind her back").await;
    bobs.expect_message("behind her back").await;
    settle(&cluster, &carols[0], 1).await;
    settle(&cluster, &carols[1], 2).await;
    for device in &carols {
        assert_eq!(
            seqs(device, room),
            [1, 2, 3].map(Seq),
            "up to the notice of the removal"
        );
        match device.try_send(new_message_id(), room, "let me in").await {
            Err(SendFailure::Refused(error)) => assert_eq!(error.code, ErrorCode::NotFound),
            other => panic!("not refused: {other:?}"),
        }
    }
    for refused in [
        carol.history(room, Span::Newest, 50).await.err(),
        carol.conversation(room).await.err(),
        carol
            .members(room, &rookery_client::rest::PageRequest::default())
            .await
            .err(),
    ] {
        assert_eq!(refused.map(|error| error.status), Some(404));
    }
    let resumed = carols[0].resume_on(cluster.node(0)).await;
    assert_eq!(resumed.count, 0, "nothing was missed");

    ann.add_members(room, &[carol.id()]).await.expect("ann may");
    anns.send(room, "welcome back").await;
    for device in &carols {
        device.expect_message("welcome back").await;
        assert_eq!(
            seqs(device, room),
            [1, 2, 3, 5, 6].map(Seq),
            "nothing from between"
        );
    }
    let page = carol
        .history(room, Span::Newest, 50)
        .await
        .expect("a member again");
    let visible: Vec<Seq> = page.items.iter().map(|message| message.seq).collect();
    assert_eq!(visible, [5, 6].map(Seq), "history starts with the joining");
}

#[tokio::test]
async fn a_member_who_comes_and_goes_under_traffic_sees_only_what_is_hers() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(2)).await;
    // Of an open group somebody who came back may be told what was said meanwhile.
    let room = ann.secretive_group("room", &[&bob]).await;
    let stop = AtomicBool::new(false);
    let chatter = async {
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            number += 1;
            anns.send(room, &format!("ann {number}")).await;
            bobs.send(room, &format!("bob {number}")).await;
        }
    };
    let story = async {
        let admin = ann.at(cluster.node(1));
        for _ in 0..8 {
            admin
                .add_members(room, &[carol.id()])
                .await
                .expect("ann may");
            let said = ann.send_text(room, "carol is in").await.expect("sent");
            learns_of(&cluster, &carols, room, said.seq).await;
            admin
                .remove_member(room, carol.id())
                .await
                .expect("ann may");
            ann.send_text(room, "carol is out").await.expect("sent");
        }
        let last = admin.add_members(room, &[carol.id()]).await;
        last.expect("ann may");
        let said = ann.send_text(room, "carol stays").await.expect("sent");
        learns_of(&cluster, &carols, room, said.seq).await;
        stop.store(true, Ordering::SeqCst);
    };
    join(story, chatter).await;
    settle(&cluster, &carols, 2).await;

    let log = whole_log(&ann, room).await;
    let hers: Vec<Seq> = windows_of(carol.id(), &log);
    let seen = seqs(&carols, room);
    let increasing = seen.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(increasing, "in order and once: {seen:?}");
    if carols.read(Record::connection) == 1 {
        assert_eq!(seen, hers, "exactly the entries of her memberships");
    } else {
        let strange: Vec<&Seq> = seen.iter().filter(|seq| !hers.contains(seq)).collect();
        assert!(strange.is_empty(), "not hers: {strange:?}");
    }
    let last = log.last().expect("entries").seq;
    for device in [&anns, &bobs] {
        device.expect_all(room, Seq(1), last).await;
        device.seen_once_in_order(room);
    }
    assert!(!carols.has("carol is out"));
}

/// The removal is lost on the way, and the return is not: the node reads both at once.
#[tokio::test]
async fn one_who_is_back_before_the_removal_was_told_sees_between_only_what_is_open() {
    let builder = TestCluster::builder(ROOKERY).nodes(2).lossy(1);
    // A look between the two would tell the one before the other.
    let builder = builder.set("FAILPOINTS", "reconcile-off=return");
    let cluster = builder.start().await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    cluster.proxy(1).lose("ann removed bob");
    for is_open in [true, false] {
        let room = if is_open {
            ann.group("room", &[&bob]).await
        } else {
            ann.secretive_group("room", &[&bob]).await
        };
        let bobs = bob.connect(cluster.node(1)).await;
        ann.send_text(room, "before").await.expect("sent");
        bobs.expect_message("before").await;
        ann.remove_member(room, bob.id()).await.expect("ann may");
        ann.send_text(room, "between").await.expect("sent");
        ann.add_members(room, &[bob.id()]).await.expect("ann may");
        if is_open {
            bobs.expect_all(room, Seq(2), Seq(5)).await;
            assert_eq!(seqs(&bobs, room), [2, 3, 4, 5].map(Seq), "the whole log");
        } else {
            assert_eq!(bobs.expect_close().await, 4102);
            bobs.resume_on(cluster.node(1)).await;
            bobs.expect_all(room, Seq(5), Seq(5)).await;
            assert_eq!(seqs(&bobs, room), [2, 5].map(Seq), "nothing from between");
        }
        ann.send_text(room, "after").await.expect("sent");
        bobs.expect_message("after").await;
        bobs.seen_once_in_order(room);
        assert_eq!(bobs.has("between"), is_open);
        bobs.cut().await;
    }
    assert_eq!(cluster.proxy(1).lost(), 2, "both removals");
}

/// Waits for an entry. A socket whose user was removed and added again before it was told of the
/// removal is sent away to resynchronise.
async fn learns_of(cluster: &TestCluster, device: &Device, room: ConversationId, seq: Seq) {
    let told = device
        .until("the entry, or a close", PATIENCE, |record| {
            let known = record.known(room).contains_key(&seq).then_some(true);
            known.or_else(|| record.close_code().map(|_| false))
        })
        .await;
    if !told {
        assert_eq!(device.expect_close().await, 4102);
        device.resume_on(cluster.node(0)).await;
        device.expect_all(room, seq, seq).await;
    }
}

async fn whole_log(reader: &Person, room: ConversationId) -> Vec<Message> {
    let mut log: Vec<Message> = Vec::new();
    loop {
        let after = log.last().map_or(Seq::ZERO, |message| message.seq);
        let page = reader
            .history(room, Span::After(after), 200)
            .await
            .expect("history");
        log.extend(page.items);
        if !page.has_more {
            return log;
        }
    }
}

/// The entries at which somebody was a member, the notices of joining and leaving included.
fn windows_of(user: UserId, log: &[Message]) -> Vec<Seq> {
    let mut present = false;
    let mut seqs = Vec::new();
    for message in log {
        let notice = message.metadata.clone();
        let notice = notice.and_then(|fields| serde_json::from_value(Value::Object(fields)).ok());
        match notice {
            Some(SystemNotice::MembersAdded { user_ids }) if user_ids.contains(&user) => {
                present = true;
            }
            Some(SystemNotice::MemberRemoved { user_id }) if user_id == user => {
                seqs.push(message.seq);
                present = false;
            }
            _ => {}
        }
        if present {
            seqs.push(message.seq);
        }
    }
    seqs
}
