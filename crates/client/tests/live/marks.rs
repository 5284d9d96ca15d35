//! Marks have no answer, and arrive all the same.

use std::time::{Duration, Instant};

use rookery_protocol::command::{ClientCommand, Mark};
use rookery_protocol::event::{ErrorEvent, ServerEvent};
use rookery_protocol::{ErrorCode, Seq};

use super::scripted::*;

async fn hear_mark(peer: &mut Peer) -> (Mark, bool) {
    match peer.hear().await {
        ClientCommand::MessageRead(mark) => (mark, true),
        ClientCommand::MessageDelivered(mark) => (mark, false),
        other => panic!("a mark was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn marks_are_repeated_after_an_interruption_and_after_a_refusal() {
    let (listener, live) = start().await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    live.handle().read(ROOM, Seq(3)).unwrap();
    assert_eq!(hear_mark(&mut peer).await.0.seq, Seq(3));
    live.handle().read(ROOM, Seq(4)).unwrap();
    assert_eq!(hear_mark(&mut peer).await.0.seq, Seq(4));
    drop(peer);

    let mut peer = Peer::accept(&listener, "b", 4).await;
    peer.synced().await;
    let (mark, read) = hear_mark(&mut peer).await;
    assert_eq!((mark.seq, read), (Seq(4), true), "the highest only");
    let refused_at = Instant::now();
    let refused = ErrorEvent {
        reference: mark.reference,
        code: ErrorCode::Unavailable,
        message: "an outage".into(),
        retryable: true,
        retry_after_ms: Some(300),
        details: Vec::new(),
        message_id: None,
    };
    peer.say(ServerEvent::Error(refused)).await;
    assert_eq!(hear_mark(&mut peer).await.0.seq, Seq(4));
    assert!(refused_at.elapsed() >= Duration::from_millis(300));
}
