//! Whatever happens, what was sent in one conversation is stored once and in order.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rookery_client::{Live, LiveConfig, Outgoing, Update};
use rookery_protocol::command::{ClientCommand, MessageSend};
use rookery_protocol::event::{ErrorEvent, ServerEvent};
use rookery_protocol::{ConversationId, ErrorCode, MessageId};

use super::scripted::*;

async fn send(live: &Live, to: ConversationId, text: &str) -> MessageId {
    let message = Outgoing::to_conversation(to, text);
    live.handle().send(message).await.unwrap()
}

#[tokio::test]
async fn a_refusal_in_one_conversation_holds_up_no_other() {
    let (listener, live) = start().await;
    for (room, text) in [(ROOM, "a"), (ROOM, "b"), (LOBBY, "x"), (LOBBY, "y")] {
        send(&live, room, text).await;
    }
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    let (text, a) = peer.hear_send().await;
    assert_eq!(text, "a");
    let refused_at = Instant::now();
    peer.refuse(a, 400).await;
    for (number, expected) in ["x", "y"].into_iter().enumerate() {
        let (text, id) = peer.hear_send().await;
        assert_eq!(text, expected);
        peer.say(ack_in(LOBBY, id, 1 + number as i64)).await;
    }
    assert_eq!(peer.hear_send().await, ("a".into(), a), "with the same id");
    assert!(refused_at.elapsed() >= Duration::from_millis(400));
    peer.say(ack(a, 5)).await;
    assert_eq!(peer.hear_send().await.0, "b");
    assert_eq!(live.handle().unsettled(), 1);
}

#[tokio::test]
async fn what_a_server_asked_to_wait_waits_across_an_interruption() {
    let (listener, live) = start().await;
    let a = send(&live, ROOM, "a").await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    peer.hear_send().await;
    let refused_at = Instant::now();
    peer.refuse(a, 1_500).await;
    send(&live, LOBBY, "x").await;
    assert_eq!(peer.hear_send().await.0, "x", "the refusal has arrived");
    drop(peer);
    let mut peer = Peer::accept(&listener, "b", 4).await;
    peer.synced().await;
    assert_eq!(peer.hear_send().await.0, "x");
    assert_eq!(peer.hear_send().await, ("a".into(), a));
    assert!(refused_at.elapsed() >= Duration::from_millis(1_500));
}

#[tokio::test]
async fn a_send_that_cannot_be_is_over_and_the_next_one_leaves() {
    let (listener, mut live) = start().await;
    send(&live, ROOM, &"a".repeat(70_000)).await;
    send(&live, ROOM, "b").await;
    send(&live, ROOM, "c").await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    let (text, b) = peer.hear_send().await;
    assert_eq!(text, "b", "no frame holds the first");
    let refused = ErrorEvent {
        reference: Some(b.to_string()),
        code: ErrorCode::Forbidden,
        message: "no".into(),
        retryable: false,
        retry_after_ms: None,
        details: Vec::new(),
        message_id: Some(b),
    };
    peer.say(ServerEvent::Error(refused)).await;
    assert_eq!(peer.hear_send().await.0, "c");
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "failed TOO_LARGE",
        "failed FORBIDDEN"
    );
}

/// A server that stores, and does to its client whatever may be done.
struct Store {
    dice: SmallRng,
    /// In the order of storing, once each.
    stored: HashMap<ConversationId, Vec<String>>,
    seqs: HashMap<MessageId, i64>,
    cuts: u32,
}

/// What becomes of a send.
enum Fate {
    Acked(i64),
    Refused,
    Cut,
}

impl Store {
    fn take(&mut self, send: &MessageSend) -> Fate {
        let cut = self.cuts > 0 && self.dice.random_bool(0.005);
        // A cut may come before it is stored, or after.
        if cut && self.dice.random_bool(0.5) {
            return Fate::Cut;
        }
        if self.dice.random_bool(0.1) {
            return Fate::Refused;
        }
        let room = send.conversation_id.unwrap();
        let stored = self.stored.entry(room).or_default();
        let seq = *self.seqs.entry(send.message_id).or_insert_with(|| {
            stored.push(send.content.clone());
            stored.len() as i64
        });
        if cut { Fate::Cut } else { Fate::Acked(seq) }
    }
}

#[tokio::test]
async fn a_backlog_of_thousands_is_stored_once_and_in_order_whatever_happens() {
    const SENDS: usize = 3_000;
    let listener = listen().await;
    let config = LiveConfig {
        outbox: SENDS,
        ..config(&[&listener], None)
    };
    let mut live = Live::start(config).unwrap();
    for number in 0..SENDS {
        let room = if number % 3 == 0 { LOBBY } else { ROOM };
        send(&live, room, &number.to_string()).await;
    }
    let mut store = Store {
        dice: SmallRng::seed_from_u64(7),
        stored: HashMap::new(),
        seqs: HashMap::new(),
        cuts: 3,
    };
    let serving = async {
        loop {
            let mut peer = Peer::accept_with(&listener, "token", ready("a")).await;
            peer.synced().await;
            loop {
                let ClientCommand::MessageSend(send) = peer.hear().await else {
                    panic!("only sends leave");
                };
                match store.take(&send) {
                    Fate::Refused => peer.refuse(send.message_id, 1).await,
                    Fate::Cut => break store.cuts -= 1,
                    Fate::Acked(seq) => {
                        let room = send.conversation_id.unwrap();
                        peer.say(ack_in(room, send.message_id, seq)).await;
                    }
                }
            }
        }
    };
    let reading = async {
        let mut acked: HashMap<ConversationId, Vec<i64>> = HashMap::new();
        while live.handle().unsettled() > 0 {
            if let Some(Update::Acked(ack)) = live.next().await {
                acked
                    .entry(ack.conversation_id)
                    .or_default()
                    .push(ack.seq.0);
            }
        }
        acked
    };
    let acked = tokio::select! {
        never = serving => never,
        acked = within(reading) => acked,
    };
    assert_eq!(store.cuts, 0, "it was cut as often as it should be");
    for (room, is_in) in [(LOBBY, 0), (ROOM, 1)] {
        let sent = (0..SENDS).filter(|number| (number % 3).min(1) == is_in);
        let sent: Vec<String> = sent.map(|number| number.to_string()).collect();
        assert!(store.stored[&room] == sent, "stored in another order");
        assert!(acked[&room].is_sorted(), "acked in another order");
    }
}
