//! Stories of what is refused, whom messages mention and who is blocked, for a cluster of any size.

use rookery_client::rest::PageRequest;
use rookery_protocol::event::ErrorEvent;
use rookery_protocol::{ConversationId, ErrorCode, Seq};
use rookery_test_support::{Device, Person, SendFailure, TestCluster, To, new_message_id};

fn refused_with(outcome: Result<(), ErrorEvent>) -> ErrorCode {
    outcome.expect_err("refused").code
}

async fn send_code(device: &Device, to: impl Into<To>) -> Option<ErrorCode> {
    match device.try_send(new_message_id(), to, "hello?").await {
        Ok(_) => None,
        Err(SendFailure::Refused(error)) => {
            assert!(error.message_id.is_some());
            Some(error.code)
        }
        Err(other) => panic!("{other:?}"),
    }
}

async fn refuses_what_is_no_emoji(device: &Device, room: ConversationId) {
    for no_emoji in ["", "x", "👍👍", &"👍".repeat(20)] {
        let refused = device.react(room, Seq(2), no_emoji, true).await;
        let refused = refused.expect_err("no emoji");
        assert_eq!(
            (refused.code, refused.details[0].field.as_str()),
            (ErrorCode::Invalid, "emoji")
        );
        let allowed = refused.details[0].allowed.as_deref().unwrap_or_default();
        assert!(allowed.contains("32 bytes"), "{allowed}");
    }
}

pub(crate) async fn what_one_may_not_change_is_refused(cluster: TestCluster) {
    let [ann, bob, eve] = cluster.register_all(["ann", "bob", "eve"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let eves = eve.connect(cluster.node(2)).await;
    let room = ann.group("room", &[&bob]).await;
    bobs.expect_all(room, Seq(1), Seq(1)).await;
    anns.send(room, "ann's").await;
    bobs.send(room, "bob's").await;
    for device in [&eves, &bobs] {
        let is_member = device.person().id() == bob.id();
        let code = if is_member {
            ErrorCode::Forbidden
        } else {
            ErrorCode::NotFound
        };
        assert_eq!(refused_with(device.edit(room, Seq(2), "x").await), code);
        assert_eq!(refused_with(device.delete(room, Seq(2)).await), code);
    }
    assert_eq!(
        refused_with(anns.edit(room, Seq(1), "x").await),
        ErrorCode::Forbidden
    );
    assert_eq!(
        refused_with(bobs.edit(room, Seq(9), "x").await),
        ErrorCode::NotFound
    );
    let refused = bobs.edit(room, Seq(3), " ").await.expect_err("blank");
    assert_eq!(
        (refused.code, refused.details[0].field.as_str()),
        (ErrorCode::Invalid, "content")
    );
    refuses_what_is_no_emoji(&bobs, room).await;
    bobs.delete(room, Seq(3)).await.expect("his own");
    bobs.delete(room, Seq(3)).await.expect("a repeat");
    assert_eq!(
        refused_with(bobs.edit(room, Seq(3), "x").await),
        ErrorCode::Conflict
    );
    assert_eq!(
        refused_with(anns.react(room, Seq(3), "👍", true).await),
        ErrorCode::Conflict
    );
    let reaction = bobs.react(room, Seq(4), "👍", true).await;
    assert_eq!(
        refused_with(reaction),
        ErrorCode::NotFound,
        "an entry that is no message"
    );

    bobs.send(room, "bob's last").await;
    ann.remove_member(room, bob.id()).await.expect("ann may");
    assert_eq!(
        refused_with(bobs.edit(room, Seq(5), "x").await),
        ErrorCode::NotFound
    );
    assert_eq!(
        refused_with(bobs.delete(room, Seq(5)).await),
        ErrorCode::NotFound
    );
    assert_eq!(
        refused_with(bobs.react(room, Seq(2), "👍", true).await),
        ErrorCode::NotFound
    );
    anns.delete(room, Seq(5)).await.expect("an owner may");
    let seen = ann.conversation(room).await.expect("a view");
    assert_eq!(seen.last_seq, Seq(7), "no refusal has a place in the log");
}

pub(crate) async fn mentions_are_told_and_counted(cluster: TestCluster) {
    let [ann, bob, carol] = cluster.register_all(["ann", "bob.b", "carol"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob]).await;
    let text = "hi @BOB.B. and @carol, mail x@bob.b";
    let ack = anns.send(room, text).await;
    let message = bobs.expect_message(text).await;
    assert_eq!(message.mentions, [bob.id()], "members only");
    let counts = async |person: &Person| {
        let seen = person.conversation(room).await.expect("a view");
        (seen.unread_count, seen.mention_count)
    };
    assert_eq!(counts(&bob).await, (1, 1));
    let own = anns.send(room, "and nobody").await;
    assert_eq!(counts(&bob).await, (2, 1));
    anns.edit(room, own.seq, "and @bob.b")
        .await
        .expect("edited");
    let edited = bobs.expect_change(room, Seq(4)).await;
    assert_eq!(edited.message.mentions, [bob.id()]);
    assert_eq!(counts(&bob).await, (2, 2));
    anns.delete(room, ack.seq).await.expect("deleted");
    assert_eq!(counts(&bob).await, (2, 1), "a tombstone mentions nobody");
    ann.add_members(room, &[carol.id()]).await.expect("ann may");
    anns.send(room, "@carol").await;
    assert_eq!(counts(&carol).await, (1, 1));
}

pub(crate) async fn who_is_blocked_is_heard_no_more(cluster: TestCluster) {
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let ack = bobs.send(&ann, "hi").await;
    let room = ack.conversation_id;
    anns.expect_message("hi").await;
    let group = ann.group("room", &[&bob]).await;
    ann.block(bob.id()).await.expect("ann may");
    carol.block(bob.id()).await.expect("carol may");

    // Whichever node: also the one that has sent there before, and knows the conversation.
    let elsewhere = bob.connect(cluster.node(2)).await;
    for device in [&bobs, &elsewhere] {
        assert_eq!(send_code(device, room).await, Some(ErrorCode::Forbidden));
        assert_eq!(send_code(device, &ann).await, Some(ErrorCode::Forbidden));
        assert_eq!(send_code(device, &carol).await, Some(ErrorCode::NotFound));
        assert_eq!(
            send_code(device, group).await,
            None,
            "groups stay as they are"
        );
    }
    assert_eq!(
        refused_with(bobs.edit(room, ack.seq, "ho").await),
        ErrorCode::Forbidden
    );
    let reaction = bobs.react(room, ack.seq, "👍", true).await;
    assert_eq!(refused_with(reaction), ErrorCode::Forbidden);
    anns.send(room, "one-sided").await;
    bobs.expect_message("one-sided").await;
    bobs.delete(room, ack.seq)
        .await
        .expect("what is his he may take back");
    anns.expect_change(room, Seq(3)).await;

    let blocked = ann
        .blocks(&PageRequest::default())
        .await
        .expect("a list")
        .items;
    assert_eq!(
        blocked.iter().map(|user| user.user_id).collect::<Vec<_>>(),
        [bob.id()]
    );
    ann.unblock(bob.id()).await.expect("ann may");
    assert_eq!(send_code(&elsewhere, &ann).await, None);
    assert_eq!(send_code(&bobs, &carol).await, Some(ErrorCode::NotFound));
    carol.unblock(bob.id()).await.expect("carol may");
    assert_eq!(send_code(&bobs, &carol).await, None);
    anns.expect_message("hello?").await;
    anns.seen_once_in_order(room);
}
