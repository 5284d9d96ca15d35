//! What a client may ask on a socket: one struct a command, one enum over them.
//!
//! Every command may carry a `ref` (at most 64 bytes); its answer carries the same.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::codec::frames;
use crate::user::ChosenStatus;
use crate::{ConversationId, MessageId, Seq, Timestamp, UserId};

frames! {
    /// A frame from a client, decoded.
    pub enum ClientCommand {
        "auth" => Auth(Auth),
        "message.send" => MessageSend(MessageSend),
        "message.edit" => MessageEdit(MessageEdit),
        "message.delete" => MessageDelete(MessageDelete),
        "reaction.add" => ReactionAdd(ReactionChange),
        "reaction.remove" => ReactionRemove(ReactionChange),
        "message.delivered" => MessageDelivered(Mark),
        "message.read" => MessageRead(Mark),
        "typing" => Typing(Typing),
        "sync" => Sync(Sync),
        "presence.subscribe" => PresenceSubscribe(PresenceWatch),
        "presence.unsubscribe" => PresenceUnsubscribe(PresenceWatch),
        "presence.set" => PresenceSet(PresenceSet),
        "conversation.watch" => ConversationWatch(Watch),
        "conversation.unwatch" => ConversationUnwatch(Watch),
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
            Self::MessageEdit(c) => c.reference.as_deref(),
            Self::MessageDelete(c) => c.reference.as_deref(),
            Self::ReactionAdd(c) | Self::ReactionRemove(c) => c.reference.as_deref(),
            Self::MessageDelivered(c) | Self::MessageRead(c) => c.reference.as_deref(),
            Self::Typing(c) => c.reference.as_deref(),
            Self::PresenceSubscribe(c) | Self::PresenceUnsubscribe(c) => c.reference.as_deref(),
            Self::PresenceSet(c) => c.reference.as_deref(),
            Self::ConversationWatch(c) | Self::ConversationUnwatch(c) => c.reference.as_deref(),
            Self::Sync(c) => c.reference.as_deref(),
            Self::Ping(c) => c.reference.as_deref(),
        }
    }
}

/// The first frame of a socket that came without a token, or a renewal on a live one.
#[derive(Clone, Default, Serialize, Deserialize)]
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

/// Replaces the content of one's own message; answered by `ok`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageEdit {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub conversation_id: ConversationId,
    /// Of the message.
    pub seq: Seq,
    pub content: String,
}

/// Deletes one's own message, or, as an owner or admin of the group, anybody's; answered by `ok`.
/// The message stays where it is, empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageDelete {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub conversation_id: ConversationId,
    /// Of the message.
    pub seq: Seq,
}

/// Puts an emoji on a message, or takes one's own off again; answered by `ok`. Reactions are a set
/// of (user, emoji): adding what is there, or removing what is not, changes nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReactionChange {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub conversation_id: ConversationId,
    /// Of the message.
    pub seq: Seq,
    /// One emoji of at most 32 bytes.
    pub emoji: String,
}

/// The user began or ceased to type. Not stored, and the first to be dropped under load; repeat it
/// every few seconds while it lasts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Typing {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub conversation_id: ConversationId,
    pub active: bool,
}

/// Watches the presence of these users, or ceases to; answered by `presence.state`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PresenceWatch {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// People one shares a conversation with; one socket watches at most 200.
    pub user_ids: Vec<UserId>,
}

/// How one wants to appear to others, on all devices, until it is set again; answered by `ok`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PresenceSet {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub status: ChosenStatus,
}

/// Asks for what large groups do not send to everybody: typing, receipts and the number of members
/// online; or ceases to. Answered by `ok`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watch {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub conversation_id: ConversationId,
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
    /// The server's time when this device last heard from it: read marks that other devices of the
    /// user set since are told with `conversation.read`. Without it only those of conversations
    /// that are replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ping {
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}
