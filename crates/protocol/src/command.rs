//! What a client may ask on a socket: one struct a command, one enum over them.
//!
//! Every command may carry a `ref` (at most 64 bytes); its answer carries the same.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::codec::frames;
use crate::{ConversationId, MessageId, Seq, UserId};

frames! {
    /// A frame from a client, decoded.
    pub enum ClientCommand {
        "auth" => Auth(Auth),
        "message.send" => MessageSend(MessageSend),
        "message.delivered" => MessageDelivered(Mark),
        "message.read" => MessageRead(Mark),
        "sync" => Sync(Sync),
        "ping" => Ping(Ping),
    }
}

impl ClientCommand {
    /// The request's `ref`, if it has one.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::Auth(c) => c.reference.as_deref(),
            Self::MessageSend(c) => c.reference.as_deref(),
            Self::MessageDelivered(c) | Self::MessageRead(c) => c.reference.as_deref(),
            Self::Sync(c) => c.reference.as_deref(),
            Self::Ping(c) => c.reference.as_deref(),
        }
    }
}

/// The first frame of a socket that came without a token, or a renewal on a live one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Auth {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub token: String,
    /// Hold back what happens in conversations until the first `sync` is answered.
    #[serde(default)]
    pub resume: bool,
}

/// Sends a message; answered by `message.ack` once it is stored. Repeating it with the same
/// `message_id` stores nothing again and is acked with the first `seq`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageSend {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub message_id: MessageId,
    pub content: String,
    /// Exactly one of `conversation_id` and `recipient_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    /// The direct conversation with this user, made if new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_id: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Seq>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// Everything up to `seq` was delivered to, or read by, this user. Backwards is ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub conversation_id: ConversationId,
    pub seq: Seq,
}

/// Asks for everything missed: past `cursors`, or, without them, past what any device of this user
/// has confirmed as delivered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sync {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursors: Option<HashMap<ConversationId, Seq>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ping {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}
