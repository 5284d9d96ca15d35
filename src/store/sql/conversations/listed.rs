//! The list of conversations, and one of them as in the list.

use std::collections::HashMap;

use rookery_protocol::conversation::{Conversation, OwnMembership};
use rookery_protocol::message::{Message, MessageStatus};
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};

use super::super::messages::{self, MessageRecord, ReactionRecord};
use super::{kind, role};
use crate::store::{ListedConversation, Result, StoreError};

/// Conversations as user `$1` sees them. `$where` filters and orders the page before anything is
/// counted; `$mentions_me` tells whether `x.mentions` holds `$1`; `$shown` and `$as_l` make the look-up
/// between them, of the last entry that the list may show, a row `l`. Each place that names `messages`
/// has all parts of the log to plan and to set up, so there are few.
///
/// Counting stops at 999 and looks at the newest 5,000 entries at the most: someone who wrote the
/// last 5,000 entries without ever reading must not make the list slow. Nothing is looked for where
/// `last_seq` is read, as in most conversations of a list.
macro_rules! listed {
    ($where:literal, $mentions_me:literal, $shown:literal, $as_l:literal) => {
        concat!(
            "with page as (
                select m.conversation_id, c.kind, c.title, c.description, c.history_visible,
                       c.created_by, c.created_at, h.member_count, h.last_seq, h.last_at,
                       m.role, m.delivered_seq, m.read_seq, m.muted_until,
                       case when c.history_visible then 0 else m.joined_seq end as visible_from,
                       case when m.read_seq > h.last_seq - 5000 then m.read_seq
                            else h.last_seq - 5000 end as counted_from
                from members m
                join conversation_heads h on h.conversation_id = m.conversation_id
                join conversations c on c.conversation_id = m.conversation_id
                where m.user_id = $1 and m.left_seq is null and ",
            $where,
            "
            )
            select page.*,
                   case when page.read_seq >= page.last_seq then 0 else
                       (select count(*) from (
                            select 1 from messages x
                            where x.conversation_id = page.conversation_id
                              and x.seq > page.counted_from
                              and x.kind = 'text' and x.sender_id <> $1
                            limit 999) unread) end as unread_count,
                   case when page.read_seq >= page.last_seq then 0 else
                       (select count(*) from (
                            select 1 from messages x
                            where x.conversation_id = page.conversation_id
                              and x.seq > page.counted_from
                              and x.mentions is not null and x.deleted_at is null and ",
            $mentions_me,
            "
                              and x.kind = 'text' and x.sender_id <> $1
                            limit 999) mentioning) end as mention_count,
                   l.seq as shown_seq, l.kind as shown_kind, l.message_id as shown_message_id,
                   l.sender_id as shown_sender_id, l.content as shown_content,
                   l.metadata as shown_metadata, l.reply_to as shown_reply_to,
                   l.mentions as shown_mentions, l.created_at as shown_created_at,
                   l.edited_at as shown_edited_at, l.deleted_at as shown_deleted_at,
                   l.has_reactions as shown_has_reactions,
                   case when l.sender_id is null or l.sender_id <> $1 then null
                        when exists (select 1 from members o
                                     where o.conversation_id = page.conversation_id
                                       and o.user_id <> $1 and o.left_seq is null
                                       and o.read_seq >= l.seq
                                       and o.read_seq > o.joined_seq) then 'read'
                        when exists (select 1 from members o
                                     where o.conversation_id = page.conversation_id
                                       and o.user_id <> $1 and o.left_seq is null
                                       and o.delivered_seq >= l.seq
                                       and o.delivered_seq > o.joined_seq) then 'delivered'
                        else 'sent' end as shown_status
            from page
            left join ",
            $shown,
            "
                from messages x
                where x.conversation_id = page.conversation_id
                  and x.seq > page.visible_from and x.kind in ('text', 'system')
                order by x.seq desc limit 1
            ",
            $as_l,
            "
            order by page.last_at desc, page.conversation_id desc"
        )
    };
}

/// A page of the list: changed since `$2`, after (`$3`, `$4`), named like `$5`, at most `$6`.
macro_rules! conversations_of {
    ($mentions_me:literal, $shown:literal, $as_l:literal) => {
        $crate::store::sql::conversations::listed!(
            "(cast($2 as bigint) is null or h.last_at >= $2 or h.changed_at >= $2)
                  and (cast($3 as bigint) is null or (h.last_at, h.conversation_id) < ($3, $4))
                  and (cast($5 as text) is null
                       or lower(c.title) like lower($5) escape '\\'
                       or (c.kind = 'direct' and exists (
                            select 1 from members o join users u on u.user_id = o.user_id
                            where o.conversation_id = m.conversation_id and o.user_id <> $1
                              and (lower(u.username) like lower($5) escape '\\'
                                   or lower(u.full_name) like lower($5) escape '\\'))))
                order by h.last_at desc, h.conversation_id desc limit $6",
            $mentions_me,
            $shown,
            $as_l
        )
    };
}

/// The one conversation `$2`.
macro_rules! conversation_of {
    ($mentions_me:literal, $shown:literal, $as_l:literal) => {
        $crate::store::sql::conversations::listed!(
            "m.conversation_id = $2",
            $mentions_me,
            $shown,
            $as_l
        )
    };
}
pub(in crate::store) use {conversation_of, conversations_of, listed};

#[derive(sqlx::FromRow)]
pub(in crate::store) struct ListedRecord {
    conversation_id: ConversationId,
    kind: String,
    title: Option<String>,
    description: Option<String>,
    history_visible: bool,
    created_by: UserId,
    created_at: Timestamp,
    member_count: i64,
    last_seq: Seq,
    last_at: Timestamp,
    role: String,
    visible_from: Seq,
    delivered_seq: Seq,
    read_seq: Seq,
    muted_until: Option<Timestamp>,
    unread_count: i64,
    mention_count: i64,
    shown_seq: Option<Seq>,
    #[sqlx(flatten)]
    shown: ShownRecord,
}

/// The last message of a conversation; all null where there is none.
#[derive(sqlx::FromRow)]
struct ShownRecord {
    shown_kind: Option<String>,
    shown_message_id: Option<MessageId>,
    shown_sender_id: Option<UserId>,
    shown_content: Option<Vec<u8>>,
    shown_metadata: Option<String>,
    shown_reply_to: Option<Seq>,
    shown_mentions: Option<Vec<u8>>,
    shown_created_at: Option<Timestamp>,
    shown_edited_at: Option<Timestamp>,
    shown_deleted_at: Option<Timestamp>,
    shown_has_reactions: Option<bool>,
    /// How far one's own message got.
    shown_status: Option<String>,
}

impl ShownRecord {
    fn into_message(
        self,
        conversation_id: ConversationId,
        seq: Option<Seq>,
    ) -> Result<Option<Message>> {
        let (Some(seq), Some(kind), Some(message_id), Some(sender_id), Some(created_at)) = (
            seq,
            self.shown_kind,
            self.shown_message_id,
            self.shown_sender_id,
            self.shown_created_at,
        ) else {
            return Ok(None);
        };
        let record = MessageRecord {
            conversation_id,
            seq,
            kind,
            message_id,
            sender_id,
            content: self.shown_content.unwrap_or_default(),
            metadata: self.shown_metadata,
            reply_to: self.shown_reply_to,
            mentions: self.shown_mentions,
            created_at,
            edited_at: self.shown_edited_at,
            deleted_at: self.shown_deleted_at,
            has_reactions: self.shown_has_reactions.unwrap_or_default(),
            target_seq: None,
        };
        let status = match self.shown_status.as_deref() {
            Some("read") => Some(MessageStatus::Read),
            Some("delivered") => Some(MessageStatus::Delivered),
            Some(_) => Some(MessageStatus::Sent),
            None => None,
        };
        let message = Message::try_from(record)?;
        Ok(Some(Message { status, ..message }))
    }
}

impl TryFrom<ListedRecord> for ListedConversation {
    type Error = StoreError;

    fn try_from(record: ListedRecord) -> Result<Self> {
        let id = record.conversation_id;
        let conversation = Conversation {
            conversation_id: id,
            kind: kind(id, &record.kind)?,
            title: record.title,
            description: record.description,
            history_visible: record.history_visible,
            created_by: record.created_by,
            created_at: record.created_at,
            member_count: record.member_count,
            last_seq: record.last_seq,
            last_message: record.shown.into_message(id, record.shown_seq)?,
            unread_count: record.unread_count,
            mention_count: record.mention_count,
            me: OwnMembership {
                role: role(id, &record.role)?,
                joined_seq: record.visible_from,
                delivered_seq: record.delivered_seq,
                read_seq: record.read_seq,
                muted_until: record.muted_until,
            },
        };
        Ok(Self {
            conversation,
            last_at: record.last_at,
        })
    }
}

/// The last messages that have reactions, by conversation and `seq`.
pub(in crate::store) fn reacted(records: &[ListedRecord]) -> (Vec<ConversationId>, Vec<i64>) {
    let reacted = |record: &&ListedRecord| {
        record.shown.shown_has_reactions == Some(true) && record.shown.shown_deleted_at.is_none()
    };
    let place = |record: &ListedRecord| Some((record.conversation_id, record.shown_seq?.0));
    records.iter().filter(reacted).filter_map(place).unzip()
}

/// A reaction on the last message of one of many conversations.
#[derive(sqlx::FromRow)]
pub(in crate::store) struct ReactionOf {
    conversation_id: ConversationId,
    #[sqlx(flatten)]
    reaction: ReactionRecord,
}

/// Puts reactions on the last messages of conversations.
pub(in crate::store) fn put_reactions(
    listed: &mut [ListedConversation],
    reactions: Vec<ReactionOf>,
) {
    let mut by_conversation: HashMap<ConversationId, Vec<ReactionRecord>> = HashMap::new();
    for one in reactions {
        let of_it = by_conversation.entry(one.conversation_id).or_default();
        of_it.push(one.reaction);
    }
    for listed in listed {
        let conversation = &mut listed.conversation;
        if let Some(message) = &mut conversation.last_message
            && let Some(reactions) = by_conversation.remove(&conversation.conversation_id)
        {
            messages::put_reactions(std::slice::from_mut(message), reactions);
        }
    }
}
