//! Sending through a [`Live`](super::Live).

use std::sync::Arc;

use rookery_protocol::command::MessageSend;
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use serde_json::{Map, Value};

use super::inbox::Inbox;
use crate::ClientCommand;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Conversation(ConversationId),
    /// The direct conversation with this user, made if new.
    User(UserId),
}

/// A message to be sent. Its `message_id` is what makes repeating it harmless.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub message_id: MessageId,
    pub to: To,
    pub content: String,
    pub reply_to: Option<Seq>,
    pub metadata: Option<Map<String, Value>>,
}

impl Outgoing {
    /// Text for a conversation, under a new `message_id`.
    #[must_use]
    pub fn to_conversation(conversation: ConversationId, content: &str) -> Self {
        Self::new(To::Conversation(conversation), content)
    }

    /// Text for a person, under a new `message_id`.
    #[must_use]
    pub fn to_user(user: UserId, content: &str) -> Self {
        Self::new(To::User(user), content)
    }

    fn new(to: To, content: &str) -> Self {
        let message_id = MessageId::from_uuid(uuid::Uuid::now_v7());
        Self {
            message_id,
            to,
            content: content.to_owned(),
            reply_to: None,
            metadata: None,
        }
    }

    pub(super) fn into_send(self) -> MessageSend {
        let (conversation_id, recipient_id) = match self.to {
            To::Conversation(id) => (Some(id), None),
            To::User(id) => (None, Some(id)),
        };
        MessageSend {
            // Lets every error find its message.
            reference: Some(self.message_id.to_string()),
            message_id: self.message_id,
            content: self.content,
            conversation_id,
            recipient_id,
            reply_to: self.reply_to,
            metadata: self.metadata,
        }
    }
}

/// The task has ended: stopped, or its [`Live`](super::Live) was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection was ended for good")]
pub struct Ended;

/// A message that was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    #[error("the connection was ended for good")]
    Ended,
    /// The outbox is full, and the application does not read its updates: waiting for room could
    /// last for ever. Read some, then send the message that is handed back.
    #[error("the outbox is full, and updates wait to be read")]
    Full(Box<Outgoing>),
}

/// Sends through a [`Live`](super::Live). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: Arc<Inbox>,
}

impl Handle {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Puts a message into the outbox; waits while that is full, but never for an application that
    /// does not read its updates. [`Update::Acked`](super::Update::Acked) or
    /// [`Update::Failed`](super::Update::Failed) will name the returned id. Safe to cancel: then
    /// the message is not sent.
    ///
    /// # Errors
    /// [`SendError`]; the message was not sent.
    pub async fn send(&self, message: Outgoing) -> Result<MessageId, SendError> {
        self.inbox.push(message).await
    }

    /// Confirms that everything up to `seq` has been delivered. Never waits: marks are merged.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn delivered(&self, conversation: ConversationId, seq: Seq) -> Result<(), Ended> {
        self.inbox.mark(conversation, seq, false)
    }

    /// Says that everything up to `seq` has been read. Never waits: marks are merged.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn read(&self, conversation: ConversationId, seq: Seq) -> Result<(), Ended> {
        self.inbox.mark(conversation, seq, true)
    }

    /// Sends any other command if there is a connection, once; otherwise, or behind too many
    /// others, drops it. For what is worthless later, such as typing. Never waits.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn command(&self, command: ClientCommand) -> Result<(), Ended> {
        self.inbox.command(command)
    }

    /// How many sends are neither acknowledged nor refused yet.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.inbox.lock().outbox.len()
    }
}
