//! Entries of logs.

use rookery_protocol::message::{ChangeKind, Message, MessageKind, Reaction};
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use uuid::Uuid;

use super::corrupt;
use crate::store::{Change, Direction, LogEntry, Result, StoreError};

macro_rules! message_columns {
    () => {
        "conversation_id, seq, kind, message_id, sender_id, content, metadata, reply_to, mentions, \
         created_at, edited_at, deleted_at, has_reactions, target_seq"
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

#[derive(Clone, sqlx::FromRow)]
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
    pub(in crate::store) has_reactions: bool,
    /// Of an entry that changed a message, that message.
    pub(in crate::store) target_seq: Option<Seq>,
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
        let content = String::from_utf8(record.content).map_err(|_| {
            corrupt(
                "messages",
                "content",
                format!("{} {}", record.conversation_id, record.seq),
            )
        })?;
        let message = Self {
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
            reactions: Vec::new(),
            status: None,
        };
        Ok(if message.deleted_at.is_some() {
            tombstone(message)
        } else {
            message
        })
    }
}

/// What is left of a deleted message: its place, its sender, and what it replied to.
pub(in crate::store) fn tombstone(message: Message) -> Message {
    Message {
        content: String::new(),
        metadata: None,
        mentions: Vec::new(),
        reactions: Vec::new(),
        ..message
    }
}

/// How an entry changed its message; `None` for kinds of a later release. Reactions are stored as
/// `+` or `-` and the emoji.
fn change_kind(record: &MessageRecord) -> Option<ChangeKind> {
    match (record.kind.as_str(), record.content.first()) {
        ("edit", _) => Some(ChangeKind::Edited),
        ("delete", _) => Some(ChangeKind::Deleted),
        ("reaction", Some(b'+')) => Some(ChangeKind::ReactionAdded),
        ("reaction", Some(b'-')) => Some(ChangeKind::ReactionRemoved),
        _ => None,
    }
}

/// The messages that a page of entries changed.
pub(in crate::store) fn targets(records: &[MessageRecord]) -> Vec<i64> {
    let mut targets: Vec<i64> = records
        .iter()
        .filter_map(|r| Some(r.target_seq?.0))
        .collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// The entries of a page; `changed` are the messages that they changed.
pub(in crate::store) fn log_entries(
    records: Vec<MessageRecord>,
    messages: Vec<Message>,
    changed: &[Message],
) -> Vec<LogEntry> {
    let mut messages = messages.into_iter().peekable();
    let entry = |record: MessageRecord| {
        let seq = record.seq;
        if let Some(message) = messages.next_if(|message| message.seq == seq) {
            return LogEntry::Message(message);
        }
        let target = changed.iter().find(|m| Some(m.seq) == record.target_seq);
        match (change_kind(&record), target) {
            (Some(kind), Some(message)) => LogEntry::Change(Change {
                seq,
                by: record.sender_id,
                kind,
                message: message.clone(),
            }),
            _ => LogEntry::Blank { seq },
        }
    };
    records.into_iter().map(entry).collect()
}

/// Whether a record is a message, and not a change of one or of a later release.
pub(in crate::store) fn is_message(record: &MessageRecord) -> bool {
    matches!(record.kind.as_str(), "text" | "system")
}

/// The reactions on messages `$2` of conversation `$1`: of each emoji the first users, and how many
/// there are; the emoji that came first comes first.
macro_rules! reactions_on {
    ($among:literal) => {
        concat!(
            "select seq, emoji, user_id, count from (
                select seq, emoji, user_id, created_at,
                       row_number() over (partition by seq, emoji
                                          order by created_at, user_id) as place,
                       count(*) over (partition by seq, emoji) as count,
                       min(created_at) over (partition by seq, emoji) as first_at
                from reactions where conversation_id = $1 and seq ",
            $among,
            ") r where place <= 50 order by seq, first_at, emoji, place"
        )
    };
}

/// The reactions on messages of many conversations, as [`reactions_on`] reads them of one; `$from`
/// yields them as `r`, each at most once.
macro_rules! reactions_of {
    ($from:literal) => {
        concat!(
            "select conversation_id, seq, emoji, user_id, count from (
                select r.conversation_id, r.seq, r.emoji, r.user_id,
                       row_number() over (partition by r.conversation_id, r.seq, r.emoji
                                          order by r.created_at, r.user_id) as place,
                       count(*) over (partition by r.conversation_id, r.seq, r.emoji) as count,
                       min(r.created_at) over (partition by r.conversation_id, r.seq, r.emoji)
                           as first_at
                from ",
            $from,
            ") shown where place <= 50 order by conversation_id, seq, first_at, emoji, place"
        )
    };
}

/// The messages `$2` of conversation `$1`.
macro_rules! messages_among {
    ($among:literal) => {
        concat!(
            "select ",
            $crate::store::sql::messages::message_columns!(),
            " from messages where conversation_id = $1 and kind in ('text', 'system') and seq ",
            $among,
            " order by seq"
        )
    };
}
pub(in crate::store) use {messages_among, reactions_of, reactions_on};

#[derive(sqlx::FromRow)]
pub(in crate::store) struct ReactionRecord {
    pub(in crate::store) seq: Seq,
    emoji: String,
    user_id: UserId,
    count: i64,
}

/// Puts reactions, as [`reactions_on`] orders them, on their messages, which are ascending.
pub(in crate::store) fn put_reactions(messages: &mut [Message], records: Vec<ReactionRecord>) {
    for record in records {
        let Ok(at) = messages.binary_search_by_key(&record.seq, |message| message.seq) else {
            continue;
        };
        let reactions = &mut messages[at].reactions;
        match reactions.last_mut() {
            Some(last) if last.emoji == record.emoji => last.user_ids.push(record.user_id),
            _ => reactions.push(Reaction {
                emoji: record.emoji,
                user_ids: vec![record.user_id],
                count: record.count,
            }),
        }
    }
}

/// Reading of logs: entries, and messages with their reactions; needs `MESSAGES_AMONG` and
/// `REACTIONS_ON`.
macro_rules! message_reads {
    ($store:ty) => {
        /// The messages of records in ascending order, with their reactions.
        async fn with_reactions(
            store: &$store,
            id: ConversationId,
            records: Vec<MessageRecord>,
        ) -> Result<Vec<Message>> {
            let reacted: Vec<i64> = records
                .iter()
                .filter(|record| record.has_reactions && record.deleted_at.is_none())
                .map(|record| record.seq.0)
                .collect();
            let mut messages = records
                .into_iter()
                .map(Message::try_from)
                .collect::<Result<Vec<_>>>()?;
            if !reacted.is_empty() {
                let reactions = sqlx::query_as(REACTIONS_ON)
                    .bind(id)
                    .bind(super::numbers(&reacted))
                    .fetch_all(store.reader())
                    .await?;
                sql::put_reactions(&mut messages, reactions);
            }
            Ok(messages)
        }

        async fn read_entries(
            store: &$store,
            id: ConversationId,
            (after, to): (Seq, Seq),
            limit: i64,
        ) -> Result<Vec<LogEntry>> {
            let records: Vec<MessageRecord> = sqlx::query_as(sql::ENTRIES)
                .bind(id)
                .bind(after)
                .bind(to)
                .bind(limit)
                .fetch_all(store.reader())
                .await?;
            entries_of_log(store, id, records).await
        }

        /// The entries that records of one log are, with the messages that they changed.
        async fn entries_of_log(
            store: &$store,
            id: ConversationId,
            records: Vec<MessageRecord>,
        ) -> Result<Vec<LogEntry>> {
            let own = records.iter().filter(|record| sql::is_message(record));
            let messages = with_reactions(store, id, own.cloned().collect()).await?;
            let targets = sql::targets(&records);
            let changed = if targets.is_empty() {
                Vec::new()
            } else {
                let changed: Vec<MessageRecord> = sqlx::query_as(MESSAGES_AMONG)
                    .bind(id)
                    .bind(super::numbers(&targets))
                    .fetch_all(store.reader())
                    .await?;
                with_reactions(store, id, changed).await?
            };
            Ok(sql::log_entries(records, messages, &changed))
        }
    };
}
pub(in crate::store) use message_reads;

/// The records of a page, whichever end it was read from.
pub(in crate::store) fn ascending(
    mut records: Vec<MessageRecord>,
    read: Direction,
) -> Vec<MessageRecord> {
    if read == Direction::Backward {
        records.reverse();
    }
    records
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

pub(in crate::store) fn unpack_mentions(packed: &[u8]) -> Option<Vec<UserId>> {
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
