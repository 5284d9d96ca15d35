//! Who may change what of a message. Pure: the store calls it behind the lock of the log's head.
//!
//! | | its author | owner or admin of the group | another member |
//! |---|---|---|---|
//! | edit | yes | no | no |
//! | delete | yes | yes | no |
//! | react, take one's own reaction off | yes | yes | yes |
//!
//! Everybody else, and members who joined after it without seeing the history, are told that there
//! is no such message. `system` messages stay as they are. A deleted message takes neither edits
//! nor reactions. Whom the other one of a direct conversation blocks may take back what was said,
//! not say more.

use rookery_protocol::conversation::{ConversationKind, MemberRole};
use rookery_protocol::limits;
use rookery_protocol::message::{Message, MessageKind};

use crate::store::{MessageAction, MessageActor, MessageChange, MessageState, Refusal};

/// `Ok(false)`: there is nothing to change.
type Decision = Result<bool, Refusal>;

const BLOCKED: Refusal = Refusal::Forbidden("this user does not take messages from you");
const DELETED: Refusal = Refusal::Conflict("this message is deleted");

// Part of a message for clients, so that it cannot be out of step with the limit.
const _: () = assert!(limits::EMOJIS_PER_MESSAGE == 50);
const TOO_MANY_EMOJIS: Refusal = Refusal::Conflict("a message has at most 50 different emojis");

/// Decides on a change; a [`crate::store::MessageRule`].
pub(super) fn decide(state: &MessageState, change: &MessageChange) -> Decision {
    let Some(actor) = state.actor else {
        return Err(Refusal::NotFound);
    };
    let seen = |message: &&Message| message.seq > actor.visible_from;
    let Some(message) = state.message.as_ref().filter(seen) else {
        return Err(Refusal::NotFound);
    };
    if message.kind == MessageKind::System {
        return Err(Refusal::Forbidden("messages of the server do not change"));
    }
    let is_author = message.sender_id == change.actor;
    match &change.action {
        MessageAction::Edit { content, .. } => edit(message, actor, is_author, content),
        MessageAction::Delete => delete(state, message, actor, is_author),
        MessageAction::AddReaction { emoji } => add(state, message, actor, emoji),
        MessageAction::RemoveReaction { .. } => remove(state, message),
    }
}

fn edit(message: &Message, actor: MessageActor, is_author: bool, content: &str) -> Decision {
    if !is_author {
        return Err(Refusal::Forbidden("only its author may edit a message"));
    }
    if message.deleted_at.is_some() {
        return Err(DELETED);
    }
    if actor.is_blocked {
        return Err(BLOCKED);
    }
    Ok(message.content != content)
}

fn delete(
    state: &MessageState,
    message: &Message,
    actor: MessageActor,
    is_author: bool,
) -> Decision {
    let moderates = state.kind == ConversationKind::Group && actor.role >= MemberRole::Admin;
    if !is_author && !moderates {
        return Err(Refusal::Forbidden(
            "only its author, and owners and admins of the group, may delete a message",
        ));
    }
    Ok(message.deleted_at.is_none())
}

fn add(state: &MessageState, message: &Message, actor: MessageActor, emoji: &str) -> Decision {
    if message.deleted_at.is_some() {
        return Err(DELETED);
    }
    if actor.is_blocked {
        return Err(BLOCKED);
    }
    let reactions = &message.reactions;
    let is_new = reactions.iter().all(|reaction| reaction.emoji != emoji);
    if is_new && reactions.len() >= limits::EMOJIS_PER_MESSAGE {
        return Err(TOO_MANY_EMOJIS);
    }
    Ok(!state.has_reacted)
}

fn remove(state: &MessageState, message: &Message) -> Decision {
    if message.deleted_at.is_some() {
        return Err(DELETED);
    }
    Ok(state.has_reacted)
}

#[cfg(test)]
mod tests;
