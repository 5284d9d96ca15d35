//! Conversations and their members as clients see them.

use serde::{Deserialize, Serialize};

use crate::message::Message;
use crate::{ConversationId, Seq, Timestamp, UserId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConversationKind {
    /// Two people; exists once for each pair.
    Direct,
    Group,
}

impl ConversationKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }

    /// The stored text of a kind, `None` when it is none of this version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "direct" => Some(Self::Direct),
            "group" => Some(Self::Group),
            _ => None,
        }
    }
}

/// What a member may do. Owners do everything; admins manage members and the title; the order is
/// that of power, so `a >= b` reads "may at least what b may".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    Member,
    Admin,
    Owner,
}

impl MemberRole {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The stored text of a role, `None` when it is none of this version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "member" => Some(Self::Member),
            "admin" => Some(Self::Admin),
            "owner" => Some(Self::Owner),
            _ => None,
        }
    }
}

/// The reader's own membership of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnMembership {
    pub role: MemberRole,
    /// Entries up to this one are not visible (0 where history is).
    pub joined_seq: Seq,
    pub delivered_seq: Seq,
    pub read_seq: Seq,
    pub muted_until: Option<Timestamp>,
}

/// A conversation as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub conversation_id: ConversationId,
    pub kind: ConversationKind,
    pub title: Option<String>,
    pub description: Option<String>,
    pub history_visible: bool,
    pub created_by: UserId,
    pub created_at: Timestamp,
    pub member_count: i64,
    pub last_seq: Seq,
    pub last_message: Option<Message>,
    /// Messages of others beyond the read mark; system messages never count; capped at 999.
    pub unread_count: i64,
    pub mention_count: i64,
    pub me: OwnMembership,
}

/// One member of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub user_id: UserId,
    pub username: String,
    pub full_name: Option<String>,
    pub role: MemberRole,
    pub joined_at: Timestamp,
    pub delivered_seq: Seq,
    pub read_seq: Seq,
}
