//! Conversations and memberships.

use rookery_protocol::conversation::{
    Conversation, ConversationKind, Member, MemberRole, OwnMembership,
};
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};

use super::corrupt;
use super::messages::MessageRecord;
use crate::store::{ListedConversation, MemberList, Membership, Result, StoreError};

/// Conversations as user `$1` sees them. `$where` filters and orders the page before anything is
/// counted; `$mentions_me` tells whether `x.mentions` holds `$1`.
///
/// Counting stops at 999 and looks at the newest 5,000 entries at the most: someone who wrote the
/// last 5,000 entries without ever reading must not make the list slow.
macro_rules! listed {
    ($where:literal, $mentions_me:literal) => {
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
            ), counted as (
                select page.*,
                       (select count(*) from (
                            select 1 from messages x
                            where x.conversation_id = page.conversation_id
                              and x.seq > page.counted_from
                              and x.kind = 'text' and x.sender_id <> $1
                            limit 999) unread) as unread_count,
                       (select count(*) from (
                            select 1 from messages x
                            where x.conversation_id = page.conversation_id
                              and x.seq > page.counted_from
                              and x.mentions is not null and ",
            $mentions_me,
            "
                              and x.kind = 'text' and x.sender_id <> $1
                            limit 999) mentioning) as mention_count,
                       (select x.seq from messages x
                        where x.conversation_id = page.conversation_id
                          and x.seq > page.visible_from and x.kind in ('text', 'system')
                        order by x.seq desc limit 1) as shown_seq
                from page
            )
            select counted.*,
                   l.kind as shown_kind, l.message_id as shown_message_id,
                   l.sender_id as shown_sender_id, l.content as shown_content,
                   l.metadata as shown_metadata, l.reply_to as shown_reply_to,
                   l.mentions as shown_mentions, l.created_at as shown_created_at,
                   l.edited_at as shown_edited_at, l.deleted_at as shown_deleted_at
            from counted
            left join messages l
              on l.conversation_id = counted.conversation_id and l.seq = counted.shown_seq
            order by counted.last_at desc, counted.conversation_id desc"
        )
    };
}

/// A page of the list: changed since `$2`, after (`$3`, `$4`), named like `$5`, at most `$6`.
macro_rules! conversations_of {
    ($mentions_me:literal) => {
        $crate::store::sql::conversations::listed!(
            "(cast($2 as bigint) is null or h.last_at >= $2)
                  and (cast($3 as bigint) is null or (h.last_at, h.conversation_id) < ($3, $4))
                  and (cast($5 as text) is null
                       or lower(c.title) like $5 escape '\\'
                       or (c.kind = 'direct' and exists (
                            select 1 from members o join users u on u.user_id = o.user_id
                            where o.conversation_id = m.conversation_id and o.user_id <> $1
                              and (lower(u.username) like $5 escape '\\'
                                   or lower(u.full_name) like $5 escape '\\'))))
                order by h.last_at desc, h.conversation_id desc limit $6",
            $mentions_me
        )
    };
}

/// The one conversation `$2`.
macro_rules! conversation_of {
    ($mentions_me:literal) => {
        $crate::store::sql::conversations::listed!("m.conversation_id = $2", $mentions_me)
    };
}
pub(in crate::store) use {conversation_of, conversations_of, listed};

macro_rules! membership {
    () => {
        "select m.conversation_id, m.user_id, c.kind, m.role, m.joined_seq, c.history_visible, \
                m.left_seq, m.delivered_seq, m.read_seq, h.last_seq \
         from members m \
         join conversations c on c.conversation_id = m.conversation_id \
         join conversation_heads h on h.conversation_id = m.conversation_id "
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
        "select h.conversation_id, h.member_version, m.user_id \
         from conversation_heads h \
         left join members m on m.conversation_id = h.conversation_id and m.left_seq is null \
         where h.conversation_id "
    };
}
pub(in crate::store) use {member, member_list, membership};

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
        };
        Message::try_from(record).map(Some)
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
        })
    }
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
    user_id: Option<UserId>,
}

pub(in crate::store) fn group_members(records: Vec<MemberListRecord>) -> Vec<MemberList> {
    let mut lists: Vec<MemberList> = Vec::new();
    for record in records {
        let conversation_id = record.conversation_id;
        if lists
            .last()
            .is_none_or(|list| list.conversation_id != conversation_id)
        {
            let version = record.member_version;
            lists.push(MemberList {
                conversation_id,
                version,
                user_ids: Vec::new(),
            });
        }
        if let Some(list) = lists.last_mut() {
            list.user_ids.extend(record.user_id);
        }
    }
    lists
}

pub(in crate::store) fn kind(id: ConversationId, text: &str) -> Result<ConversationKind> {
    ConversationKind::parse(text).ok_or_else(|| corrupt("conversations", "kind", id))
}

fn role(id: ConversationId, text: &str) -> Result<MemberRole> {
    MemberRole::parse(text).ok_or_else(|| corrupt("members", "role", id))
}

/// Implements `ConversationStore`; needs `CONVERSATIONS_OF`, `CONVERSATION_OF`, `MEMBERSHIPS_OF`,
/// `PRESENT_MEMBERSHIPS_OF`, `MEMBERSHIPS_IN`, `MEMBERS_BY_ID`, `MEMBER_LISTS` and `raise_marks`.
macro_rules! conversation_store {
    ($store:ty) => {
        use async_trait::async_trait;
        use rookery_protocol::conversation::{Conversation, Member};
        use rookery_protocol::{ConversationId, Timestamp, UserId};
        use uuid::Uuid;

        use super::groups;
        use $crate::store::sql::conversations::{
            self as sql, ListedRecord, MemberListRecord, MemberRecord, MembershipRecord,
        };
        use $crate::store::sql::journal::{self, INSERT as INSERT_JOURNAL};
        use $crate::store::sql::{contains_pattern, detached};
        use $crate::store::{
            ConversationFilter, ConversationStore, DirectConversation, GroupChange, GroupChanged,
            GroupCreated, GroupRule, JournalRow, ListedConversation, MarkRaise, MemberList,
            Membership, NewGroup, Refusal, Result,
        };

        #[async_trait]
        impl ConversationStore for $store {
            async fn ensure_direct(
                &self,
                creator: UserId,
                other: UserId,
                at: Timestamp,
            ) -> Result<Option<DirectConversation>> {
                let conversation_id = ConversationId::direct(creator, other);
                let exists: bool = sqlx::query_scalar(sql::DIRECT_EXISTS)
                    .bind(conversation_id)
                    .fetch_one(self.reader())
                    .await?;
                if exists {
                    return Ok(Some(DirectConversation {
                        conversation_id,
                        created: false,
                    }));
                }
                let store = self.clone();
                detached(async move { make_direct(&store, creator, other, at).await }).await
            }

            async fn create_group(
                &self,
                group: &NewGroup,
                at: Timestamp,
            ) -> Result<std::result::Result<GroupCreated, Refusal>> {
                let (store, group) = (self.clone(), group.clone());
                detached(async move { groups::create(&store, &group, at).await }).await
            }

            async fn change_group(
                &self,
                change: &GroupChange,
                rule: GroupRule,
                at: Timestamp,
            ) -> Result<std::result::Result<Option<GroupChanged>, Refusal>> {
                let (store, change) = (self.clone(), change.clone());
                detached(async move { groups::change(&store, &change, rule, at).await }).await
            }

            async fn conversations_of(
                &self,
                user: UserId,
                filter: &ConversationFilter,
            ) -> Result<Vec<ListedConversation>> {
                let records: Vec<ListedRecord> = sqlx::query_as(CONVERSATIONS_OF)
                    .bind(user)
                    .bind(filter.changed_since)
                    .bind(filter.before.map(|(at, _)| at))
                    .bind(filter.before.map(|(_, id)| id))
                    .bind(filter.query.as_deref().map(contains_pattern))
                    .bind(filter.limit)
                    .fetch_all(self.reader())
                    .await?;
                records
                    .into_iter()
                    .map(ListedConversation::try_from)
                    .collect()
            }

            async fn conversation(
                &self,
                user: UserId,
                id: ConversationId,
            ) -> Result<Option<Conversation>> {
                let record: Option<ListedRecord> = sqlx::query_as(CONVERSATION_OF)
                    .bind(user)
                    .bind(id)
                    .fetch_optional(self.reader())
                    .await?;
                let listed = record.map(ListedConversation::try_from).transpose()?;
                Ok(listed.map(|listed| listed.conversation))
            }

            async fn membership(
                &self,
                user: UserId,
                id: ConversationId,
            ) -> Result<Option<Membership>> {
                let record: Option<MembershipRecord> = sqlx::query_as(sql::MEMBERSHIP)
                    .bind(user)
                    .bind(id)
                    .fetch_optional(self.reader())
                    .await?;
                record.map(Membership::try_from).transpose()
            }

            async fn memberships_of(
                &self,
                users: &[UserId],
                and_past: bool,
            ) -> Result<Vec<Membership>> {
                let statement = if and_past {
                    MEMBERSHIPS_OF
                } else {
                    PRESENT_MEMBERSHIPS_OF
                };
                let records: Vec<MembershipRecord> = sqlx::query_as(statement)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Membership::try_from).collect()
            }

            async fn memberships_in(
                &self,
                id: ConversationId,
                users: &[UserId],
            ) -> Result<Vec<Membership>> {
                let records: Vec<MembershipRecord> = sqlx::query_as(MEMBERSHIPS_IN)
                    .bind(id)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Membership::try_from).collect()
            }

            async fn members(
                &self,
                id: ConversationId,
                after: Option<UserId>,
                limit: i64,
            ) -> Result<Vec<Member>> {
                let records: Vec<MemberRecord> = sqlx::query_as(sql::MEMBERS)
                    .bind(id)
                    // No account has the nil id: all come after it.
                    .bind(after.unwrap_or(UserId::from_uuid(Uuid::nil())))
                    .bind(limit)
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Member::try_from).collect()
            }

            async fn members_by_id(
                &self,
                id: ConversationId,
                users: &[UserId],
            ) -> Result<Vec<Member>> {
                let records: Vec<MemberRecord> = sqlx::query_as(MEMBERS_BY_ID)
                    .bind(id)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Member::try_from).collect()
            }

            async fn member_lists(&self, ids: &[ConversationId]) -> Result<Vec<MemberList>> {
                let records: Vec<MemberListRecord> = sqlx::query_as(MEMBER_LISTS)
                    .bind(super::list(ids.iter().map(ConversationId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                Ok(sql::group_members(records))
            }

            async fn raise_marks(&self, marks: &[MarkRaise], at: Timestamp) -> Result<()> {
                if marks.is_empty() {
                    return Ok(());
                }
                raise_marks(self, marks, at).await
            }
        }

        async fn make_direct(
            store: &$store,
            creator: UserId,
            other: UserId,
            at: Timestamp,
        ) -> Result<Option<DirectConversation>> {
            let conversation_id = ConversationId::direct(creator, other);
            let mut tx = store.begin().await?;
            let accounts: i64 = sqlx::query_scalar(sql::ACCOUNTS_OF_PAIR)
                .bind(creator)
                .bind(other)
                .fetch_one(&mut *tx)
                .await?;
            if accounts != 2 {
                tx.rollback().await?;
                return Ok(None);
            }
            let inserted = sqlx::query(sql::INSERT_DIRECT)
                .bind(conversation_id)
                .bind(creator)
                .bind(at)
                .execute(&mut *tx)
                .await?;
            if inserted.rows_affected() == 1 {
                let head = sqlx::query(sql::INSERT_DIRECT_HEAD)
                    .bind(conversation_id)
                    .bind(at);
                head.execute(&mut *tx).await?;
                sqlx::query(sql::INSERT_PAIR)
                    .bind(conversation_id)
                    .bind(creator)
                    .bind(other)
                    .bind(at)
                    .execute(&mut *tx)
                    .await?;
            } else if !revive_direct(&mut tx, conversation_id, at).await? {
                // Somebody else made it meanwhile.
                tx.rollback().await?;
                return Ok(Some(DirectConversation {
                    conversation_id,
                    created: false,
                }));
            }
            let user_ids = vec![creator, other];
            let (kind, payload) = journal::pack(&JournalRow::Members {
                conversation_id,
                user_ids,
            });
            let journal = sqlx::query(INSERT_JOURNAL)
                .bind(kind)
                .bind(payload)
                .bind(at);
            journal.execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(Some(DirectConversation {
                conversation_id,
                created: true,
            }))
        }

        /// True if there was a deleted one. The head's row is locked first, as by every change of
        /// memberships.
        async fn revive_direct(
            tx: &mut super::Tx,
            id: ConversationId,
            at: Timestamp,
        ) -> Result<bool> {
            let head = sqlx::query(sql::REVIVE_HEAD).bind(id).bind(at);
            head.execute(&mut **tx).await?;
            let revived = sqlx::query(sql::REVIVE_DIRECT)
                .bind(id)
                .execute(&mut **tx)
                .await?;
            sqlx::query(sql::REVIVE_PAIR)
                .bind(id)
                .execute(&mut **tx)
                .await?;
            Ok(revived.rows_affected() == 1)
        }
    };
}
pub(in crate::store) use conversation_store;
