//! What PostgreSQL holds in the end, as the oracle wants it.

use anyhow::{Context, Result};
use rookery_oracle::{EntryKind, FinalState, Fingerprint, Member, Stored};
use rookery_protocol::message::SystemNotice;
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::world::World;

/// A row of `messages`, as the query below writes it.
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

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        Self {
            conversation: row.conversation,
            seq: row.seq,
            message_id: row.message_id,
            sender: row.sender,
            kind: EntryKind::of_column(&row.kind),
            of: row.of,
            content: row
                .content
                .map_or(Fingerprint::EMPTY, |content| Fingerprint::of(&content)),
            changed: row.changed,
            notice: row.notice,
        }
    }
}

/// Reads it, a conversation at a time.
pub(crate) async fn read(world: &World) -> Result<FinalState> {
    let mut state = FinalState::default();
    for room in world.rooms.all() {
        let messages = format!(
            "select json_build_object('conversation', conversation_id, 'seq', seq, \
             'message_id', message_id, 'sender', sender_id, 'kind', kind, 'of', target_seq, \
             'content', case when kind in ('text', 'system') and deleted_at is null \
             then convert_from(content, 'UTF8') end, \
             'changed', edited_at is not null or deleted_at is not null, \
             'notice', case when kind = 'system' then metadata::json end) \
             from messages where conversation_id = '{room}' order by seq"
        );
        let messages: Vec<Row> = rows(world, &messages).await?;
        state
            .messages
            .extend(messages.into_iter().map(Stored::from));
        let members = format!(
            "select json_build_object('conversation', conversation_id, 'user', user_id, \
             'joined', joined_seq, 'left', left_seq, 'history_visible', history_visible, \
             'delivered', delivered_seq, 'read', read_seq) \
             from members join conversations using (conversation_id) \
             where conversation_id = '{room}'"
        );
        let members: Vec<Member> = rows(world, &members).await?;
        state.memberships.extend(members);
    }
    Ok(state)
}

async fn rows<T: DeserializeOwned>(world: &World, statement: &str) -> Result<Vec<T>> {
    let text = world.cluster.sql(statement).await;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a row: {line}")))
        .collect()
}
