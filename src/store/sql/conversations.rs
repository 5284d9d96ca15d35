//! Conversations and memberships.

mod listed;
mod methods;
pub(in crate::store) mod views;

use rookery_protocol::conversation::{ConversationKind, Member, MemberRole};
use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};

use super::corrupt;
use crate::store::{FanoutMode, FanoutState, LogEnd, MemberList, Membership, Result, StoreError};

pub(in crate::store) use listed::{
    ListedRecord, conversation_of, conversations_of, listed, put_reactions, reacted,
};
pub(in crate::store) use methods::conversation_store;

/// Memberships with their conversations' heads; `$from` yields the rows of `members`, as `m`.
macro_rules! membership {
    () => {
        membership!("members m")
    };
    ($from:literal) => {
        concat!(
            "select m.conversation_id, m.user_id, c.kind, m.role, m.joined_seq, \
                    c.history_visible, m.left_seq, m.delivered_seq, m.read_seq, h.last_seq, \
                    h.fanout_mode \
             from ",
            $from,
            " join conversations c on c.conversation_id = m.conversation_id \
             join conversation_heads h on h.conversation_id = m.conversation_id "
        )
    };
}

macro_rules! member {
    () => {
        "select m.user_id, u.username, u.full_name, m.role, m.joined_at, m.delivered_seq, \
                m.read_seq \
         from members m join users u on u.user_id = m.user_id \
         where m.conversation_id = $1 "
    };
}

macro_rules! member_list {
    () => {
        "select h.conversation_id, h.member_version, h.fanout_mode, h.fanout_changed_at, \
                m.user_id, m.blocked_at \
         from conversation_heads h \
         left join members m on m.conversation_id = h.conversation_id and m.left_seq is null \
         where h.conversation_id "
    };
}

/// Present members of conversation `$1` with these usernames, which are folded. By look-ups from the
/// names, however many members there are.
macro_rules! members_named {
    ($among:literal) => {
        concat!(
            "select u.username, u.user_id from users u \
             where u.deleted_at is null and lower(u.username) ",
            $among,
            " and (select m.left_seq is null from members m \
                   where m.conversation_id = $1 and m.user_id = u.user_id)"
        )
    };
}

/// The ends of the logs of these users' present conversations. Most are told directly, and of those
/// no text is sent.
macro_rules! ends_of {
    ($among:literal) => {
        concat!(
            "select m.user_id, m.conversation_id, h.last_seq, nullif(h.fanout_mode, 'direct') \
             from members m join conversation_heads h on h.conversation_id = m.conversation_id \
             where m.left_seq is null and m.user_id ",
            $among
        )
    };
}
pub(in crate::store) use {ends_of, member, member_list, members_named, membership};

pub(in crate::store) const MEMBERSHIP: &str = concat!(
    membership!(),
    "where m.user_id = $1 and m.conversation_id = $2"
);

pub(in crate::store) const MEMBERS: &str = concat!(
    member!(),
    "and m.left_seq is null and m.user_id > $2 order by m.user_id limit $3"
);

pub(in crate::store) const DIRECT_EXISTS: &str = "select exists \
    (select 1 from conversations where conversation_id = $1 and deleted_at is null)";

pub(in crate::store) const ACCOUNTS_OF_PAIR: &str =
    "select count(*) from users where user_id in ($1, $2) and deleted_at is null";

pub(in crate::store) const INSERT_DIRECT: &str = "insert into conversations \
    (conversation_id, kind, created_by, created_at) values ($1, 'direct', $2, $3) \
    on conflict do nothing";

pub(in crate::store) const INSERT_DIRECT_HEAD: &str = "insert into conversation_heads \
    (conversation_id, last_at, member_count) values ($1, $2, 2)";

pub(in crate::store) const INSERT_PAIR: &str = "insert into members \
    (conversation_id, user_id, role, joined_at, joined_seq, delivered_seq, read_seq) \
    values ($1, $2, 'member', $4, 0, 0, 0), ($1, $3, 'member', $4, 0, 0, 0)";

/// A deleted direct conversation comes back with its log; both see what they saw before.
pub(in crate::store) const REVIVE_DIRECT: &str = "update conversations set deleted_at = null where conversation_id = $1 and deleted_at is not null";

pub(in crate::store) const REVIVE_PAIR: &str =
    "update members set left_seq = null where conversation_id = $1";

pub(in crate::store) const REVIVE_HEAD: &str = "update conversation_heads set \
    member_version = member_version + 1, member_count = 2, last_at = $2 where conversation_id = $1";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct MembershipRecord {
    conversation_id: ConversationId,
    user_id: UserId,
    kind: String,
    role: String,
    joined_seq: Seq,
    history_visible: bool,
    left_seq: Option<Seq>,
    delivered_seq: Seq,
    read_seq: Seq,
    last_seq: Seq,
    fanout_mode: String,
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = StoreError;

    fn try_from(record: MembershipRecord) -> Result<Self> {
        let visible_from = if record.history_visible {
            Seq::ZERO
        } else {
            record.joined_seq
        };
        Ok(Self {
            conversation_id: record.conversation_id,
            user_id: record.user_id,
            kind: kind(record.conversation_id, &record.kind)?,
            role: role(record.conversation_id, &record.role)?,
            joined_seq: record.joined_seq,
            visible_from,
            left_seq: record.left_seq,
            delivered_seq: record.delivered_seq,
            read_seq: record.read_seq,
            last_seq: record.last_seq,
            fanout: fanout_mode(record.conversation_id, &record.fanout_mode)?,
        })
    }
}

/// A tuple: its columns are found by their places, which is cheaper than by their names.
pub(in crate::store) type EndRecord = (UserId, ConversationId, Seq, Option<String>);

pub(in crate::store) fn end(record: EndRecord) -> Result<LogEnd> {
    let (user_id, conversation_id, last_seq, mode) = record;
    Ok(LogEnd {
        user_id,
        conversation_id,
        last_seq,
        fanout: match mode {
            None => FanoutMode::Direct,
            Some(text) => fanout_mode(conversation_id, &text)?,
        },
    })
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct MemberRecord {
    user_id: UserId,
    username: String,
    full_name: Option<String>,
    role: String,
    joined_at: Timestamp,
    delivered_seq: Seq,
    read_seq: Seq,
}

impl TryFrom<MemberRecord> for Member {
    type Error = StoreError;

    fn try_from(record: MemberRecord) -> Result<Self> {
        let role = MemberRole::parse(&record.role)
            .ok_or_else(|| corrupt("members", "role", record.user_id))?;
        Ok(Self {
            user_id: record.user_id,
            username: record.username,
            full_name: record.full_name,
            role,
            joined_at: record.joined_at,
            delivered_seq: record.delivered_seq,
            read_seq: record.read_seq,
        })
    }
}

/// One present member, or none where the list is empty; one conversation's rows stand together.
#[derive(sqlx::FromRow)]
pub(in crate::store) struct MemberListRecord {
    conversation_id: ConversationId,
    member_version: i64,
    fanout_mode: String,
    fanout_changed_at: Timestamp,
    user_id: Option<UserId>,
    blocked_at: Option<Timestamp>,
}

pub(in crate::store) fn group_members(records: Vec<MemberListRecord>) -> Result<Vec<MemberList>> {
    let mut lists: Vec<MemberList> = Vec::new();
    for record in records {
        let conversation_id = record.conversation_id;
        if lists
            .last()
            .is_none_or(|list| list.conversation_id != conversation_id)
        {
            let fanout = FanoutState {
                mode: fanout_mode(conversation_id, &record.fanout_mode)?,
                changed_at: record.fanout_changed_at,
            };
            lists.push(MemberList {
                conversation_id,
                version: record.member_version,
                user_ids: Vec::new(),
                blocked: Vec::new(),
                fanout,
            });
        }
        if let Some(list) = lists.last_mut() {
            list.user_ids.extend(record.user_id);
            if record.blocked_at.is_some() {
                list.blocked.extend(record.user_id);
            }
        }
    }
    Ok(lists)
}

pub(in crate::store) fn fanout_mode(id: ConversationId, text: &str) -> Result<FanoutMode> {
    FanoutMode::parse(text).ok_or_else(|| corrupt("conversation_heads", "fanout_mode", id))
}

pub(in crate::store) fn kind(id: ConversationId, text: &str) -> Result<ConversationKind> {
    ConversationKind::parse(text).ok_or_else(|| corrupt("conversations", "kind", id))
}

pub(in crate::store) fn role(id: ConversationId, text: &str) -> Result<MemberRole> {
    MemberRole::parse(text).ok_or_else(|| corrupt("members", "role", id))
}
