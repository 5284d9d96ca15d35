//! Every message once and in order, and what the cursors say after an interruption.

use std::collections::HashMap;

use rookery_client::{Live, Outgoing, ServerEvent};
use rookery_protocol::Seq;
use rookery_protocol::conversation::Conversation;
use rookery_protocol::event::{
    ConversationRead, MessageBatch, MessageChanged, Ready, Receipt, ResetCursor,
};
use rookery_protocol::rest::Page;

use super::scripted::*;

#[tokio::test]
async fn what_was_not_acked_is_sent_again_and_nothing_is_handed_out_twice() {
    let (listener, mut live) = start().await;
    for text in ["one", "two"] {
        live.handle()
            .send(Outgoing::to_conversation(ROOM, text))
            .await
            .unwrap();
    }
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    let (_, one) = peer.hear_send().await;
    peer.say(news(theirs(5))).await;
    peer.say(news(theirs(5))).await;
    drop(peer);
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "message 5",
        "disconnected 1006"
    );

    // The first was stored, as the replay shows, so that it is not sent again.
    let mut peer = Peer::accept(&listener, "b", 5).await;
    let messages = vec![theirs(6), message(ME, one, 7)];
    peer.say(ServerEvent::MessageBatch(MessageBatch {
        reference: None,
        conversation_id: ROOM,
        messages,
        changed: vec![theirs(2)],
        to_seq: Seq(8),
        more: false,
    }))
    .await;
    peer.synced().await;
    let (text, two) = peer.hear_send().await;
    assert_eq!(text, "two");
    peer.say(ack(two, 9)).await;
    peer.say(ack(two, 9)).await;
    peer.say(news(message(ME, two, 9))).await;
    peer.say(news(theirs(10))).await;
    expect_next!(
        &mut live,
        "connected b",
        "changed 2 at 5",
        "message 6",
        "acked 7",
        "cursor 8",
        "synced"
    );
    expect_next!(&mut live, "acked 9", "message 10");
    peer.close(4001).await;
    expect_next!(&mut live, "stopped 4001", "end");
    assert!(live.close().await.unacked.is_empty());
}

#[tokio::test]
async fn changes_are_handed_out_once_and_move_the_cursor() {
    let (listener, mut live) = start().await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    let change = |seq: i64, of: i64| MessageChanged {
        conversation_id: ROOM,
        seq: Seq(seq),
        by: OTHER,
        message: theirs(of),
    };
    for event in [
        ServerEvent::MessageEdited(change(5, 2)),
        ServerEvent::ReactionAdded(change(6, 3)),
        ServerEvent::ReactionAdded(change(6, 3)),
        ServerEvent::ReactionRemoved(change(7, 3)),
        ServerEvent::MessageDeleted(change(8, 2)),
    ] {
        peer.say(event).await;
    }
    drop(peer);
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "changed 2 at 5",
        "changed 3 at 6",
        "changed 3 at 7",
        "changed 2 at 8",
        "disconnected 1006"
    );
    let mut peer = Peer::accept(&listener, "b", 8).await;
    peer.say(ServerEvent::MessageBatch(MessageBatch {
        reference: None,
        conversation_id: ROOM,
        messages: vec![theirs(9)],
        changed: vec![theirs(2), theirs(3)],
        to_seq: Seq(11),
        more: false,
    }))
    .await;
    peer.synced().await;
    expect_next!(
        &mut live,
        "connected b",
        "changed 2 at 8",
        "changed 3 at 8",
        "message 9",
        "cursor 11",
        "synced"
    );
    drop(peer);
    Peer::accept(&listener, "c", 11).await;
}

#[tokio::test]
async fn marks_are_handed_out_where_they_say_more_and_asked_for_since_the_last_word() {
    let (listener, mut live) = start().await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    assert_eq!(peer.sync.since, None, "it was never here");
    peer.synced().await;
    let receipt = |seq: i64| Receipt {
        conversation_id: ROOM,
        user_id: OTHER,
        seq: Seq(seq),
        at: START,
    };
    let own = |seq: i64| ConversationRead {
        conversation_id: ROOM,
        seq: Seq(seq),
        at: START,
        last_seq: Seq(4),
        unread_count: 0,
        mention_count: 0,
    };
    for event in [
        ServerEvent::ReceiptDelivered(receipt(2)),
        ServerEvent::ReceiptRead(receipt(3)),
        ServerEvent::ReceiptRead(receipt(1)),
        ServerEvent::ReceiptDelivered(receipt(3)),
        ServerEvent::ConversationRead(own(4)),
        ServerEvent::ConversationRead(own(2)),
        ServerEvent::ReceiptDelivered(receipt(4)),
    ] {
        peer.say(event).await;
    }
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "delivered 2",
        "read 3",
        "own read 4",
        "delivered 4"
    );
    drop(peer);
    let peer = Peer::accept(&listener, "b", 4).await;
    let since = peer.sync.since.expect("it was here before");
    assert!(
        since >= START,
        "by the server's clock, not before ready: {since}"
    );
}

#[tokio::test]
async fn what_arrives_before_a_reset_is_not_lost_behind_it() {
    let (listener, mut live) = start().await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.say(news(theirs(2_001))).await;
    let reset = ResetCursor {
        conversation_id: ROOM,
        seq: Seq(2_000),
    };
    peer.synced_with(vec![reset]).await;
    peer.say(news(theirs(2_001))).await;
    peer.say(news(theirs(2_002))).await;
    expect_next!(
        &mut live,
        "connected a",
        "message 2001",
        "reset 2001",
        "synced",
        "message 2002"
    );
    drop(peer);
    Peer::accept(&listener, "b", 2_002).await;
}

#[tokio::test]
async fn ones_own_message_arrives_as_ack_as_message_or_as_both() {
    let (listener, mut live) = start().await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    for seq in [5, 6, 7] {
        let text = Outgoing::to_conversation(ROOM, "a");
        let id = live.handle().send(text).await.unwrap();
        peer.hear_send().await;
        if seq != 6 {
            peer.say(ack(id, seq)).await;
        }
        if seq != 5 {
            peer.say(news(message(ME, id, seq))).await;
        }
    }
    peer.say(news(theirs(8))).await;
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "acked 5",
        "acked 6",
        "acked 7",
        "message 8"
    );
}

#[tokio::test]
async fn a_database_that_was_set_back_drops_the_cursors_and_says_so() {
    let (listener, mut live) = start().await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    expect_next!(&mut live, "connected a", "synced");
    drop(peer);
    let set_back = Ready {
        epoch: "2".into(),
        ..ready("b")
    };
    let mut peer = Peer::upgrade(&listener, "token").await;
    peer.say(ServerEvent::Ready(set_back)).await;
    let (tcp, text) = request(&listener).await;
    assert!(text.starts_with("GET /api/v1/conversations?"), "{text}");
    let none = Page::<Conversation> {
        items: Vec::new(),
        next_cursor: None,
    };
    answer(tcp, none).await;
    expect_next!(&mut live, "disconnected 1006", "connected b", "epoch 2");
    match peer.hear().await {
        rookery_client::ClientCommand::Sync(sync) => {
            assert_eq!(sync.cursors, Some(HashMap::new()), "the old one is gone");
        }
        other => panic!("a sync was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn cursors_of_another_epoch_count_for_nothing_from_the_start() {
    let listener = listen().await;
    let mut config = config(&[&listener], None);
    config.epoch = Some("0".into());
    let mut live = Live::start(config).unwrap();
    let mut peer = Peer::upgrade(&listener, "token").await;
    peer.say(ServerEvent::Ready(ready("a"))).await;
    request(&listener).await;
    expect_next!(&mut live, "connected a");
}
