//! What everybody relies on, told once and run twice: on one node with SQLite and the bus in
//! memory, and on two nodes with PostgreSQL and Redis. Whoever chats must not notice which.

use std::collections::HashMap;

use futures_util::future::join_all;
use rookery_client::rest::Span;
use rookery_protocol::conversation::MemberRole;
use rookery_protocol::event::{ConversationRead, ServerEvent};
use rookery_protocol::message::{MessageKind, MessageStatus};
use rookery_protocol::rest::SendMessage;
use rookery_protocol::{ConversationId, ErrorCode, Format, MessageId, Seq, UserId};
use rookery_test_support::{
    Device, PATIENCE, SendFailure, TestCluster, eventually, new_message_id,
};

#[path = "blackbox_cases/presence.rs"]
mod presence;

use presence::{
    people_appear_as_they_choose, strangers_see_nothing_and_watching_is_bounded,
    those_online_are_listed_page_by_page, who_blocks_somebody_looks_offline_to_them,
    who_comes_and_goes_is_seen,
};

use change_stories::*;
use rule_stories::*;

/// The program under test.
const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");

/// Runs each story alone and on a cluster.
macro_rules! stories {
    ($($name:ident),+ $(,)?) => {
        mod single {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::TestCluster::single(super::ROOKERY).await).await;
            })+
        }

        mod cluster {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::TestCluster::start(super::ROOKERY, 2).await).await;
            })+
        }
    };
}

#[path = "stories/changes.rs"]
mod change_stories;
#[path = "stories/rules.rs"]
mod rule_stories;

stories![
    a_message_reaches_every_device_but_the_one_that_sent_it,
    a_message_sent_over_rest_reaches_sockets,
    a_repeated_send_is_stored_once,
    a_group_tells_its_members_what_changes,
    a_device_resumes_where_it_stopped,
    history_is_read_in_pages_both_ways,
    marks_grow_and_unread_messages_are_counted,
    receipts_reach_authors_and_ones_own_devices,
    a_device_that_was_away_learns_what_was_read_meanwhile,
    muting_shows_on_all_devices,
    changes_reach_every_device_in_their_place,
    a_change_tells_its_author_how_far_the_message_got,
    a_device_that_was_away_gets_what_changed_as_it_is_now,
    who_joined_later_is_not_shown_an_old_message_by_its_change,
    what_one_may_not_change_is_refused,
    the_same_reaction_from_many_devices_is_one,
    all_agree_after_many_changes_at_once,
    mentions_are_told_and_counted,
    who_is_blocked_is_heard_no_more,
    many_senders_make_one_order,
    a_node_that_was_killed_comes_back_with_everything,
    who_comes_and_goes_is_seen,
    people_appear_as_they_choose,
    strangers_see_nothing_and_watching_is_bounded,
    those_online_are_listed_page_by_page,
    who_blocks_somebody_looks_offline_to_them,
];

fn rest_message(message_id: MessageId, content: &str) -> SendMessage {
    SendMessage {
        message_id,
        content: content.into(),
        reply_to: None,
        metadata: None,
    }
}

fn seqs_now(device: &Device, room: ConversationId) -> Vec<Seq> {
    device.read(|record| {
        let messages = record.messages_now().filter(|m| m.conversation_id == room);
        messages.map(|message| message.seq).collect()
    })
}

async fn a_message_reaches_every_device_but_the_one_that_sent_it(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let laptop = ann.connect(cluster.node(1)).await;
    let bobs = [
        bob.connect(cluster.node(0)).await,
        bob.connect(cluster.node(1)).await,
    ];

    let ack = phone.send(&bob, "hi bob").await;
    assert_eq!(
        (ack.seq, ack.status, ack.duplicate),
        (Seq(1), MessageStatus::Sent, false)
    );
    assert_eq!(
        ack.conversation_id,
        ann.direct(&bob),
        "either side can name it"
    );
    for device in &bobs {
        let message = device.expect_message("hi bob").await;
        assert_eq!(
            (message.sender_id, message.kind),
            (ann.id(), MessageKind::Text)
        );
        assert_eq!(
            (message.message_id, message.created_at),
            (ack.message_id, ack.created_at)
        );
        assert_eq!(message.status, None, "a status is for one's own messages");
    }
    let own = laptop.expect_message("hi bob").await;
    assert_eq!((own.seq, own.status), (Seq(1), Some(MessageStatus::Sent)));

    bobs[1].send(ann.direct(&bob), "hi ann").await;
    for device in [&phone, &laptop, &bobs[0]] {
        device.expect_message("hi ann").await;
        device.seen_once_in_order(ack.conversation_id);
    }
    phone.ping().await;
    assert!(!phone.has("hi bob"), "its ack was enough");

    let eve = cluster.register("eve").await;
    let eves = eve.connect(cluster.node(0)).await;
    match eves
        .try_send(new_message_id(), ack.conversation_id, "and me?")
        .await
    {
        Err(SendFailure::Refused(error)) => assert_eq!(error.code, ErrorCode::NotFound),
        other => panic!("not refused: {other:?}"),
    }
}

async fn a_message_sent_over_rest_reaches_sockets(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let direct = ann
        .create_direct(bob.id())
        .await
        .expect("a conversation")
        .conversation_id;
    let metadata = serde_json::json!({ "sealed": [1, "two", { "three": null }] });
    let request = SendMessage {
        metadata: metadata.as_object().cloned(),
        ..rest_message(new_message_id(), "by post")
    };
    let sent = ann.send_message(direct, &request).await.expect("sent");
    assert!(!sent.duplicate);
    for device in [&phone, &bobs] {
        let message = device.expect_message("by post").await;
        assert_eq!(
            (message.seq, message.message_id),
            (sent.message.seq, request.message_id)
        );
        assert_eq!(message.metadata, request.metadata, "passed on untouched");
    }
    let answer = SendMessage {
        reply_to: Some(sent.message.seq),
        ..rest_message(new_message_id(), "thanks")
    };
    bob.send_message(direct, &answer).await.expect("sent");
    assert_eq!(
        phone.expect_message("thanks").await.reply_to,
        Some(sent.message.seq)
    );
    phone.seen_once_in_order(direct);
    bobs.seen_once_in_order(direct);
}

async fn a_repeated_send_is_stored_once(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let id = new_message_id();
    let first = phone.try_send(id, &bob, "once").await.expect("an ack");
    let room = first.conversation_id;
    let again = phone.try_send(id, room, "once").await.expect("an ack");
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    let again = ann
        .send_message(room, &rest_message(id, "once"))
        .await
        .expect("the message");
    assert_eq!((again.message.seq, again.duplicate), (first.seq, true));

    let other = phone
        .try_send(id, room, "twice")
        .await
        .expect_err("another request");
    assert!(matches!(other, SendFailure::Refused(error) if error.code == ErrorCode::Conflict));
    let other = bob
        .send_message(room, &rest_message(id, "once"))
        .await
        .expect_err("another sender");
    assert_eq!(other.code, ErrorCode::Conflict);

    phone.send(room, "after").await;
    bobs.expect_message("after").await;
    assert_eq!(seqs_now(&bobs, room), [Seq(1), Seq(2)]);
}

async fn a_group_tells_its_members_what_changes(cluster: TestCluster) {
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(0)).await;
    let room = ann.group("Team", &[&bob]).await;
    let created = |event: &ServerEvent| match event {
        ServerEvent::ConversationCreated(created) => Some(created.conversation.clone()),
        _ => None,
    };
    let view = bobs.expect("the group", created).await;
    assert_eq!(
        (view.conversation_id, view.me.role),
        (room, MemberRole::Member)
    );
    anns.send(room, "before carol").await;
    ann.add_members(room, &[carol.id()]).await.expect("ann may");
    let view = carols.expect("the group", created).await;
    assert_eq!(
        (view.title.as_deref(), view.member_count),
        (Some("Team"), 3)
    );
    ann.rename(room, "Crew").await.expect("ann may");
    for device in [&anns, &bobs, &carols] {
        device
            .expect("the new title", |event| match event {
                ServerEvent::ConversationUpdated(updated) => {
                    (updated.conversation.title.as_deref() == Some("Crew")).then_some(())
                }
                _ => None,
            })
            .await;
    }
    ann.remove_member(room, carol.id()).await.expect("ann may");
    for device in [&anns, &bobs, &carols] {
        let gone = device.expect("the removal", |event| match event {
            ServerEvent::MemberRemoved(change) => Some((change.member.user_id, change.seq)),
            _ => None,
        });
        assert_eq!(gone.await, (carol.id(), Seq(5)));
    }
    anns.send(room, "after carol").await;
    bobs.expect_message("after carol").await;
    assert_eq!(
        seqs_now(&carols, room),
        [3, 4, 5].map(Seq),
        "what she was a member for"
    );
    assert_eq!(
        carol
            .conversation(room)
            .await
            .expect_err("hers no more")
            .status,
        404
    );

    ann.delete_conversation(room).await.expect("ann may");
    bobs.expect_all(room, Seq(1), Seq(7)).await;
    bobs.seen_once_in_order(room);
    match bobs.try_send(new_message_id(), room, "anybody?").await {
        Err(SendFailure::Refused(error)) => assert_eq!(error.code, ErrorCode::NotFound),
        other => panic!("not refused: {other:?}"),
    }
    assert!(bob.all_conversations().await.expect("a list").is_empty());
}

async fn a_device_resumes_where_it_stopped(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    phone.send(room, "seen").await;
    bobs.expect_message("seen").await;
    bobs.cut().await;
    for number in 0..230 {
        phone.post(new_message_id(), room, &format!("missed {number}"));
    }
    let last = phone.send(room, "missed last").await.seq;
    let other = ann.group("made meanwhile", &[&bob]).await;

    let done = bobs.resume_on(cluster.node(0)).await;
    assert_eq!(
        (done.count, done.reset.len()),
        (232, 0),
        "231 messages and the new group's notice"
    );
    assert_eq!(
        seqs_now(&bobs, room),
        (3..=last.0).map(Seq).collect::<Vec<_>>()
    );
    assert_eq!(seqs_now(&bobs, other), [Seq(1)]);
    phone.send(room, "live again").await;
    bobs.expect_message("live again").await;
    bobs.seen_once_in_order(room);

    let done = bobs.resume_on(cluster.node(1)).await;
    assert_eq!(done.count, 0, "nothing was missed");
    let strange = HashMap::from([(ann.direct(&bob), Seq(7)), (room, Seq(last.0))]);
    let done = bob
        .connect_resuming(cluster.node(0))
        .await
        .sync(Some(strange))
        .await;
    assert_eq!(
        done.count, 2,
        "one of the room, one of the group that no cursor names"
    );
}

async fn history_is_read_in_pages_both_ways(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let room = ann.group("room", &[&bob]).await;
    for number in 2..=25 {
        phone.send(room, &format!("message {number}")).await;
    }
    let page = async |span, limit| {
        let page = bob.history(room, span, limit).await.expect("history");
        let seqs: Vec<i64> = page.items.iter().map(|message| message.seq.0).collect();
        (seqs, page.has_more)
    };
    let seqs = |range: std::ops::RangeInclusive<i64>| range.collect::<Vec<_>>();

    assert_eq!(
        page(Span::Newest, 10).await,
        (seqs(16..=25), true),
        "ascending"
    );
    assert_eq!(page(Span::Before(Seq(16)), 10).await, (seqs(6..=15), true));
    assert_eq!(page(Span::Before(Seq(6)), 10).await, (seqs(1..=5), false));
    assert_eq!(page(Span::After(Seq(0)), 20).await, (seqs(1..=20), true));
    assert_eq!(page(Span::After(Seq(20)), 20).await, (seqs(21..=25), false));
    assert_eq!(page(Span::After(Seq(25)), 20).await, (vec![], false));

    let whole = ann.history(room, Span::Newest, 50).await.expect("history");
    assert_eq!(whole.items[0].kind, MessageKind::System);
    let (second, own) = (&whole.items[1], Some(MessageStatus::Sent));
    assert_eq!((second.content.as_str(), second.status), ("message 2", own));
    let names: Vec<&str> = whole
        .users
        .iter()
        .map(|user| user.username.as_str())
        .collect();
    assert_eq!(names, ["ann"], "those who appear in it");

    let eve = cluster.register("eve").await;
    let refused = eve.history(room, Span::Newest, 10).await;
    assert_eq!(refused.expect_err("not hers").status, 404);
}

async fn marks_grow_and_unread_messages_are_counted(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    for text in ["one", "two", "three"] {
        phone.send(room, text).await;
    }
    bobs.send(room, "my own").await;
    let unread = async || {
        let view = bob.conversation(room).await.expect("the room");
        (view.unread_count, view.me.delivered_seq, view.me.read_seq)
    };
    assert_eq!(
        unread().await,
        (3, Seq(0), Seq(0)),
        "one's own and the notice do not count"
    );

    bobs.mark_delivered(room, Seq(3));
    eventually("the mark is stored", async || {
        unread().await == (3, Seq(3), Seq(0))
    })
    .await;
    bobs.mark_read(room, Seq(2));
    eventually("the mark is stored", async || {
        unread().await == (2, Seq(3), Seq(2))
    })
    .await;
    bobs.mark_delivered(room, Seq(1));
    bob.mark_read(room, Seq(4)).await.expect("a mark");
    assert_eq!(
        unread().await,
        (0, Seq(4), Seq(4)),
        "what is read is delivered"
    );
    bob.mark_read(room, Seq(2))
        .await
        .expect("backwards is ignored");
    assert_eq!(unread().await, (0, Seq(4), Seq(4)));

    let beyond = bob
        .mark_read(room, Seq(6))
        .await
        .expect_err("beyond the end");
    assert_eq!(beyond.code, ErrorCode::Invalid);
    bobs.mark_read(room, Seq(6));
    let refused = bobs.expect("a refusal", |event| match event {
        ServerEvent::Error(error) => Some(error.code),
        _ => None,
    });
    assert_eq!(refused.await, ErrorCode::Invalid);
    let listed = ann.all_conversations().await.expect("a list");
    assert_eq!(
        (listed[0].unread_count, listed[0].last_seq),
        (1, Seq(5)),
        "bob's own, for ann"
    );
}

/// Waits for somebody's mark, at least this far; only the highest counts.
async fn expect_receipt(device: &Device, room: ConversationId, of: UserId, read: bool, seq: Seq) {
    device
        .expect(&format!("a receipt up to {seq} (read: {read})"), |event| {
            let receipt = match event {
                ServerEvent::ReceiptRead(receipt) if read => receipt,
                ServerEvent::ReceiptDelivered(receipt) if !read => receipt,
                _ => return None,
            };
            let is_it = (receipt.conversation_id, receipt.user_id) == (room, of);
            (is_it && receipt.seq >= seq).then_some(())
        })
        .await;
}

/// Waits until this device is told of its user's own read mark at `seq`.
async fn expect_own_read(device: &Device, room: ConversationId, seq: Seq) -> ConversationRead {
    device
        .expect(
            &format!("conversation.read up to {seq}"),
            |event| match event {
                ServerEvent::ConversationRead(read) if read.conversation_id == room => {
                    (read.seq == seq).then(|| read.clone())
                }
                _ => None,
            },
        )
        .await
}

fn receipts_of(device: &Device) -> usize {
    let is_receipt = |event: &&ServerEvent| {
        matches!(
            event,
            ServerEvent::ReceiptRead(_) | ServerEvent::ReceiptDelivered(_)
        )
    };
    device.read(|record| record.all_events().filter(is_receipt).count())
}

async fn receipts_reach_authors_and_ones_own_devices(cluster: TestCluster) {
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let anns = [
        ann.connect(cluster.node(0)).await,
        ann.connect_in(Format::MsgPack, cluster.node(1)).await,
    ];
    let phone = bob.connect(cluster.node(0)).await;
    let laptop = bob.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    for text in ["one", "two", "three"] {
        anns[0].send(room, text).await;
    }
    for device in [&phone, &laptop] {
        device.expect_message("three").await;
    }

    phone.mark_delivered(room, Seq(4));
    for device in &anns {
        expect_receipt(device, room, bob.id(), false, Seq(4)).await;
    }
    let status = async || {
        let page = ann.history(room, Span::Newest, 2).await.expect("history");
        page.items.iter().map(|m| m.status).collect::<Vec<_>>()
    };
    let (delivered, read) = (Some(MessageStatus::Delivered), Some(MessageStatus::Read));
    assert_eq!(status().await, [delivered, delivered]);
    phone.mark_read(room, Seq(3));
    for device in &anns {
        expect_receipt(device, room, bob.id(), true, Seq(3)).await;
    }
    assert_eq!(status().await, [read, delivered]);
    let told = expect_own_read(&laptop, room, Seq(3)).await;
    assert_eq!((told.unread_count, told.last_seq), (1, Seq(4)));
    phone.mark_read(room, Seq(4));
    assert_eq!(expect_own_read(&laptop, room, Seq(4)).await.unread_count, 0);
    bob.mark_read(room, Seq(2))
        .await
        .expect("backwards is ignored");
    laptop.mark_read(room, Seq(1));

    anns[0].send(room, "four").await;
    laptop.expect_message("four").await;
    laptop.mark_read(room, Seq(5));
    assert_eq!(expect_own_read(&phone, room, Seq(5)).await.unread_count, 0);
    for device in &anns {
        expect_receipt(device, room, bob.id(), true, Seq(5)).await;
    }
    let own = laptop.read(|record| {
        let own = |event: &&ServerEvent| matches!(event, ServerEvent::ConversationRead(_));
        record.all_events().filter(own).count()
    });
    assert_eq!(own, 2, "not of what was read on it, and not backwards");
    assert_eq!(
        receipts_of(&phone) + receipts_of(&laptop),
        0,
        "of others only"
    );
    carols.ping().await;
    assert_eq!(receipts_of(&carols), 0, "no member");

    ann.remove_member(room, bob.id()).await.expect("ann may");
    ann.add_members(room, &[carol.id()]).await.expect("ann may");
    carols.expect_all(room, Seq(7), Seq(7)).await;
    carols.mark_read(room, Seq(7));
    expect_receipt(&anns[1], room, carol.id(), true, Seq(7)).await;
    assert_eq!(receipts_of(&phone), 0, "a member no more");
}

async fn a_device_that_was_away_learns_what_was_read_meanwhile(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = bob.connect(cluster.node(0)).await;
    let laptop = bob.connect(cluster.node(1)).await;
    let rooms = [
        ann.group("one", &[&bob]).await,
        ann.group("two", &[&bob]).await,
    ];
    for room in rooms {
        for text in ["hi", "there"] {
            ann.send_text(room, text).await.expect("sent");
        }
        laptop.expect_all(room, Seq(1), Seq(3)).await;
    }
    bob.mark_read(rooms[0], Seq(2)).await.expect("a mark");
    expect_own_read(&laptop, rooms[0], Seq(2)).await;
    let seen = laptop.ready().await.server_time;
    laptop.cut().await;
    ann.mark_read(rooms[1], Seq(2)).await.expect("a mark");
    bob.mark_read(rooms[0], Seq(3)).await.expect("a mark");
    expect_own_read(&phone, rooms[0], Seq(3)).await;
    assert_eq!(laptop.resume_since(cluster.node(0), seen).await.count, 0);
    let reads = laptop.read(|record| {
        let own = record.events().filter_map(|event| match event {
            ServerEvent::ConversationRead(read) => Some((read.conversation_id, read.seq)),
            _ => None,
        });
        own.collect::<Vec<_>>()
    });
    assert_eq!(reads, [(rooms[0], Seq(3))], "the other was never read");
    expect_receipt(&laptop, rooms[1], ann.id(), true, Seq(2)).await;

    laptop.cut().await;
    ann.send_text(rooms[0], "more").await.expect("sent");
    phone.expect_message("more").await;
    assert_eq!(laptop.resume_on(cluster.node(1)).await.count, 1);
    let read = expect_own_read(&laptop, rooms[0], Seq(3)).await;
    assert_eq!(
        (read.unread_count, read.last_seq),
        (1, Seq(4)),
        "of what was replayed"
    );
}

async fn muting_shows_on_all_devices(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let devices = [
        ann.connect(cluster.node(0)).await,
        ann.connect(cluster.node(1)).await,
    ];
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    for device in devices.iter().chain([&bobs]) {
        device.expect_all(room, Seq(1), Seq(1)).await;
    }
    let until = devices[0].ready().await.server_time.plus_millis(3_600_000);
    let muted = ann.mute(room, Some(until)).await.expect("muted");
    assert_eq!(muted.me.muted_until, Some(until));
    let expect = async |device: &Device, expected| {
        let told = device.until("the setting", PATIENCE, |record| {
            let last = record.events().rev().find_map(|event| match event {
                ServerEvent::ConversationUpdated(updated) => Some(&updated.conversation),
                _ => None,
            });
            last.filter(|view| view.me.muted_until == expected)
                .map(|_| ())
        });
        told.await;
    };
    for device in &devices {
        expect(device, Some(until)).await;
    }
    ann.mute(room, None).await.expect("not muted");
    for device in &devices {
        expect(device, None).await;
    }
    let far = until.plus_millis(20 * 366 * 24 * 3_600_000);
    let refused = ann.mute(room, Some(far)).await.expect_err("too far");
    assert_eq!(refused.code, ErrorCode::Invalid);
    bobs.ping().await;
    let told = bobs.read(|record| {
        let updated = |event: &&ServerEvent| matches!(event, ServerEvent::ConversationUpdated(_));
        record.all_events().filter(updated).count()
    });
    assert_eq!(told, 0, "nobody else's business");
}

async fn many_senders_make_one_order(cluster: TestCluster) {
    const EACH: i64 = 40;
    let people = cluster.register_all(["ann", "bob", "carol", "dave"]).await;
    let mut devices = Vec::new();
    for (number, person) in people.iter().enumerate() {
        devices.push(person.connect(cluster.node(number)).await);
    }
    let others: Vec<_> = people[1..].iter().collect();
    let room = people[0].group("room", &others).await;
    let talk = async |device: &Device| {
        for number in 0..EACH {
            device
                .send(room, &format!("{} {number}", device.person().name()))
                .await;
        }
    };
    join_all(devices.iter().map(talk)).await;
    let last = Seq(1 + EACH * 4);
    for device in &devices {
        device.expect_all(room, Seq(1), last).await;
        device.seen_once_in_order(room);
    }
    let known = |device: &Device| device.read(|record| record.known(room));
    assert!(
        devices
            .iter()
            .all(|device| known(device) == known(&devices[0])),
        "the same for all"
    );
}

async fn a_node_that_was_killed_comes_back_with_everything(cluster: TestCluster) {
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(1)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    for number in 0..50 {
        phone.post(new_message_id(), room, &format!("message {number}"));
    }
    let acked = phone
        .until("some acks", PATIENCE, |record| {
            let known = record.known(room);
            (known.len() > 10).then_some(known)
        })
        .await;
    cluster.node(1).kill().await;
    assert_eq!(bobs.expect_close().await, 1006);
    cluster.node(1).restart().await;
    bobs.resume_on(cluster.node(1)).await;
    phone.resume_on(cluster.node(1)).await;
    let stored = bob
        .history(room, Span::After(Seq(0)), 200)
        .await
        .expect("history")
        .items;
    for (seq, message_id) in acked {
        let message = stored.iter().find(|message| message.seq == seq);
        assert_eq!(
            message.map(|message| message.message_id),
            Some(message_id),
            "acked is durable"
        );
    }
    let sent = phone.send(room, "after the restart").await;
    assert_eq!(
        sent.seq,
        stored
            .last()
            .map_or(Seq::ZERO, |message| message.seq)
            .next()
    );
    bobs.expect_message("after the restart").await;
    bobs.expect_all(room, Seq(1), sent.seq).await;
    bobs.seen_once_in_order(room);
}
