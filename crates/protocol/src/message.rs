//! Messages as clients see them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ConversationId, MessageId, Seq, Timestamp, UserId};

/// What kind of entry a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// Written by a person.
    Text,
    /// Written by the server: the group was made or renamed, a member came or went. `metadata`
    /// says which, see [`SystemNotice`]; `content` is an English sentence for simple clients.
    System,
}

/// How an entry of the log changed an earlier message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Edited,
    Deleted,
    ReactionAdded,
    ReactionRemoved,
}

/// The furthest that one's own message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageStatus {
    Sent,
    Delivered,
    Read,
}

/// One emoji on a message, and who put it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    pub emoji: String,
    /// The first 50 of them.
    pub user_ids: Vec<UserId>,
    /// All of them.
    pub count: i64,
}

/// A message as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub seq: Seq,
    /// Who wrote it; for `system` messages, who caused it.
    pub sender_id: UserId,
    pub kind: MessageKind,
    /// Empty once deleted.
    pub content: String,
    /// Passed on untouched, for instance sealed content.
    pub metadata: Option<Map<String, Value>>,
    pub created_at: Timestamp,
    pub edited_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub reply_to: Option<Seq>,
    pub mentions: Vec<UserId>,
    pub reactions: Vec<Reaction>,
    /// Set on one's own messages only.
    pub status: Option<MessageStatus>,
}

/// A message of text with nothing special about it, as nearly all are: without reply, mentions, metadata,
/// reactions or changes. What it has is all that there is of it.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a> {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub seq: Seq,
    pub sender_id: UserId,
    pub content: &'a str,
    pub created_at: Timestamp,
}

impl Message {
    /// `None` if there is anything more to it. By name, so that a field that is added later cannot be
    /// forgotten.
    #[must_use]
    pub fn plain(&self) -> Option<Plain<'_>> {
        let Self {
            message_id,
            conversation_id,
            seq,
            sender_id,
            kind: MessageKind::Text,
            content,
            metadata: None,
            created_at,
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            mentions,
            reactions,
            status: None,
        } = self
        else {
            return None;
        };
        (mentions.is_empty() && reactions.is_empty()).then_some(Plain {
            message_id: *message_id,
            conversation_id: *conversation_id,
            seq: *seq,
            sender_id: *sender_id,
            content,
            created_at: *created_at,
        })
    }
}

impl SystemNotice {
    /// What a message reports; `None` for other messages and for reports of later versions.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        if message.kind != MessageKind::System {
            return None;
        }
        serde_json::from_value(Value::Object(message.metadata.clone()?)).ok()
    }
}

/// What a `system` message reports; its `metadata` on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SystemNotice {
    GroupCreated,
    GroupUpdated {
        title: Option<String>,
        description: Option<String>,
    },
    MembersAdded {
        user_ids: Vec<UserId>,
    },
    MemberRemoved {
        user_id: UserId,
    },
    MemberLeft {
        user_id: UserId,
    },
    RoleChanged {
        user_id: UserId,
        role: crate::conversation::MemberRole,
    },
    GroupDeleted,
}
