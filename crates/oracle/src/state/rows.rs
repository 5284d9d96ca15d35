//! Reading the final state from PostgreSQL, by whatever can run a statement and hand back its rows
//! as lines of text: each row is one JSON object.

use rookery_protocol::message::SystemNotice;
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use serde::Deserialize;

use super::{EntryKind, FinalState, Stored};
use crate::event::Fingerprint;

macro_rules! messages {
    () => {
        "select json_build_object(\
         'conversation', conversation_id, 'seq', seq, 'message_id', message_id, \
         'sender', sender_id, 'kind', kind, 'of', target_seq, \
         'content', case when kind in ('text', 'system') and deleted_at is null \
                         then convert_from(content, 'UTF8') end, \
         'changed', edited_at is not null or deleted_at is not null, \
         'notice', case when kind = 'system' then metadata::json end) \
         from messages"
    };
}

macro_rules! memberships {
    () => {
        "select json_build_object(\
         'conversation', conversation_id, 'user', user_id, 'joined', joined_seq, \
         'left', left_seq, 'history_visible', history_visible, \
         'delivered', delivered_seq, 'read', read_seq) \
         from members join conversations using (conversation_id)"
    };
}

/// All logs, for [`FinalState::of_rows`].
pub const MESSAGES: &str = concat!(messages!(), " order by conversation_id, seq");

/// All memberships, for [`FinalState::of_rows`].
pub const MEMBERSHIPS: &str = memberships!();

/// The log of one conversation: all of them as text at once may be too much for the memory.
#[must_use]
pub fn messages_of(id: ConversationId) -> String {
    let all = messages!();
    format!("{all} where conversation_id = '{id}' order by seq")
}

/// The memberships of one conversation.
#[must_use]
pub fn memberships_of(id: ConversationId) -> String {
    format!("{MEMBERSHIPS} where conversation_id = '{id}'")
}

#[derive(Deserialize)]
struct Row {
    conversation: ConversationId,
    seq: Seq,
    message_id: MessageId,
    sender: UserId,
    kind: String,
    of: Option<Seq>,
    content: Option<String>,
    changed: bool,
    notice: Option<SystemNotice>,
}

impl FinalState {
    /// From the rows of [`MESSAGES`] and [`MEMBERSHIPS`], a line each.
    ///
    /// # Errors
    /// A line is no such row.
    pub fn of_rows(messages: &str, memberships: &str) -> Result<Self, serde_json::Error> {
        let rows = messages.lines().map(serde_json::from_str::<Row>);
        let members = memberships.lines().map(serde_json::from_str);
        Ok(Self {
            messages: rows
                .map(|row| row.map(Stored::from))
                .collect::<Result<_, _>>()?,
            memberships: members.collect::<Result<_, _>>()?,
            ..Self::default()
        })
    }
}

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        let content = row.content.as_deref().map(Fingerprint::of);
        Self {
            conversation: row.conversation,
            seq: row.seq,
            message_id: row.message_id,
            sender: row.sender,
            kind: EntryKind::of_column(&row.kind),
            of: row.of,
            content: content.unwrap_or(Fingerprint::EMPTY),
            changed: row.changed,
            notice: row.notice,
        }
    }
}
