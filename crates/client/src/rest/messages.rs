//! Messages: sending and history.

use rookery_protocol::message::Message;
use rookery_protocol::rest::{History, SendMessage};
use rookery_protocol::{ConversationId, MessageId, Seq};

use super::{Api, ApiError, Method};

/// Which part of a conversation's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    #[default]
    Newest,
    /// The newest ones before this entry.
    Before(Seq),
    /// The oldest ones after this entry.
    After(Seq),
}

/// A message that is stored.
#[derive(Clone, Debug)]
pub struct Sent {
    pub message: Message,
    /// An earlier attempt with the same `message_id` had stored it.
    pub duplicate: bool,
}

impl Api {
    /// Sends a message. After a failure without an answer, repeat it with the same `message_id`.
    ///
    /// # Errors
    /// `NOT_FOUND`: no member; `CONFLICT`: the `message_id` was used otherwise; `INVALID`;
    /// `UNAVAILABLE`: repeat it.
    pub async fn send_message(
        &self,
        conversation: ConversationId,
        message: &SendMessage,
    ) -> Result<Sent, ApiError> {
        let path = format!("/conversations/{conversation}/messages");
        let answer = self.call(Method::POST, &path, &[], Some(message)).await?;
        Ok(Sent {
            message: answer.data,
            duplicate: answer.status == 200,
        })
    }

    /// Sends plain text under a new `message_id`.
    ///
    /// # Errors
    /// As [`Api::send_message`].
    pub async fn send_text(
        &self,
        conversation: ConversationId,
        content: &str,
    ) -> Result<Message, ApiError> {
        let message = SendMessage {
            message_id: MessageId::from_uuid(uuid::Uuid::now_v7()),
            content: content.to_owned(),
            reply_to: None,
            metadata: None,
        };
        Ok(self.send_message(conversation, &message).await?.message)
    }

    /// A page of history, ascending; `limit` at most 200.
    ///
    /// # Errors
    /// `NOT_FOUND`, also where one is no member; `INVALID`.
    pub async fn history(
        &self,
        conversation: ConversationId,
        span: Span,
        limit: usize,
    ) -> Result<History, ApiError> {
        let mut query = vec![("limit", limit.to_string())];
        match span {
            Span::Newest => {}
            Span::Before(seq) => query.push(("before_seq", seq.to_string())),
            Span::After(seq) => query.push(("after_seq", seq.to_string())),
        }
        self.get(&format!("/conversations/{conversation}/messages"), &query)
            .await
    }
}
