//! Delivered and read marks, and what is derived from them.

use rookery_protocol::message::MessageStatus;
use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    Delivered,
    /// Implies `Delivered`.
    Read,
}

/// A wish: everything up to `seq` was delivered to, or read by, this user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkRaise {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub kind: MarkKind,
    pub seq: Seq,
}

/// The marks of one member that grew, with what has to be known to tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarksGrown {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub delivered: Seq,
    pub read: Seq,
    /// As they were; may be older than the very last values where two nodes write at a time.
    pub delivered_before: Seq,
    pub read_before: Seq,
    /// False for somebody who has left, of whom nobody is told.
    pub present: bool,
    /// The log's end.
    pub last_seq: Seq,
    pub member_count: i64,
    pub member_version: i64,
}

/// How far the furthest of the other present members of a conversation are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FurthestMarks {
    pub delivered: Seq,
    pub read: Seq,
}

impl FurthestMarks {
    /// How far one's own message at `seq` got.
    #[must_use]
    pub fn status(self, seq: Seq) -> MessageStatus {
        if seq <= self.read {
            MessageStatus::Read
        } else if seq <= self.delivered {
            MessageStatus::Delivered
        } else {
            MessageStatus::Sent
        }
    }
}

/// A part of a log: `after < seq <= to`.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub conversation_id: ConversationId,
    pub after: Seq,
    pub to: Seq,
}

/// A member's read mark with what is unread behind it, all of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMark {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub seq: Seq,
    pub at: Timestamp,
    /// The log's end: the counts are of entries up to here.
    pub last_seq: Seq,
    pub unread_count: i64,
    pub mention_count: i64,
}

/// How far another member has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OthersRead {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub read_seq: Seq,
    pub read_at: Timestamp,
}

/// Which of a user's own read marks a device has to be told.
#[derive(Clone, Copy, Debug)]
pub struct OwnReads<'a> {
    pub user_id: UserId,
    /// Those set at or after this time,
    pub since: Option<Timestamp>,
    /// and those of these conversations.
    pub among: &'a [ConversationId],
    /// Continue after this conversation.
    pub after: Option<ConversationId>,
    pub limit: i64,
}
