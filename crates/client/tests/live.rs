//! The connection that stays up, against a scripted server: what it says and when.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rookery_client::{ClientCommand, Credentials, Live, LiveConfig, Outgoing, Start, Update};
use rookery_protocol::event::{
    ConversationRead, Limits, MessageAck, MessageBatch, MessageChanged, MessageNew, Ready, Receipt,
    ServerDraining, ServerEvent, SyncDone,
};
use rookery_protocol::message::{Message, MessageKind, MessageStatus};
use rookery_protocol::rest::{Success, Tokens};
use rookery_protocol::user::{User, UserRole};
use rookery_protocol::{ConversationId, Format, MessageId, Seq, SessionId, Timestamp, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message as Frame, http};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use uuid::Uuid;

const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));
const ME: UserId = UserId::from_uuid(Uuid::from_u128(2));
const OTHER: UserId = UserId::from_uuid(Uuid::from_u128(3));
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// The server's side of one connection, and the `since` it was asked with.
struct Peer(WebSocketStream<TcpStream>, Option<Timestamp>);

impl Peer {
    /// Takes the next connection, which must resume and ask for these cursors.
    async fn accept(listener: &TcpListener, node: &str, cursor: i64) -> Self {
        Self::accept_with(listener, "token", cursor, ready(node)).await
    }

    async fn accept_with(listener: &TcpListener, token: &str, cursor: i64, ready: Ready) -> Self {
        let (tcp, _) = listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let check = |request: &Request, mut response: Response| {
            assert!(request.uri().query().unwrap().contains("resume=1"));
            assert_eq!(
                request.headers()["authorization"],
                format!("Bearer {token}")
            );
            let name = http::HeaderValue::from_static(Format::Json.subprotocol());
            response
                .headers_mut()
                .insert("sec-websocket-protocol", name);
            Ok::<_, ErrorResponse>(response)
        };
        let mut peer = Self(accept_hdr_async(tcp, check).await.unwrap(), None);
        peer.say(ServerEvent::Ready(ready)).await;
        match peer.hear().await {
            ClientCommand::Sync(sync) => {
                assert_eq!(sync.cursors.unwrap(), HashMap::from([(ROOM, Seq(cursor))]));
                peer.1 = sync.since;
            }
            other => panic!("a sync comes first, not {other:?}"),
        }
        peer
    }

    async fn say(&mut self, event: ServerEvent) {
        let text = String::from_utf8(Format::Json.encode(&event).unwrap()).unwrap();
        self.0.send(Frame::text(text)).await.unwrap();
    }

    async fn hear(&mut self) -> ClientCommand {
        let frame = self.0.next().await.unwrap().unwrap();
        ClientCommand::decode(Format::Json, &frame.into_data()).unwrap()
    }

    async fn hear_send(&mut self) -> (String, MessageId) {
        match self.hear().await {
            ClientCommand::MessageSend(send) => (send.content, send.message_id),
            other => panic!("a send was expected, not {other:?}"),
        }
    }

    async fn synced(&mut self) {
        let done = SyncDone {
            reference: Some("sync".into()),
            count: 0,
            reset: Vec::new(),
        };
        self.say(ServerEvent::SyncDone(done)).await;
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

fn ann() -> User {
    User {
        user_id: ME,
        username: "ann".into(),
        full_name: None,
        avatar_url: None,
        role: UserRole::User,
        created_at: START,
        last_seen_at: None,
        email: None,
    }
}

/// Answers the next request, which must trade this refresh token, with new ones.
async fn refresh(listener: &TcpListener, old: &str, new: &str) {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        assert_ne!(
            tcp.read_buf(&mut request).await.unwrap(),
            0,
            "the request is not complete"
        );
    }
    let request = String::from_utf8(request).unwrap();
    assert!(
        request.starts_with("POST /api/v1/auth/refresh "),
        "{request}"
    );
    assert!(
        request.contains(&format!("\"refresh_token\":\"{old}\"")),
        "{request}"
    );
    let data = Tokens {
        user: ann(),
        access_token: format!("access-{new}"),
        refresh_token: new.into(),
        token_type: "Bearer".into(),
        expires_in: 900,
    };
    let body = Success {
        success: true,
        data,
        message: None,
        timestamp: START,
    };
    let body = serde_json::to_string(&body).unwrap();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length:";
    tcp.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes())
        .await
        .unwrap();
}

fn ready(node: &str) -> Ready {
    Ready {
        reference: None,
        user: ann(),
        session_id: SessionId::from_uuid(Uuid::from_u128(4)),
        node_id: node.into(),
        epoch: "1".into(),
        server_time: START,
        heartbeat_seconds: 25,
        token_expires_at: START.plus_millis(900_000),
        limits: Limits {
            frame_bytes: 65_536,
            content_chars: 16_000,
            in_flight: 8,
            presence_watch: 9,
        },
    }
}

fn message(sender_id: UserId, id: MessageId, seq: i64) -> Message {
    Message {
        message_id: id,
        conversation_id: ROOM,
        seq: Seq(seq),
        sender_id,
        kind: MessageKind::Text,
        content: format!("message {seq}"),
        metadata: None,
        created_at: START,
        edited_at: None,
        deleted_at: None,
        reply_to: None,
        mentions: Vec::new(),
        reactions: Vec::new(),
        status: None,
    }
}

fn theirs(seq: i64) -> Message {
    message(OTHER, MessageId::from_uuid(Uuid::now_v7()), seq)
}

fn ack(message_id: MessageId, seq: i64) -> ServerEvent {
    ServerEvent::MessageAck(MessageAck {
        reference: None,
        message_id,
        conversation_id: ROOM,
        seq: Seq(seq),
        created_at: START,
        status: MessageStatus::Sent,
        duplicate: false,
    })
}

async fn start() -> (TcpListener, Live) {
    start_with(None).await
}

async fn start_with(refresh_token: Option<&str>) -> (TcpListener, Live) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let credentials = Credentials {
        access_token: "token".into(),
        refresh_token: refresh_token.map(Into::into),
    };
    let mut config = LiveConfig::new([url], credentials);
    config.start = Start::Cursors(HashMap::from([(ROOM, Seq(4))]));
    (listener, Live::start(config).unwrap())
}

/// The next update, in a few words.
async fn next(live: &mut Live) -> String {
    let update = tokio::time::timeout(Duration::from_secs(20), live.next())
        .await
        .unwrap();
    match update {
        None => "end".into(),
        Some(Update::Connected { node_id, .. }) => format!("connected {node_id}"),
        Some(Update::Synced { .. }) => "synced".into(),
        Some(Update::Message(message)) => format!("message {}", message.seq),
        Some(Update::Changed { cursor, message }) => format!("changed {} at {cursor}", message.seq),
        Some(Update::Cursor { seq, .. }) => format!("cursor {seq}"),
        Some(Update::Acked(ack)) => format!("acked {}", ack.seq),
        Some(Update::Disconnected { code, .. }) => format!("disconnected {code}"),
        Some(Update::Stopped { code, .. }) => format!("stopped {code}"),
        Some(Update::Receipt {
            receipt,
            read: true,
        }) => format!("read {}", receipt.seq),
        Some(Update::Receipt { receipt, .. }) => format!("delivered {}", receipt.seq),
        Some(Update::Read(read)) => format!("own read {}", read.seq),
        Some(Update::Draining { .. }) => "draining".into(),
        Some(Update::Refreshed(tokens)) => format!("refreshed {}", tokens.refresh_token),
        Some(other) => format!("{other:?}"),
    }
}

macro_rules! expect {
    ($live:expr, $($text:literal),+ $(,)?) => { $(assert_eq!(next($live).await, $text);)+ };
}

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
    peer.say(ServerEvent::MessageNew(MessageNew { message: theirs(5) }))
        .await;
    peer.say(ServerEvent::MessageNew(MessageNew { message: theirs(5) }))
        .await;
    drop(peer);
    expect!(
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
    peer.say(ServerEvent::MessageNew(MessageNew {
        message: message(ME, two, 9),
    }))
    .await;
    peer.say(ServerEvent::MessageNew(MessageNew {
        message: theirs(10),
    }))
    .await;
    expect!(
        &mut live,
        "connected b",
        "changed 2 at 5",
        "message 6",
        "acked 7",
        "cursor 8",
        "synced"
    );
    expect!(&mut live, "acked 9", "message 10");
    peer.close(4001).await;
    expect!(&mut live, "stopped 4001", "end");
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
    expect!(
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
    expect!(
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
    assert_eq!(peer.1, None, "it was never here");
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
    expect!(
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
    let since = peer.1.expect("it was here before");
    assert!(
        since >= START,
        "by the server's clock, not before ready: {since}"
    );
}

#[tokio::test]
async fn a_draining_node_is_left_with_its_hint_and_resumed_elsewhere() {
    let (listener, mut live) = start().await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    peer.say(ServerEvent::ServerDraining(ServerDraining {
        reconnect_after_ms: 300,
    }))
    .await;
    let drained = std::time::Instant::now();
    peer.close(1012).await;
    let _peer = Peer::accept(&listener, "b", 4).await;
    let waited = drained.elapsed();
    assert!(
        waited >= Duration::from_millis(290),
        "came back after {waited:?}"
    );
    expect!(
        &mut live,
        "connected a",
        "synced",
        "draining",
        "disconnected 1012",
        "connected b"
    );

    live.handle()
        .send(Outgoing::to_conversation(ROOM, "never synced"))
        .await
        .unwrap();
    let unsent = live.close().await.unacked;
    assert_eq!(unsent.len(), 1);
    assert_eq!(unsent[0].content, "never synced");
}

#[tokio::test]
async fn tokens_are_renewed_when_they_ran_out_and_before_they_do() {
    let (listener, mut live) = start_with(Some("first")).await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    peer.close(4103).await;
    refresh(&listener, "first", "second").await;
    expect!(
        &mut live,
        "connected a",
        "synced",
        "disconnected 4103",
        "refreshed second"
    );

    let soon = Ready {
        token_expires_at: START.plus_millis(500),
        ..ready("b")
    };
    let mut peer = Peer::accept_with(&listener, "access-second", 4, soon).await;
    refresh(&listener, "second", "third").await;
    match peer.hear().await {
        ClientCommand::Auth(auth) => assert_eq!(auth.token, "access-third"),
        other => panic!("an auth was expected, not {other:?}"),
    }
    expect!(&mut live, "connected b", "refreshed third");
}

#[tokio::test]
async fn a_refused_token_without_another_ends_it() {
    let (listener, mut live) = start().await;
    let (mut tcp, _) = listener.accept().await.unwrap();
    tcp.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    expect!(&mut live, "disconnected 1006", "stopped 4001", "end");
}
