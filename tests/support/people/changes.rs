//! What a device asks for beside sends, and what it hears of changed messages.

use rookery_protocol::command::{ClientCommand, MessageDelete, MessageEdit, ReactionChange};
use rookery_protocol::event::{ErrorEvent, MessageChanged, ServerEvent};
use rookery_protocol::{ConversationId, Seq};

use super::record::change_of;
use super::{Device, new_message_id};

impl Device {
    /// Sends a command, made with the `ref` it gets, and waits for `ok`.
    ///
    /// # Errors
    /// The server refuses it.
    ///
    /// # Panics
    /// It is not answered.
    pub async fn ask(
        &self,
        command: impl FnOnce(Option<String>) -> ClientCommand,
    ) -> Result<(), ErrorEvent> {
        let reference = Some(new_message_id().to_string());
        let command = command(reference.clone());
        let what = format!("an answer to {command:?}");
        self.command(command);
        self.expect(&what, |event| match event {
            ServerEvent::Ok(ok) if ok.reference == reference => Some(Ok(())),
            ServerEvent::Error(error) if error.reference == reference => Some(Err(error.clone())),
            _ => None,
        })
        .await
    }

    /// Edits a message.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn edit(
        &self,
        conversation_id: ConversationId,
        seq: Seq,
        content: &str,
    ) -> Result<(), ErrorEvent> {
        self.ask(|reference| {
            ClientCommand::MessageEdit(MessageEdit {
                reference,
                conversation_id,
                seq,
                content: content.to_owned(),
            })
        })
        .await
    }

    /// Deletes a message.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn delete(
        &self,
        conversation_id: ConversationId,
        seq: Seq,
    ) -> Result<(), ErrorEvent> {
        self.ask(|reference| {
            ClientCommand::MessageDelete(MessageDelete {
                reference,
                conversation_id,
                seq,
            })
        })
        .await
    }

    /// Puts an emoji on a message, or takes it off.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn react(
        &self,
        conversation_id: ConversationId,
        seq: Seq,
        emoji: &str,
        is_there: bool,
    ) -> Result<(), ErrorEvent> {
        self.ask(|reference| {
            let change = ReactionChange {
                reference,
                conversation_id,
                seq,
                emoji: emoji.to_owned(),
            };
            if is_there {
                ClientCommand::ReactionAdd(change)
            } else {
                ClientCommand::ReactionRemove(change)
            }
        })
        .await
    }

    /// Waits for the entry at `seq`, which changes a message, on the present connection.
    ///
    /// # Panics
    /// It does not come.
    pub async fn expect_change(&self, id: ConversationId, seq: Seq) -> MessageChanged {
        let is_it = |change: &&MessageChanged| change.conversation_id == id && change.seq == seq;
        self.expect(&format!("change {seq} of {id}"), |event| {
            change_of(event).filter(is_it).cloned()
        })
        .await
    }
}
