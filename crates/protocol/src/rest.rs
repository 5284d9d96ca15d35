//! Bodies of the REST interface under `/api/v1`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::conversation::MemberRole;
use crate::event::ErrorDetail;
use crate::message::{Message, MessageStatus};
use crate::user::User;
use crate::{ConversationId, ErrorCode, MessageId, Seq, SessionId, Timestamp, UserId};

/// Every success: the data in an envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Success<T> {
    /// Always true.
    pub success: bool,
    pub data: T,
    pub message: Option<String>,
    pub timestamp: Timestamp,
}

/// Every failure: an error in an envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Always false.
    pub success: bool,
    pub error: ErrorBody,
    pub timestamp: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub code: ErrorCode,
    pub message: String,
    pub details: Vec<ErrorDetail>,
    /// How long to wait before the same request may succeed; as the `Retry-After` header, finer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// One page of a list; `next_cursor` is opaque, null on the last page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Register {
    pub username: String,
    pub email: String,
    pub password: String,
    #[serde(default)]
    pub full_name: Option<String>,
    #[serde(default)]
    pub device_name: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    /// Username or e-mail address.
    pub login: String,
    pub password: String,
    #[serde(default)]
    pub device_name: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Refresh {
    pub refresh_token: String,
}

/// The answer to register, login and refresh.
#[derive(Clone, Serialize, Deserialize)]
pub struct Tokens {
    pub user: User,
    pub access_token: String,
    pub refresh_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds until the access token runs out.
    pub expires_in: i64,
}

/// One log-in of one's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    pub session_id: SessionId,
    pub device_name: Option<String>,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub created_at: Timestamp,
    pub last_used_at: Timestamp,
    pub expires_at: Timestamp,
    /// Whether this is the session the request came with.
    pub current: bool,
}

/// Changes to one's own profile: absent leaves, null clears.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UpdateProfile {
    #[serde(
        default,
        with = "absent_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub full_name: Option<Option<String>>,
    #[serde(
        default,
        with = "absent_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub avatar_url: Option<Option<String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum CreateConversation {
    Direct {
        user_id: UserId,
    },
    Group {
        /// Made by the client, it makes the call repeatable.
        #[serde(default)]
        conversation_id: Option<ConversationId>,
        #[serde(default)]
        title: Option<String>,
        #[serde(default)]
        description: Option<String>,
        #[serde(default)]
        history_visible: Option<bool>,
        #[serde(default)]
        member_ids: Vec<UserId>,
    },
}

/// Changes to a group: absent leaves, null clears.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UpdateConversation {
    #[serde(
        default,
        with = "absent_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub title: Option<Option<String>>,
    #[serde(
        default,
        with = "absent_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub description: Option<Option<String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddMembers {
    pub user_ids: Vec<UserId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeRole {
    pub role: MemberRole,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MarkRead {
    pub seq: Seq,
}

/// Many marks at once: `POST /receipts/read` and `/receipts/delivered`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marks {
    pub marks: Vec<BulkMark>,
}

/// Everything up to `seq`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BulkMark {
    pub conversation_id: ConversationId,
    pub seq: Seq,
}

/// How far the members of a conversation are with one message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageReceipt {
    pub user_id: UserId,
    pub username: String,
    pub full_name: Option<String>,
    /// `delivered`, `read`, or `sent` while the member has not got it.
    pub status: MessageStatus,
    /// When the member's read mark moved last; null while it is before the message.
    pub read_at: Option<Timestamp>,
}

/// Changes to one's own settings of a conversation: absent leaves, null clears.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UpdateMembership {
    #[serde(
        default,
        with = "absent_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub muted_until: Option<Option<Timestamp>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EditMessage {
    pub content: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendMessage {
    pub message_id: MessageId,
    pub content: String,
    #[serde(default)]
    pub reply_to: Option<Seq>,
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

/// A page of history, ascending by `seq`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    pub items: Vec<Message>,
    /// Whether there is more in the direction that was asked for.
    pub has_more: bool,
    /// Those who appear in the page.
    pub users: Vec<User>,
}

/// Tells an absent field (`None`) from null (`Some(None)`).
mod absent_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer, T: Serialize>(
        value: &Option<Option<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value
            .as_ref()
            .and_then(Option::as_ref)
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::<T>::deserialize(deserializer).map(Some)
    }
}
