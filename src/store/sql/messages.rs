//! Entries of logs.

use rookery_protocol::message::{Message, MessageKind};
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use uuid::Uuid;

use super::corrupt;
use crate::store::{Direction, Result, StoreError};

macro_rules! message_columns {
    () => {
        "conversation_id, seq, kind, message_id, sender_id, content, metadata, reply_to, mentions, \
         created_at, edited_at, deleted_at"
    };
}
pub(in crate::store) use message_columns;

pub(in crate::store) const ENTRIES: &str = concat!(
    "select ",
    message_columns!(),
    " from messages where conversation_id = $1 and seq > $2 and seq <= $3 order by seq limit $4"
);

/// A page of messages; `$order` is where it begins.
macro_rules! message_page {
    ($order:literal) => {
        concat!(
            "select ",
            message_columns!(),
            " from messages where conversation_id = $1 and seq > $2 and seq < $3 \
             and kind in ('text', 'system') order by seq ",
            $order,
            " limit $4"
        )
    };
}
pub(in crate::store) use message_page;

pub(in crate::store) const NEWEST: &str = message_page!("desc");
pub(in crate::store) const OLDEST: &str = message_page!("asc");

/// The entry of a send is written with its batch; this one writes entries of the server.
pub(in crate::store) const INSERT_SYSTEM: &str = "insert into messages \
    (conversation_id, seq, kind, message_id, sender_id, content, metadata, created_at) \
    values ($1, $2, 'system', $3, $4, $5, $6, $7)";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct MessageRecord {
    pub(in crate::store) conversation_id: ConversationId,
    pub(in crate::store) seq: Seq,
    pub(in crate::store) kind: String,
    pub(in crate::store) message_id: MessageId,
    pub(in crate::store) sender_id: UserId,
    pub(in crate::store) content: Vec<u8>,
    pub(in crate::store) metadata: Option<String>,
    pub(in crate::store) reply_to: Option<Seq>,
    pub(in crate::store) mentions: Option<Vec<u8>>,
    pub(in crate::store) created_at: Timestamp,
    pub(in crate::store) edited_at: Option<Timestamp>,
    pub(in crate::store) deleted_at: Option<Timestamp>,
}

impl TryFrom<MessageRecord> for Message {
    type Error = StoreError;

    fn try_from(record: MessageRecord) -> Result<Self> {
        let row = || format!("{} {}", record.conversation_id, record.seq);
        let kind = match record.kind.as_str() {
            "text" => MessageKind::Text,
            "system" => MessageKind::System,
            _ => return Err(corrupt("messages", "kind", row())),
        };
        let metadata = match &record.metadata {
            None => None,
            Some(json) => Some(
                serde_json::from_str(json).map_err(|_| corrupt("messages", "metadata", row()))?,
            ),
        };
        let mentions = unpack_mentions(record.mentions.as_deref().unwrap_or_default())
            .ok_or_else(|| corrupt("messages", "mentions", row()))?;
        let content = match String::from_utf8(record.content) {
            Ok(content) if record.deleted_at.is_none() => content,
            Ok(_) => String::new(),
            Err(_) => {
                let row = format!("{} {}", record.conversation_id, record.seq);
                return Err(corrupt("messages", "content", row));
            }
        };
        Ok(Self {
            message_id: record.message_id,
            conversation_id: record.conversation_id,
            seq: record.seq,
            sender_id: record.sender_id,
            kind,
            content,
            metadata,
            created_at: record.created_at,
            edited_at: record.edited_at,
            deleted_at: record.deleted_at,
            reply_to: record.reply_to,
            mentions,
            // No command writes reactions yet.
            reactions: Vec::new(),
            status: None,
        })
    }
}

/// The messages of a page, whichever end it was read from.
pub(in crate::store) fn ascending(
    mut records: Vec<MessageRecord>,
    read: Direction,
) -> Result<Vec<Message>> {
    if read == Direction::Backward {
        records.reverse();
    }
    records.into_iter().map(Message::try_from).collect()
}

/// The stored form of a list of mentioned users: 16 bytes each; none at all for an empty list.
pub(in crate::store) fn pack_mentions(mentions: &[UserId]) -> Option<Vec<u8>> {
    (!mentions.is_empty()).then(|| {
        mentions
            .iter()
            .flat_map(|user| user.as_bytes())
            .copied()
            .collect()
    })
}

fn unpack_mentions(packed: &[u8]) -> Option<Vec<UserId>> {
    let (ids, rest) = packed.as_chunks::<16>();
    rest.is_empty().then(|| {
        ids.iter()
            .map(|id| UserId::from_uuid(Uuid::from_bytes(*id)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentions_come_back_and_half_an_id_does_not() {
        let users: Vec<UserId> = (1..4)
            .map(|number| UserId::from_uuid(Uuid::from_u128(number)))
            .collect();
        let packed = pack_mentions(&users).unwrap();
        assert_eq!(unpack_mentions(&packed).unwrap(), users);
        assert_eq!(unpack_mentions(&packed[1..]), None);
        assert_eq!(pack_mentions(&[]), None);
    }
}
