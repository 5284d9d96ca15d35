//! Making and changing groups: all behind the lock of the group's head.

mod methods;

use rookery_protocol::conversation::MemberRole;
use rookery_protocol::message::{Message, MessageKind, SystemNotice};
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};

use super::conversations::fanout_mode;
use super::corrupt;
use crate::store::{
    FanoutState, GroupAction, GroupChange, GroupMember, NewGroup, Result, StoreError,
};

pub(in crate::store) use methods::groups;

pub(in crate::store) const INSERT_GROUP: &str = "insert into conversations \
    (conversation_id, kind, title, description, history_visible, created_by, created_at) \
    values ($1, 'group', $2, $3, $4, $5, $6) on conflict do nothing";

pub(in crate::store) const INSERT_HEAD: &str = "insert into conversation_heads \
    (conversation_id, last_seq, last_at, member_count, fanout_mode) values ($1, 1, $2, $3, $4)";

pub(in crate::store) const INSERT_OWNER: &str = "insert into members \
    (conversation_id, user_id, role, joined_at, joined_seq, delivered_seq, read_seq) \
    values ($1, $2, 'owner', $3, 0, 0, 0)";

pub(in crate::store) const CREATOR_OF: &str =
    "select kind, created_by from conversations where conversation_id = $1";

/// Behind it the row is locked: PostgreSQL adds `for update`, SQLite has one writer.
macro_rules! head {
    () => {
        "select last_seq, member_version, member_count, fanout_mode, fanout_changed_at \
         from conversation_heads \
         where conversation_id = $1"
    };
}
pub(in crate::store) use head;

pub(in crate::store) const GROUP: &str =
    "select kind, title, description from conversations where conversation_id = $1";

pub(in crate::store) const OWNER_COUNT: &str = "select count(*) from members \
    where conversation_id = $1 and left_seq is null and role = 'owner'";

pub(in crate::store) const PRESENT: &str =
    "select user_id from members where conversation_id = $1 and left_seq is null";

pub(in crate::store) const UPDATE_GROUP: &str = "update conversations set \
    title = case when $2 then $3 else title end, \
    description = case when $4 then $5 else description end \
    where conversation_id = $1";

pub(in crate::store) const END_MEMBERSHIP: &str = "update members set left_seq = $3 \
    where conversation_id = $1 and user_id = $2 and left_seq is null";

pub(in crate::store) const CHANGE_ROLE: &str = "update members set role = $3 \
    where conversation_id = $1 and user_id = $2 and left_seq is null";

pub(in crate::store) const DELETE_GROUP: &str =
    "update conversations set deleted_at = $2 where conversation_id = $1";

pub(in crate::store) const ADVANCE_HEAD: &str = "update conversation_heads set \
    last_seq = $2, last_at = $3, member_version = $4, member_count = $5, \
    fanout_mode = $6, fanout_changed_at = $7 \
    where conversation_id = $1";

/// Adds members to conversation `$1` at time `$2` with `joined_seq` `$3`; `$from` yields their ids
/// as `user_id`. A former member starts anew; a present one stays as it is.
macro_rules! add_members {
    ($from:literal) => {
        concat!(
            "insert into members (conversation_id, user_id, role, joined_at, joined_seq, \
                                  delivered_seq, read_seq) \
             select $1, user_id, 'member', $2, $3, $3, $3 from ",
            $from,
            " as added where true \
             on conflict (conversation_id, user_id) do update set \
                 role = excluded.role, joined_at = excluded.joined_at, \
                 joined_seq = excluded.joined_seq, left_seq = null, \
                 delivered_seq = excluded.delivered_seq, read_seq = excluded.read_seq, \
                 read_at = null \
             where members.left_seq is not null"
        )
    };
}

/// Present members of conversation `$1` among `$2`.
macro_rules! named_members {
    ($among:literal) => {
        concat!(
            "select m.user_id, u.username, m.role from members m \
             join users u on u.user_id = m.user_id \
             where m.conversation_id = $1 and m.left_seq is null and m.user_id ",
            $among
        )
    };
}

/// Accounts among `$2` that are not present members of conversation `$1`.
macro_rules! strangers {
    ($among:literal) => {
        concat!(
            "select u.user_id, u.username from users u \
             where u.deleted_at is null and u.user_id ",
            $among,
            " and not exists (select 1 from members m where m.conversation_id = $1 \
                              and m.user_id = u.user_id and m.left_seq is null)"
        )
    };
}
pub(in crate::store) use {add_members, named_members, strangers};

#[derive(sqlx::FromRow)]
pub(in crate::store) struct HeadRecord {
    pub(in crate::store) last_seq: Seq,
    pub(in crate::store) member_version: i64,
    pub(in crate::store) member_count: i64,
    fanout_mode: String,
    fanout_changed_at: Timestamp,
}

impl HeadRecord {
    pub(in crate::store) fn fanout(&self, id: ConversationId) -> Result<FanoutState> {
        Ok(FanoutState {
            mode: fanout_mode(id, &self.fanout_mode)?,
            changed_at: self.fanout_changed_at,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct GroupRecord {
    pub(in crate::store) kind: String,
    pub(in crate::store) title: Option<String>,
    pub(in crate::store) description: Option<String>,
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct NamedRecord {
    user_id: UserId,
    username: String,
    role: String,
}

impl TryFrom<NamedRecord> for GroupMember {
    type Error = StoreError;

    fn try_from(record: NamedRecord) -> Result<Self> {
        let role = MemberRole::parse(&record.role)
            .ok_or_else(|| corrupt("members", "role", record.user_id))?;
        Ok(Self {
            user_id: record.user_id,
            username: record.username,
            role,
        })
    }
}

/// The users an action is about.
pub(in crate::store) fn named(action: &GroupAction) -> &[UserId] {
    match action {
        GroupAction::AddMembers { user_ids } => user_ids,
        GroupAction::RemoveMember { user_id } | GroupAction::ChangeRole { user_id, .. } => {
            std::slice::from_ref(user_id)
        }
        GroupAction::Update { .. } | GroupAction::Delete => &[],
    }
}

/// Where in the log, when and by whom an entry of the server stands.
pub(in crate::store) struct Entry {
    pub(in crate::store) conversation_id: ConversationId,
    pub(in crate::store) seq: Seq,
    pub(in crate::store) message_id: MessageId,
    pub(in crate::store) sender_id: UserId,
    pub(in crate::store) at: Timestamp,
}

impl Entry {
    pub(in crate::store) fn first_of(group: &NewGroup, at: Timestamp) -> Self {
        Self {
            conversation_id: group.conversation_id,
            seq: Seq(1),
            message_id: group.message_id,
            sender_id: group.creator,
            at,
        }
    }

    pub(in crate::store) fn of(change: &GroupChange, seq: Seq, at: Timestamp) -> Self {
        Self {
            conversation_id: change.conversation_id,
            seq,
            message_id: change.message_id,
            sender_id: change.actor,
            at,
        }
    }

    /// The `system` message that reports `notice` here.
    pub(in crate::store) fn report(&self, notice: &SystemNotice, content: String) -> Message {
        // A notice is a tagged enum of plain fields: always an object.
        let metadata = match serde_json::to_value(notice) {
            Ok(serde_json::Value::Object(fields)) => Some(fields),
            _ => None,
        };
        Message {
            message_id: self.message_id,
            conversation_id: self.conversation_id,
            seq: self.seq,
            sender_id: self.sender_id,
            kind: MessageKind::System,
            content,
            metadata,
            created_at: self.at,
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            mentions: Vec::new(),
            reactions: Vec::new(),
            status: None,
        }
    }
}

/// The metadata column of a message.
pub(in crate::store) fn metadata_json(message: &Message) -> Option<String> {
    message
        .metadata
        .clone()
        .map(|fields| serde_json::Value::Object(fields).to_string())
}

/// What a change did to the list of members.
pub(in crate::store) struct Effect {
    /// The list or a role changed: a new version.
    pub(in crate::store) is_new_list: bool,
    pub(in crate::store) member_count: i64,
    pub(in crate::store) joined: Vec<UserId>,
    pub(in crate::store) removed: Vec<UserId>,
}
