//! What one application task may do without waiting for itself, and what can be looked at.

use std::sync::{Arc, Mutex};

use rookery_client::{ClientCommand, Live, LiveConfig, Outgoing, SendError, Tap, Tapped, Update};
use rookery_protocol::event::ServerEvent;

use super::scripted::*;

/// Room for one of everything, and a task that answers each message it reads.
#[tokio::test]
async fn one_task_may_read_and_send_in_turn() {
    const MESSAGES: i64 = 500;
    let listener = listen().await;
    let config = LiveConfig {
        outbox: 1,
        updates: 1,
        ..config(&[&listener], None)
    };
    let mut live = Live::start(config).unwrap();
    let serving = async {
        let mut peer = Peer::accept(&listener, "a", 4).await;
        peer.synced().await;
        for seq in 5..5 + MESSAGES {
            peer.say(news(theirs(seq))).await;
        }
        let mut seq = 0;
        loop {
            if let ClientCommand::MessageSend(send) = peer.hear().await {
                seq += 1;
                peer.say(ack_in(LOBBY, send.message_id, seq)).await;
            }
        }
    };
    let talking = async {
        let (mut waiting, mut read, mut acked) = (Vec::new(), 0, 0);
        while acked < MESSAGES {
            match live.next().await {
                Some(Update::Message(message)) => {
                    read += 1;
                    live.handle().read(ROOM, message.seq).unwrap();
                    waiting.push(Outgoing::to_conversation(LOBBY, &message.content));
                }
                Some(Update::Acked(_)) => acked += 1,
                _ => {}
            }
            while let Some(message) = waiting.pop() {
                match live.handle().send(message).await {
                    Ok(_) => {}
                    Err(SendError::Full(message)) => {
                        waiting.push(*message);
                        break;
                    }
                    Err(SendError::Ended) => panic!("it never ends by itself"),
                }
            }
        }
        read
    };
    let read = tokio::select! {
        never = serving => never,
        read = within(talking) => read,
    };
    assert_eq!(read, MESSAGES);
}

#[tokio::test]
async fn a_send_waits_for_room_and_learns_of_the_end() {
    let listener = listen().await;
    let config = LiveConfig {
        outbox: 1,
        ..config(&[&listener], None)
    };
    let mut live = Live::start(config).unwrap();
    let handle = live.handle().clone();
    let text = |text| Outgoing::to_conversation(ROOM, text);
    handle.send(text("a")).await.unwrap();
    let second = handle.clone();
    let second = tokio::spawn(async move { second.send(text("b")).await });
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    let (_, a) = peer.hear_send().await;
    peer.say(ack(a, 5)).await;
    assert_eq!(peer.hear_send().await.0, "b", "there was room for it");
    within(second).await.unwrap().unwrap();
    expect_next!(&mut live, "connected a", "synced", "acked 5");

    let third = handle.clone();
    let third = tokio::spawn(async move { third.send(text("c")).await });
    let unacked = live.close().await.unacked;
    assert_eq!(unacked.len(), 1);
    assert_eq!(unacked[0].content, "b");
    let refused = within(third).await.unwrap();
    assert!(matches!(refused, Err(SendError::Ended)), "{refused:?}");
    assert!(handle.read(ROOM, rookery_protocol::Seq(5)).is_err());
}

#[tokio::test]
async fn a_tap_shows_what_is_merged_or_repeated() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let tap = Tap::new(move |tapped| {
        log.lock().unwrap().push(match tapped {
            Tapped::Opened { .. } => "opened".to_owned(),
            Tapped::Out(ClientCommand::Sync(sync)) => {
                format!("sync {}", sync.cursors.as_ref().unwrap()[&ROOM])
            }
            Tapped::Out(command) => command.type_name().to_owned(),
            Tapped::In(ServerEvent::MessageAck(ack)) => format!("ack {}", ack.seq),
            Tapped::In(event) => event.type_name().to_owned(),
            Tapped::Closed { code, .. } => format!("closed {code}"),
        });
    });
    let listener = listen().await;
    let config = LiveConfig {
        tap: Some(tap),
        ..config(&[&listener], None)
    };
    let mut live = Live::start(config).unwrap();
    live.handle()
        .send(Outgoing::to_conversation(ROOM, "a"))
        .await
        .unwrap();
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    let (_, a) = peer.hear_send().await;
    peer.refuse(a, 1).await;
    peer.hear_send().await;
    peer.say(ack(a, 5)).await;
    peer.say(ack(a, 5)).await;
    peer.close(4001).await;
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "acked 5",
        "stopped 4001",
        "end"
    );
    let seen = seen.lock().unwrap().join(", ");
    assert_eq!(
        seen,
        "opened, ready, sync 4, sync.done, message.send, error, message.send, ack 5, ack 5, closed 4001"
    );
}
