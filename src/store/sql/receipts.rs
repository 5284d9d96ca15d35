//! Marks of members, and what is derived from them.

use rookery_protocol::message::MessageStatus;
use rookery_protocol::rest::MessageReceipt;
use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};

use crate::store::{FurthestMarks, MarkKind, MarkRaise, MarksGrown, ReadMark};

/// In a large group somebody has read nearly everything: the first one found that is at `$3` ends
/// the search, and only if there is none all members are looked at. Marks start at the joining and say nothing
/// until they are raised: who joins has not read what was said before.
pub(in crate::store) const FURTHEST_MARKS: &str = "select \
    case when x.far then $3 else ( \
        select coalesce(max(delivered_seq), 0) from members \
        where conversation_id = $1 and user_id <> $2 and left_seq is null \
          and delivered_seq > joined_seq) end as delivered, \
    case when x.far then $3 else ( \
        select coalesce(max(read_seq), 0) from members \
        where conversation_id = $1 and user_id <> $2 and left_seq is null \
          and read_seq > joined_seq) end as read \
    from (select exists ( \
        select 1 from members where conversation_id = $1 and user_id <> $2 \
           and left_seq is null and read_seq >= $3 and read_seq > joined_seq) as far) x";

pub(in crate::store) const SENDER_OF: &str = "select sender_id from messages \
    where conversation_id = $1 and seq = $2 and kind in ('text', 'system')";

/// Present members, but for sender `$3`, who see the message `$2`.
pub(in crate::store) const MESSAGE_RECEIPTS: &str = "select m.user_id, u.username, u.full_name, \
           m.delivered_seq, m.read_seq, m.read_at \
    from members m \
    join conversations c on c.conversation_id = m.conversation_id \
    join users u on u.user_id = m.user_id \
    where m.conversation_id = $1 and m.left_seq is null \
      and (c.history_visible or m.joined_seq < $2) \
      and m.user_id <> $3 and m.user_id > $4 \
    order by m.user_id limit $5";

pub(in crate::store) const MUTE: &str = "update members set muted_until = $3 \
    where conversation_id = $1 and user_id = $2 and left_seq is null";

/// Read marks with what is unread behind them, by the rules of the list of conversations;
/// `$mentions` tells whether `x.mentions` holds `m.user_id`, `$from` brings `m` and `h`.
macro_rules! read_mark {
    ($mentions:literal, $($from:literal),+) => {
        concat!(
            "select m.conversation_id, m.user_id, m.read_seq, m.read_at, h.last_seq,
                (select count(*) from (
                    select 1 from messages x
                    where x.conversation_id = m.conversation_id
                      and x.seq > case when m.read_seq > h.last_seq - 5000 then m.read_seq
                                       else h.last_seq - 5000 end
                      and x.kind = 'text' and x.sender_id <> m.user_id
                    limit 999) unread) as unread_count,
                (select count(*) from (
                    select 1 from messages x
                    where x.conversation_id = m.conversation_id
                      and x.seq > case when m.read_seq > h.last_seq - 5000 then m.read_seq
                                       else h.last_seq - 5000 end
                      and x.mentions is not null and x.deleted_at is null and ",
            $mentions,
            "
                      and x.kind = 'text' and x.sender_id <> m.user_id
                    limit 999) mentioning) as mention_count ",
            $($from),+
        )
    };
}

/// A page of user `$1`'s own read marks: set since `$2`, or of the conversations `$among`, after
/// `$4`.
macro_rules! own_reads {
    ($mentions:literal, $among:literal) => {
        $crate::store::sql::receipts::read_mark!(
            $mentions,
            "from members m
             join conversation_heads h on h.conversation_id = m.conversation_id
             where m.user_id = $1 and m.left_seq is null and m.read_at is not null
               and (m.read_at >= $2 or m.conversation_id ",
            $among,
            ") and m.conversation_id > $4
             order by m.conversation_id limit $5"
        )
    };
}
pub(in crate::store) use {own_reads, read_mark};

/// What members other than `$1` have read since `$2`, in conversations of at most `$3` members.
pub(in crate::store) const READS_OF_OTHERS: &str = "
    select o.conversation_id, o.user_id, o.read_seq, o.read_at from members m
    join conversation_heads h on h.conversation_id = m.conversation_id
    join members o on o.conversation_id = m.conversation_id
    where m.user_id = $1 and m.left_seq is null and h.member_count <= $3
      and o.user_id <> $1 and o.left_seq is null and o.read_at >= $2
    order by o.read_at desc limit 1000";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct FurthestRecord {
    delivered: Seq,
    read: Seq,
}

impl From<FurthestRecord> for FurthestMarks {
    fn from(record: FurthestRecord) -> Self {
        Self {
            delivered: record.delivered,
            read: record.read,
        }
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct ReadMarkRecord {
    conversation_id: ConversationId,
    user_id: UserId,
    read_seq: Seq,
    read_at: Option<Timestamp>,
    last_seq: Seq,
    unread_count: i64,
    mention_count: i64,
}

impl From<ReadMarkRecord> for ReadMark {
    fn from(record: ReadMarkRecord) -> Self {
        Self {
            conversation_id: record.conversation_id,
            user_id: record.user_id,
            seq: record.read_seq,
            at: record.read_at.unwrap_or_default(),
            last_seq: record.last_seq,
            unread_count: record.unread_count,
            mention_count: record.mention_count,
        }
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct ReceiptRecord {
    user_id: UserId,
    username: String,
    full_name: Option<String>,
    delivered_seq: Seq,
    read_seq: Seq,
    read_at: Option<Timestamp>,
}

impl ReceiptRecord {
    /// How far this member is with the message at `seq`.
    pub(in crate::store) fn of_message(self, seq: Seq) -> MessageReceipt {
        let marks = FurthestMarks {
            delivered: self.delivered_seq,
            read: self.read_seq,
        };
        let status = marks.status(seq);
        let read_at = self.read_at.filter(|_| status == MessageStatus::Read);
        MessageReceipt {
            user_id: self.user_id,
            username: self.username,
            full_name: self.full_name,
            status,
            read_at,
        }
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct GrownRecord {
    conversation_id: ConversationId,
    user_id: UserId,
    delivered_seq: Seq,
    read_seq: Seq,
    delivered_before: Seq,
    read_before: Seq,
    present: bool,
    last_seq: Seq,
    member_count: i64,
    member_version: i64,
}

impl From<GrownRecord> for MarksGrown {
    fn from(record: GrownRecord) -> Self {
        Self {
            conversation_id: record.conversation_id,
            user_id: record.user_id,
            delivered: record.delivered_seq,
            read: record.read_seq,
            delivered_before: record.delivered_before,
            read_before: record.read_before,
            present: record.present,
            last_seq: record.last_seq,
            member_count: record.member_count,
            member_version: record.member_version,
        }
    }
}

/// What is wanted of one member's marks: `delivered >= read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Wanted {
    pub(in crate::store) conversation_id: ConversationId,
    pub(in crate::store) user_id: UserId,
    pub(in crate::store) delivered: Seq,
    pub(in crate::store) read: Seq,
}

/// Marks merged by member, in the order in which their rows are to be locked: two nodes may raise
/// marks of the same people at a time.
pub(in crate::store) fn merged(marks: &[MarkRaise]) -> Vec<Wanted> {
    let wanted = |mark: &MarkRaise| Wanted {
        conversation_id: mark.conversation_id,
        user_id: mark.user_id,
        delivered: mark.seq,
        read: match mark.kind {
            MarkKind::Delivered => Seq::ZERO,
            MarkKind::Read => mark.seq,
        },
    };
    let mut all: Vec<Wanted> = marks.iter().map(wanted).collect();
    all.sort_unstable_by_key(|wanted| (wanted.conversation_id, wanted.user_id));
    all.dedup_by(|later, kept| {
        let same = (later.conversation_id, later.user_id) == (kept.conversation_id, kept.user_id);
        if same {
            kept.delivered = kept.delivered.max(later.delivered);
            kept.read = kept.read.max(later.read);
        }
        same
    });
    all
}

/// Implements `ReceiptStore`; needs `OWN_READS`, `MEMBERSHIPS_AMONG`, `raise_marks`, `authors` and
/// `read_marks`.
macro_rules! receipt_store {
    ($store:ty) => {
        use async_trait::async_trait;
        use rookery_protocol::rest::MessageReceipt;
        use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};
        use uuid::Uuid;

        use $crate::store::sql::conversations::MembershipRecord;
        use $crate::store::sql::receipts::{self as sql, FurthestRecord, ReadMarkRecord};
        use $crate::store::{
            FurthestMarks, MarkRaise, MarksGrown, Membership, OthersRead, OwnReads, ReadMark,
            ReceiptStore, Result, Stretch,
        };

        #[async_trait]
        impl ReceiptStore for $store {
            async fn raise_marks(
                &self,
                marks: &[MarkRaise],
                at: Timestamp,
            ) -> Result<Vec<MarksGrown>> {
                if marks.is_empty() {
                    return Ok(Vec::new());
                }
                raise_marks(self, sql::merged(marks), at).await
            }

            async fn furthest_marks(
                &self,
                id: ConversationId,
                user: UserId,
                up_to: Seq,
            ) -> Result<FurthestMarks> {
                let record: FurthestRecord = sqlx::query_as(sql::FURTHEST_MARKS)
                    .bind(id)
                    .bind(user)
                    .bind(up_to)
                    .fetch_one(self.reader())
                    .await?;
                Ok(record.into())
            }

            async fn authors(&self, stretches: &[Stretch]) -> Result<Vec<Vec<UserId>>> {
                if stretches.is_empty() {
                    return Ok(Vec::new());
                }
                authors(self, stretches).await
            }

            async fn read_marks(
                &self,
                members: &[(ConversationId, UserId)],
            ) -> Result<Vec<ReadMark>> {
                if members.is_empty() {
                    return Ok(Vec::new());
                }
                read_marks(self, members).await
            }

            async fn own_reads(&self, of: &OwnReads<'_>) -> Result<Vec<ReadMark>> {
                let never = Timestamp::from_millis(i64::MAX);
                let records: Vec<ReadMarkRecord> = sqlx::query_as(OWN_READS)
                    .bind(of.user_id)
                    .bind(of.since.unwrap_or(never))
                    .bind(super::list(of.among.iter().map(ConversationId::as_uuid)))
                    .bind(of.after.unwrap_or(ConversationId::from_uuid(Uuid::nil())))
                    .bind(of.limit)
                    .fetch_all(self.reader())
                    .await?;
                Ok(records.into_iter().map(ReadMark::from).collect())
            }

            async fn reads_of_others(
                &self,
                user: UserId,
                since: Timestamp,
                members_max: i64,
            ) -> Result<Vec<OthersRead>> {
                Ok(sqlx::query_as(sql::READS_OF_OTHERS)
                    .bind(user)
                    .bind(since)
                    .bind(members_max)
                    .fetch_all(self.reader())
                    .await?)
            }

            async fn memberships_among(
                &self,
                user: UserId,
                ids: &[ConversationId],
            ) -> Result<Vec<Membership>> {
                let records: Vec<MembershipRecord> = sqlx::query_as(MEMBERSHIPS_AMONG)
                    .bind(user)
                    .bind(super::list(ids.iter().map(ConversationId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(Membership::try_from).collect()
            }

            async fn sender_of(&self, id: ConversationId, seq: Seq) -> Result<Option<UserId>> {
                Ok(sqlx::query_scalar(sql::SENDER_OF)
                    .bind(id)
                    .bind(seq)
                    .fetch_optional(self.reader())
                    .await?)
            }

            async fn message_receipts(
                &self,
                id: ConversationId,
                (seq, sender): (Seq, UserId),
                after: Option<UserId>,
                limit: i64,
            ) -> Result<Vec<MessageReceipt>> {
                let records: Vec<sql::ReceiptRecord> = sqlx::query_as(sql::MESSAGE_RECEIPTS)
                    .bind(id)
                    .bind(seq)
                    .bind(sender)
                    .bind(after.unwrap_or(UserId::from_uuid(Uuid::nil())))
                    .bind(limit)
                    .fetch_all(self.reader())
                    .await?;
                let receipts = records.into_iter();
                Ok(receipts.map(|record| record.of_message(seq)).collect())
            }

            async fn mute(
                &self,
                user: UserId,
                id: ConversationId,
                until: Option<Timestamp>,
            ) -> Result<bool> {
                let muted = sqlx::query(sql::MUTE)
                    .bind(id)
                    .bind(user)
                    .bind(until)
                    .execute(self.writer())
                    .await?;
                Ok(muted.rows_affected() == 1)
            }
        }
    };
}
pub(in crate::store) use receipt_store;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn mark(conversation: u128, user: u128, kind: MarkKind, seq: i64) -> MarkRaise {
        MarkRaise {
            conversation_id: ConversationId::from_uuid(Uuid::from_u128(conversation)),
            user_id: UserId::from_uuid(Uuid::from_u128(user)),
            kind,
            seq: Seq(seq),
        }
    }

    #[test]
    fn marks_of_one_member_become_one_and_all_have_one_order() {
        let merged = merged(&[
            mark(2, 1, MarkKind::Read, 3),
            mark(1, 2, MarkKind::Delivered, 9),
            mark(1, 1, MarkKind::Delivered, 1),
            mark(1, 2, MarkKind::Read, 4),
            mark(1, 2, MarkKind::Read, 5),
        ]);
        let found: Vec<_> = merged
            .iter()
            .map(|w| {
                let ids = (w.conversation_id.as_uuid(), w.user_id.as_uuid());
                (ids.0.as_u128(), ids.1.as_u128(), w.delivered.0, w.read.0)
            })
            .collect();
        assert_eq!(found, [(1, 1, 1, 0), (1, 2, 9, 5), (2, 1, 3, 3)]);
    }
}
