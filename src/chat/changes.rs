//! What changes a message: edits, deletions, reactions.
//!
//! Every change goes one way: the store locks the log's head, loads the message and the actor's
//! membership, asks [`rule::decide`], and writes what it does to the message together with the
//! entry that it is in the log; then it is published. So a change has a `seq` like a message, and
//! reaches every device by the same means.

mod rule;

use rookery_protocol::message::{Message, MessageStatus};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId, validate};
use tracing::field;

use super::mentions;
use super::messages::Messages;
use crate::clock::new_id;
use crate::error::AppError;
use crate::metrics;
use crate::store::{MessageAction, MessageChange, MessageChanged, Refusal, StoreError};
use crate::telemetry::MESSAGE;

impl Messages {
    /// Replaces the content of one's own message, and whom it mentions; what else it carries stays.
    /// Returns the message as it is now, as all methods here.
    ///
    /// # Errors
    /// `INVALID` content, `NOT_FOUND`, `FORBIDDEN` for another's, `CONFLICT` if it is deleted.
    pub async fn edit(
        &self,
        actor: UserId,
        id: ConversationId,
        seq: Seq,
        content: String,
    ) -> Result<Message, AppError> {
        validate::content(&content)?;
        let mentions = mentions::resolve(self.store.as_ref(), id, &content).await?;
        let action = MessageAction::Edit { content, mentions };
        self.change(actor, id, seq, action).await
    }

    /// Empties one's own message or, as an owner or admin of the group, anybody's. Repeating it
    /// changes nothing.
    ///
    /// # Errors
    /// `NOT_FOUND`, `FORBIDDEN`.
    pub async fn delete(
        &self,
        actor: UserId,
        id: ConversationId,
        seq: Seq,
    ) -> Result<Message, AppError> {
        self.change(actor, id, seq, MessageAction::Delete).await
    }

    /// Puts an emoji on a message; if it is there already, changes nothing.
    ///
    /// # Errors
    /// `INVALID` if it is not one emoji, `NOT_FOUND`, `CONFLICT` if the message is deleted or has
    /// too many different ones.
    pub async fn react(
        &self,
        actor: UserId,
        id: ConversationId,
        seq: Seq,
        emoji: &str,
    ) -> Result<Message, AppError> {
        let emoji = validate::emoji(emoji)?.to_owned();
        self.change(actor, id, seq, MessageAction::AddReaction { emoji })
            .await
    }

    /// Takes one's own emoji off again; if it is not there, changes nothing.
    ///
    /// # Errors
    /// `INVALID` if it is not one emoji, `NOT_FOUND`, `CONFLICT` if the message is deleted.
    pub async fn unreact(
        &self,
        actor: UserId,
        id: ConversationId,
        seq: Seq,
        emoji: &str,
    ) -> Result<Message, AppError> {
        let emoji = validate::emoji(emoji)?.to_owned();
        self.change(actor, id, seq, MessageAction::RemoveReaction { emoji })
            .await
    }

    /// Store first, then publish.
    async fn change(
        &self,
        actor: UserId,
        conversation_id: ConversationId,
        seq: Seq,
        action: MessageAction,
    ) -> Result<Message, AppError> {
        let change = MessageChange {
            conversation_id,
            seq,
            actor,
            message_id: MessageId::from_uuid(new_id()),
            action,
        };
        let outcome = self
            .store
            .change_message(&change, rule::decide, self.clock.now())
            .await;
        count(&outcome);
        let mut changed = outcome??;
        tracing::debug!(
            target: MESSAGE,
            message_id = %changed.message.message_id,
            conversation_id = %conversation_id,
            changed = %seq,
            seq = changed.entry.map(|entry| field::display(entry.seq)),
            by = %actor,
            "changed"
        );
        changed.message.status = Some(self.status(&changed.message).await);
        self.fanout.changed(&changed).await;
        let mut message = changed.message;
        message.status = message.status.filter(|_| message.sender_id == actor);
        Ok(message)
    }

    /// How far the message got, for its sender. The change is stored: that the others' marks cannot
    /// be read now makes it no failure.
    async fn status(&self, message: &Message) -> MessageStatus {
        let marks = self
            .store
            .furthest_marks(message.conversation_id, message.sender_id, message.seq)
            .await;
        match marks {
            Ok(marks) => marks.status(message.seq),
            Err(error) => {
                tracing::warn!(%error, "a changed message is told without its marks");
                MessageStatus::Sent
            }
        }
    }
}

fn count(outcome: &Result<Result<MessageChanged, Refusal>, StoreError>) {
    let results = metrics::message_changes_total();
    match outcome {
        Ok(Ok(changed)) if changed.entry.is_some() => &results.stored,
        Ok(Ok(_)) => &results.unchanged,
        Ok(Err(_)) => &results.refused,
        Err(_) => &results.unavailable,
    }
    .increment(1);
}
