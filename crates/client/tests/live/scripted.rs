//! A server that says what the test makes it say.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rookery_client::{ClientCommand, Credentials, Live, LiveConfig, Start, Update};
use rookery_protocol::command::Sync;
use rookery_protocol::event::{
    ErrorEvent, Limits, MessageAck, MessageNew, Ready, ResetCursor, ServerEvent, SyncDone,
};
use rookery_protocol::message::{Message, MessageKind, MessageStatus};
use rookery_protocol::rest::{Success, Tokens};
use rookery_protocol::user::{User, UserRole};
use rookery_protocol::{
    ConversationId, ErrorCode, Format, MessageId, Seq, SessionId, Timestamp, UserId,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message as Frame, http};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use uuid::Uuid;

pub(crate) const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));
pub(crate) const LOBBY: ConversationId = ConversationId::from_uuid(Uuid::from_u128(5));
pub(crate) const ME: UserId = UserId::from_uuid(Uuid::from_u128(2));
pub(crate) const OTHER: UserId = UserId::from_uuid(Uuid::from_u128(3));
pub(crate) const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The server's side of one connection.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
    /// What it was asked with at first.
    pub(crate) sync: Sync,
}

impl Peer {
    /// Takes the next connection, which must resume and ask for this cursor of the room.
    pub(crate) async fn accept(listener: &TcpListener, node: &str, cursor: i64) -> Self {
        let peer = Self::accept_with(listener, "token", ready(node)).await;
        let cursors = peer.sync.cursors.clone().unwrap();
        assert_eq!(cursors, HashMap::from([(ROOM, Seq(cursor))]));
        peer
    }

    /// Takes the next connection, which must resume and come with this token.
    pub(crate) async fn accept_with(listener: &TcpListener, token: &str, ready: Ready) -> Self {
        let mut peer = Self::upgrade(listener, token).await;
        peer.say(ServerEvent::Ready(ready)).await;
        match peer.hear().await {
            ClientCommand::Sync(sync) => peer.sync = sync,
            other => panic!("a sync comes first, not {other:?}"),
        }
        peer
    }

    /// Takes the next connection and says nothing.
    pub(crate) async fn upgrade(listener: &TcpListener, token: &str) -> Self {
        let (tcp, _) = within(listener.accept()).await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let check = |request: &Request, mut response: Response| {
            assert!(request.uri().query().unwrap().contains("resume=1"));
            let bearer = format!("Bearer {token}");
            assert_eq!(request.headers()["authorization"], bearer);
            let name = http::HeaderValue::from_static(Format::Json.subprotocol());
            let headers = response.headers_mut();
            headers.insert("sec-websocket-protocol", name);
            Ok::<_, ErrorResponse>(response)
        };
        Self {
            socket: accept_hdr_async(tcp, check).await.unwrap(),
            sync: Sync::default(),
        }
    }

    pub(crate) async fn say(&mut self, event: ServerEvent) {
        let text = String::from_utf8(Format::Json.encode(&event).unwrap()).unwrap();
        self.socket.send(Frame::text(text)).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> ClientCommand {
        let frame = within(self.socket.next()).await.unwrap().unwrap();
        ClientCommand::decode(Format::Json, &frame.into_data()).unwrap()
    }

    pub(crate) async fn hear_send(&mut self) -> (String, MessageId) {
        match self.hear().await {
            ClientCommand::MessageSend(send) => (send.content, send.message_id),
            other => panic!("a send was expected, not {other:?}"),
        }
    }

    pub(crate) async fn synced(&mut self) {
        self.synced_with(Vec::new()).await;
    }

    pub(crate) async fn synced_with(&mut self, reset: Vec<ResetCursor>) {
        let done = SyncDone {
            reference: Some("sync".into()),
            count: 0,
            reset,
        };
        self.say(ServerEvent::SyncDone(done)).await;
    }

    /// Refuses a send for now.
    pub(crate) async fn refuse(&mut self, message_id: MessageId, retry_after_ms: u64) {
        let error = ErrorEvent {
            reference: Some(message_id.to_string()),
            code: ErrorCode::Unavailable,
            message: "an outage".into(),
            retryable: true,
            retry_after_ms: Some(retry_after_ms),
            details: Vec::new(),
            message_id: Some(message_id),
        };
        self.say(ServerEvent::Error(error)).await;
    }

    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

/// What a test waits for must come.
pub(crate) async fn within<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

/// A request that is no upgrade: its connection and its text.
pub(crate) async fn request(listener: &TcpListener) -> (TcpStream, String) {
    let (mut tcp, _) = within(listener.accept()).await.unwrap();
    let mut bytes = Vec::new();
    let is_whole = |bytes: &[u8]| {
        let is_post = bytes.starts_with(b"POST");
        bytes.ends_with(if is_post { b"}" } else { b"\r\n\r\n" })
    };
    while !is_whole(&bytes) {
        let read = within(tcp.read_buf(&mut bytes)).await.unwrap();
        assert_ne!(read, 0, "the request is not complete");
    }
    (tcp, String::from_utf8(bytes).unwrap())
}

/// The next request, which must trade this refresh token.
pub(crate) async fn refresh_request(listener: &TcpListener, old: &str) -> TcpStream {
    let (tcp, text) = request(listener).await;
    assert!(text.starts_with("POST /api/v1/auth/refresh "), "{text}");
    let token = format!("\"refresh_token\":\"{old}\"");
    assert!(text.contains(&token), "{text}");
    tcp
}

/// Answers it with new tokens.
pub(crate) async fn answer_refresh(tcp: TcpStream, new: &str) {
    let tokens = Tokens {
        user: ann(),
        access_token: format!("access-{new}"),
        refresh_token: new.into(),
        token_type: "Bearer".into(),
        expires_in: 900,
    };
    answer(tcp, tokens).await;
}

pub(crate) async fn answer<T: Serialize>(mut tcp: TcpStream, data: T) {
    let body = Success {
        success: true,
        data,
        message: None,
        timestamp: START,
    };
    let body = serde_json::to_string(&body).unwrap();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length:";
    let answer = format!("{head} {}\r\n\r\n{body}", body.len());
    tcp.write_all(answer.as_bytes()).await.unwrap();
}

/// Refuses the next request, upgrade or not.
pub(crate) async fn turn_away(listener: &TcpListener, status: &str) {
    let (mut tcp, _) = within(listener.accept()).await.unwrap();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    tcp.write_all(answer.as_bytes()).await.unwrap();
}

pub(crate) fn ann() -> User {
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

pub(crate) fn ready(node: &str) -> Ready {
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

pub(crate) fn message(sender_id: UserId, id: MessageId, seq: i64) -> Message {
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

pub(crate) fn theirs(seq: i64) -> Message {
    message(OTHER, MessageId::from_uuid(Uuid::now_v7()), seq)
}

pub(crate) fn news(message: Message) -> ServerEvent {
    ServerEvent::MessageNew(MessageNew { message })
}

pub(crate) fn ack(message_id: MessageId, seq: i64) -> ServerEvent {
    ack_in(ROOM, message_id, seq)
}

pub(crate) fn ack_in(
    conversation_id: ConversationId,
    message_id: MessageId,
    seq: i64,
) -> ServerEvent {
    ServerEvent::MessageAck(MessageAck {
        reference: None,
        message_id,
        conversation_id,
        seq: Seq(seq),
        created_at: START,
        status: MessageStatus::Sent,
        duplicate: false,
    })
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) fn url_of(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

/// Of someone who has the room up to 4.
pub(crate) fn config(listeners: &[&TcpListener], refresh_token: Option<&str>) -> LiveConfig {
    let credentials = Credentials {
        access_token: "token".into(),
        refresh_token: refresh_token.map(Into::into),
    };
    let urls = listeners.iter().map(|listener| url_of(listener));
    LiveConfig {
        start: Start::Cursors(HashMap::from([(ROOM, Seq(4))])),
        ..LiveConfig::new(urls, credentials)
    }
}

pub(crate) async fn start() -> (TcpListener, Live) {
    start_with(None).await
}

pub(crate) async fn start_with(refresh_token: Option<&str>) -> (TcpListener, Live) {
    let listener = listen().await;
    let live = Live::start(config(&[&listener], refresh_token)).unwrap();
    (listener, live)
}

/// The next update, in a few words.
pub(crate) async fn next(live: &mut Live) -> String {
    match within(live.next()).await {
        None => "end".into(),
        Some(Update::Connected { node_id, .. }) => format!("connected {node_id}"),
        Some(Update::Synced { .. }) => "synced".into(),
        Some(Update::Message(message)) => format!("message {}", message.seq),
        Some(Update::Changed { cursor, message }) => format!("changed {} at {cursor}", message.seq),
        Some(Update::Cursor { seq, .. }) => format!("cursor {seq}"),
        Some(Update::Acked(ack)) => format!("acked {}", ack.seq),
        Some(Update::Failed { error, .. }) => format!("failed {}", error.code.as_str()),
        Some(Update::Reset(reset)) => format!("reset {}", reset.seq),
        Some(Update::EpochChanged { epoch }) => format!("epoch {epoch}"),
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

macro_rules! expect_next {
    ($live:expr, $($text:literal),+ $(,)?) => { $(assert_eq!(next($live).await, $text);)+ };
}
pub(crate) use expect_next;
