//! Marks in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::conversations::membership;
use crate::store::sql::receipts::{GrownRecord, Wanted, own_reads, read_mark, receipt_store};
use crate::store::sql::repeated;

// dialect: lists, and searching in bytes.
const OWN_READS: &str = own_reads!(
    "position(uuid_send(m.user_id) in x.mentions) > 0",
    "= any($3)"
);
const MEMBERSHIPS_AMONG: &str = concat!(
    membership!(),
    "where m.user_id = $1 and m.conversation_id = any($2)"
);

/// `offset 0` keeps the look-up of a member a look-up by its whole key.
const READ_MARKS: &str = read_mark!(
    "position(uuid_send(m.user_id) in x.mentions) > 0",
    "from unnest($1::uuid[], $2::uuid[]) as w (conversation_id, user_id)
     cross join lateral (
        select * from members m
        where m.conversation_id = w.conversation_id and m.user_id = w.user_id
        offset 0) m
     join conversation_heads h on h.conversation_id = m.conversation_id"
);

/// One statement for all marks, without a lock of its own: the wanted marks come in the order of
/// their members' keys, each member is looked up, and only rows that grow are written. A row that
/// another node wrote meanwhile is looked at again before it is written; only its values before
/// may then be older than the last ones, which tells somebody once more, never less.
const RAISE_MARKS: &str = "
    update members m set
        delivered_seq = greatest(m.delivered_seq, w.delivered),
        read_seq = greatest(m.read_seq, w.read),
        read_at = case when w.read > m.read_seq then $5 else m.read_at end
    from (
        select w.conversation_id, w.user_id, w.delivered, w.read,
               o.delivered_seq as delivered_before, o.read_seq as read_before,
               h.last_seq, h.member_count, h.member_version
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
                 as w (conversation_id, user_id, delivered, read)
        cross join lateral (
            select o.delivered_seq, o.read_seq, o.left_seq from members o
            where o.conversation_id = w.conversation_id and o.user_id = w.user_id
              and (w.delivered > o.delivered_seq or w.read > o.read_seq)
            offset 0) o
        cross join lateral (
            select h.last_seq, h.member_count, h.member_version from conversation_heads h
            where h.conversation_id = w.conversation_id
            offset 0) h
        where w.delivered <= coalesce(o.left_seq, h.last_seq)
        offset 0
    ) w
    where m.conversation_id = w.conversation_id and m.user_id = w.user_id
      and (w.delivered > m.delivered_seq or w.read > m.read_seq)
    returning m.conversation_id, m.user_id, m.delivered_seq, m.read_seq,
              w.delivered_before, w.read_before, m.left_seq is null as present,
              w.last_seq, w.member_count, w.member_version";

/// Who wrote the newest messages of each stretch; reads the index alone.
const AUTHORS: &str = "
    select distinct w.place, a.sender_id
    from unnest($1::uuid[], $2::bigint[], $3::bigint[])
        with ordinality as w (conversation_id, after, upto, place)
    cross join lateral (
        select x.sender_id from messages x
        where x.conversation_id = w.conversation_id and x.seq > w.after and x.seq <= w.upto
          and x.kind = 'text'
        order by x.seq desc limit 16) a";

async fn raise_marks(
    store: &PostgresStore,
    wanted: Vec<Wanted>,
    at: Timestamp,
) -> Result<Vec<MarksGrown>> {
    let delivered: Vec<i64> = wanted.iter().map(|w| w.delivered.0).collect();
    let read: Vec<i64> = wanted.iter().map(|w| w.read.0).collect();
    let ids = super::list(wanted.iter().map(|w| w.conversation_id.as_uuid()));
    let users = super::list(wanted.iter().map(|w| w.user_id.as_uuid()));
    // Against the one order of its rows stands whoever ends memberships.
    let records: Vec<GrownRecord> = repeated(|| async {
        let raise = sqlx::query_as(RAISE_MARKS).bind(&ids).bind(&users);
        let raise = raise.bind(&delivered).bind(&read).bind(at);
        Ok(raise.fetch_all(store.writer()).await?)
    })
    .await?;
    Ok(records.into_iter().map(MarksGrown::from).collect())
}

async fn authors(store: &PostgresStore, stretches: &[Stretch]) -> Result<Vec<Vec<UserId>>> {
    let after: Vec<i64> = stretches.iter().map(|stretch| stretch.after.0).collect();
    let to: Vec<i64> = stretches.iter().map(|stretch| stretch.to.0).collect();
    let rows: Vec<(i64, UserId)> = sqlx::query_as(AUTHORS)
        .bind(super::list(
            stretches.iter().map(|s| s.conversation_id.as_uuid()),
        ))
        .bind(after)
        .bind(to)
        .fetch_all(store.reader())
        .await?;
    let mut authors = vec![Vec::new(); stretches.len()];
    for (place, author) in rows {
        let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
        if let Some(authors) = authors.get_mut(place) {
            authors.push(author);
        }
    }
    Ok(authors)
}

async fn read_marks(
    store: &PostgresStore,
    members: &[(ConversationId, UserId)],
) -> Result<Vec<ReadMark>> {
    let records: Vec<ReadMarkRecord> = sqlx::query_as(READ_MARKS)
        .bind(super::list(members.iter().map(|(id, _)| id.as_uuid())))
        .bind(super::list(members.iter().map(|(_, user)| user.as_uuid())))
        .fetch_all(store.reader())
        .await?;
    Ok(records.into_iter().map(ReadMark::from).collect())
}

receipt_store!(PostgresStore);
