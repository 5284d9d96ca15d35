//! What the store holds in the end: read by the caller, once everything has come to rest.

pub mod rows;

use rookery_protocol::message::SystemNotice;
use rookery_protocol::user::PresenceStatus;
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use serde::{Deserialize, Serialize};

use crate::event::Fingerprint;

/// The truth to which histories are held. It must have everything of the conversations that recorded
/// devices take part in, from `seq` 1 on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FinalState {
    /// The present incarnation of the database. What devices did under another one is not judged.
    /// `None`: there was one only.
    pub epoch: Option<String>,
    /// The logs, entries of every kind.
    pub messages: Vec<Stored>,
    pub memberships: Vec<Member>,
    /// How users appear to those whom they do not block. Who is not named here is judged by what
    /// their devices recorded.
    #[serde(default)]
    pub presence: Vec<Appearance>,
    #[serde(default)]
    pub blocks: Vec<Block>,
}

/// A row of `messages`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    pub conversation: ConversationId,
    pub seq: Seq,
    pub message_id: MessageId,
    pub sender: UserId,
    pub kind: EntryKind,
    /// For a change, the message it is about (`target_seq`).
    #[serde(default)]
    pub of: Option<Seq>,
    /// Of what is shown now: [`Fingerprint::EMPTY`] once deleted, whatever the row holds.
    pub content: Fingerprint,
    /// What is shown is not what was sent: edited or deleted.
    #[serde(default)]
    pub changed: bool,
    /// What a `system` message reports (its `metadata`). With it for all of them, windows before a
    /// re-join are known.
    #[serde(default)]
    pub notice: Option<SystemNotice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    Text,
    System,
    /// An edit, a deletion or a reaction.
    Change,
}

impl EntryKind {
    /// From the column `kind` of a row.
    #[must_use]
    pub fn of_column(kind: &str) -> Self {
        match kind {
            "text" => Self::Text,
            "system" => Self::System,
            _ => Self::Change,
        }
    }
}

/// A row of `members`: the present or last membership of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub conversation: ConversationId,
    pub user: UserId,
    /// Entries after it are seen; all of them where the history is visible.
    pub joined: Seq,
    /// The last entry seen; `None` while present.
    pub left: Option<Seq>,
    pub history_visible: bool,
    pub delivered: Seq,
    pub read: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appearance {
    pub user: UserId,
    pub status: PresenceStatus,
}

/// Who is blocked sees the other one offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Block {
    pub user: UserId,
    pub blocked: UserId,
}
