//! What changes a stored message: the wish, what a rule may look at, and what became of it.

use rookery_protocol::conversation::{ConversationKind, MemberRole};
use rookery_protocol::message::{ChangeKind, Message};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};

use super::Refusal;

/// A wanted change of a message, checked for shape, not yet for permission.
#[derive(Clone, Debug)]
pub struct MessageChange {
    pub conversation_id: ConversationId,
    /// Of the message.
    pub seq: Seq,
    pub actor: UserId,
    /// Names the entry that the change becomes; made by the server.
    pub message_id: MessageId,
    pub action: MessageAction,
}

#[derive(Clone, Debug)]
pub enum MessageAction {
    Edit {
        content: String,
        /// Whom the new content mentions.
        mentions: Vec<UserId>,
    },
    /// Leaves the message where it is, empty.
    Delete,
    /// The actor's own; a set of (user, emoji).
    AddReaction {
        emoji: String,
    },
    RemoveReaction {
        emoji: String,
    },
}

impl MessageAction {
    #[must_use]
    pub const fn kind(&self) -> ChangeKind {
        match self {
            Self::Edit { .. } => ChangeKind::Edited,
            Self::Delete => ChangeKind::Deleted,
            Self::AddReaction { .. } => ChangeKind::ReactionAdded,
            Self::RemoveReaction { .. } => ChangeKind::ReactionRemoved,
        }
    }
}

/// What a [`MessageRule`] may look at; read behind the lock.
#[derive(Clone, Debug)]
pub struct MessageState {
    pub kind: ConversationKind,
    /// The actor, if a present member.
    pub actor: Option<MessageActor>,
    /// The message as it is now, also where the actor may not see it; `None` where the log has
    /// none at that `seq`.
    pub message: Option<Message>,
    /// Whether the actor's reaction with the action's emoji is on it.
    pub has_reacted: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct MessageActor {
    pub role: MemberRole,
    /// Sees entries beyond this one.
    pub visible_from: Seq,
    /// By the other one of a direct conversation.
    pub is_blocked: bool,
}

/// Decides on a change: whether there is anything to do.
pub type MessageRule = fn(&MessageState, &MessageChange) -> Result<bool, Refusal>;

/// What became of a change.
#[derive(Clone, Debug)]
pub struct MessageChanged {
    /// The message as it is now, without a status.
    pub message: Message,
    /// The entry that the change became; `None` if there was nothing to change.
    pub entry: Option<ChangeEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeEntry {
    /// Of the entry.
    pub seq: Seq,
    pub by: UserId,
    pub kind: ChangeKind,
    /// Version of the member list at this entry.
    pub member_version: i64,
    /// Some present member does not see the message, only the log behind it.
    pub windowed: bool,
}
