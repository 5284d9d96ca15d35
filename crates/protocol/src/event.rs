//! What a server may say on a socket: one struct an event, one enum over them.
//!
//! Within version 1 things are only added: a client skips types and fields it does not know.

mod usual;

use serde::{Deserialize, Serialize};

use crate::codec::{EncodeError, Format, frames};
use crate::conversation::{Conversation, Member};
use crate::message::{Message, MessageStatus};
use crate::user::{PresenceStatus, User};
use crate::{ConversationId, ErrorCode, MessageId, Seq, SessionId, Timestamp, UserId};

frames! {
    /// A frame from the server, decoded.
    pub enum ServerEvent {
        "ready" => Ready(Ready),
        "auth.ok" => AuthOk(AuthOk),
        "message.ack" => MessageAck(MessageAck),
        "message.new" => MessageNew(MessageNew),
        "message.edited" => MessageEdited(MessageChanged),
        "message.deleted" => MessageDeleted(MessageChanged),
        "reaction.added" => ReactionAdded(MessageChanged),
        "reaction.removed" => ReactionRemoved(MessageChanged),
        "receipt.delivered" => ReceiptDelivered(Receipt),
        "receipt.read" => ReceiptRead(Receipt),
        "typing" => Typing(Typing),
        "presence" => Presence(Presence),
        "presence.state" => PresenceState(PresenceState),
        "sync.start" => SyncStart(SyncStart),
        "message.batch" => MessageBatch(MessageBatch),
        "sync.done" => SyncDone(SyncDone),
        "conversation.created" => ConversationCreated(ConversationChanged),
        "conversation.updated" => ConversationUpdated(ConversationChanged),
        "conversation.member_added" => MemberAdded(MemberChanged),
        "conversation.member_removed" => MemberRemoved(MemberChanged),
        "conversation.read" => ConversationRead(ConversationRead),
        "conversation.online" => ConversationOnline(ConversationOnline),
        "server.draining" => ServerDraining(ServerDraining),
        "ok" => Ok(Reply),
        "pong" => Pong(Reply),
        "error" => Error(ErrorEvent),
    }
}

impl ServerEvent {
    /// Encodes the event as a frame.
    ///
    /// # Errors
    /// As [`Format::encode`].
    pub fn encode(&self, format: Format) -> Result<Vec<u8>, EncodeError> {
        if format == Format::Json
            && let Some(json) = self.by_hand()
        {
            return Ok(json);
        }
        format.encode(self)
    }

    /// In JSON, for the most frequent events.
    fn by_hand(&self) -> Option<Vec<u8>> {
        match self {
            Self::MessageAck(ack) => usual::message_ack(ack),
            Self::MessageNew(new) => usual::message_new(new),
            _ => None,
        }
    }
}

/// The socket is authenticated and hears everything committed from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The `ref` of the `auth` frame, where there was one.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub user: User,
    pub session_id: SessionId,
    pub node_id: String,
    /// Changes when the database was set back: cursors from another epoch are worthless.
    pub epoch: String,
    pub server_time: Timestamp,
    pub heartbeat_seconds: u32,
    pub token_expires_at: Timestamp,
    pub limits: Limits,
}

/// What this server allows on one socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub frame_bytes: usize,
    pub content_chars: usize,
    pub in_flight: usize,
    pub presence_watch: usize,
}

/// The token of a live socket was renewed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthOk {
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub token_expires_at: Timestamp,
}

/// The message is stored for good. May overtake earlier messages of others; moves no cursor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageAck {
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub seq: Seq,
    pub created_at: Timestamp,
    pub status: MessageStatus,
    /// The message had been stored before, by an earlier attempt.
    pub duplicate: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageNew {
    pub message: Message,
}

/// An entry of the log that changed an earlier message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageChanged {
    pub conversation_id: ConversationId,
    /// This entry's place in the log; the message has its own.
    pub seq: Seq,
    /// Who changed it.
    pub by: UserId,
    /// The whole message as it is now.
    pub message: Message,
}

/// A member has everything up to `seq`, or has read it. Only grows: keep the highest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub seq: Seq,
    pub at: Timestamp,
}

/// Somebody is writing; forget it after 6 s without another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub active: bool,
}

/// How a user appears now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    pub user_id: UserId,
    pub status: PresenceStatus,
    /// Since when without a break; null while offline.
    pub online_since: Option<Timestamp>,
    /// When the user was last seen online; null if never, or while online.
    pub last_seen_at: Option<Timestamp>,
}

/// The answer to `presence.subscribe` and `presence.unsubscribe`: those asked for, as they appear
/// now. Who is left out is nobody one shares a conversation with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PresenceState {
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub users: Vec<Presence>,
}

/// How many members of a watched large group are online.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationOnline {
    pub conversation_id: ConversationId,
    pub online_count: i64,
}

/// A `sync` is about to replay `count` entries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncStart {
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub count: i64,
}

/// A part of one conversation's replay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageBatch {
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub conversation_id: ConversationId,
    /// New ones, in `seq` order, as they are now.
    pub messages: Vec<Message>,
    /// Older ones that changed, as they are now.
    pub changed: Vec<Message>,
    /// The conversation's new cursor.
    pub to_seq: Seq,
    /// Whether further batches of this conversation follow.
    pub more: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncDone {
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// Messages sent in the batches.
    pub count: i64,
    /// Too far behind to replay: live goes on from `seq`, what is older comes from history.
    pub reset: Vec<ResetCursor>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetCursor {
    pub conversation_id: ConversationId,
    pub seq: Seq,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConversationChanged {
    pub conversation_id: ConversationId,
    pub seq: Seq,
    pub conversation: Conversation,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberChanged {
    pub conversation_id: ConversationId,
    pub seq: Seq,
    pub member: Member,
}

/// Read on another device of one's own. Only grows: keep the highest `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationRead {
    pub conversation_id: ConversationId,
    /// Everything up to it is read.
    pub seq: Seq,
    pub at: Timestamp,
    /// The counts are of entries up to this one: what came after it counts on top.
    pub last_seq: Seq,
    pub unread_count: i64,
    pub mention_count: i64,
}

/// This node goes away: come back, to any node, after the hint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerDraining {
    pub reconnect_after_ms: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    #[serde(rename = "ref")]
    pub reference: Option<String>,
}

/// One request failed; the socket stays open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorEvent {
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub code: ErrorCode,
    pub message: String,
    pub retryable: bool,
    pub retry_after_ms: Option<u64>,
    pub details: Vec<ErrorDetail>,
    /// For a failed send, the message concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
}

/// Which field was refused, why, and what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    pub field: String,
    pub reason: String,
    pub allowed: Option<String>,
}

impl ErrorDetail {
    #[must_use]
    pub fn new(field: &str, reason: &str, allowed: &str) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            allowed: Some(allowed.into()),
        }
    }
}
