//! Messages: sending, changing and history.

use rookery_protocol::message::Message;
use rookery_protocol::rest::{EditMessage, History, SendMessage};
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

    /// Replaces the content of one's own message; returns it as it is now, as the methods below.
    ///
    /// # Errors
    /// `FORBIDDEN`: another's; `CONFLICT`: it is deleted; `NOT_FOUND`; `INVALID`.
    pub async fn edit_message(
        &self,
        conversation: ConversationId,
        seq: Seq,
        content: &str,
    ) -> Result<Message, ApiError> {
        let body = EditMessage {
            content: content.to_owned(),
        };
        self.patch(&message_path(conversation, seq), &body).await
    }

    /// Deletes one's own message or, as an owner or admin of the group, anybody's. It keeps its
    /// place, empty.
    ///
    /// # Errors
    /// `FORBIDDEN`; `NOT_FOUND`.
    pub async fn delete_message(
        &self,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<Message, ApiError> {
        self.act(Method::DELETE, &message_path(conversation, seq))
            .await
    }

    /// Puts an emoji on a message; once, however often it is asked for.
    ///
    /// # Errors
    /// `INVALID`: not one emoji; `CONFLICT`: the message is deleted, or has too many different ones;
    /// `NOT_FOUND`.
    pub async fn react(
        &self,
        conversation: ConversationId,
        seq: Seq,
        emoji: &str,
    ) -> Result<Message, ApiError> {
        self.act(Method::PUT, &reaction_path(conversation, seq, emoji))
            .await
    }

    /// Takes one's own emoji off a message.
    ///
    /// # Errors
    /// As [`Api::react`].
    pub async fn unreact(
        &self,
        conversation: ConversationId,
        seq: Seq,
        emoji: &str,
    ) -> Result<Message, ApiError> {
        self.act(Method::DELETE, &reaction_path(conversation, seq, emoji))
            .await
    }

    async fn act(&self, method: Method, path: &str) -> Result<Message, ApiError> {
        let answer = self.call::<(), Message>(method, path, &[], None).await?;
        Ok(answer.data)
    }
}

fn message_path(conversation: ConversationId, seq: Seq) -> String {
    format!("/conversations/{conversation}/messages/{seq}")
}

fn reaction_path(conversation: ConversationId, seq: Seq, emoji: &str) -> String {
    let mut path = message_path(conversation, seq) + "/reactions/";
    for byte in emoji.bytes() {
        path.push_str(&format!("%{byte:02X}"));
    }
    path
}

#[cfg(test)]
mod tests {
    use rookery_protocol::ConversationId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_emoji_is_one_segment_of_a_path_whatever_is_in_it() {
        let id = ConversationId::from_uuid(Uuid::nil());
        let path = reaction_path(id, Seq(7), "#\u{fe0f}/");
        assert!(
            path.ends_with("/messages/7/reactions/%23%EF%B8%8F%2F"),
            "{path}"
        );
    }
}
