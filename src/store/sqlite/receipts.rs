//! Marks in SQLite.

use super::SqliteStore;
use crate::store::sql::conversations::membership;
use crate::store::sql::detached;
use crate::store::sql::receipts::{GrownRecord, Wanted, own_reads, read_mark, receipt_store};

// dialect: lists, and searching in bytes.
const OWN_READS: &str = own_reads!(
    "instr(x.mentions, m.user_id) > 0",
    "in (select unhex(value) from json_each($3))"
);
const MEMBERSHIPS_AMONG: &str = concat!(
    membership!(),
    "where m.user_id = $1 and m.conversation_id in (select unhex(value) from json_each($2))"
);
// dialect: one at a time; there is no round trip to save.
const READ_MARK: &str = read_mark!(
    "instr(x.mentions, m.user_id) > 0",
    "from members m
     join conversation_heads h on h.conversation_id = m.conversation_id
     where m.conversation_id = $1 and m.user_id = $2"
);
const AUTHORS: &str = "select distinct sender_id from (
        select sender_id from messages
        where conversation_id = $1 and seq > $2 and seq <= $3 and kind = 'text'
        order by seq desc limit 16)";
/// Member `$2`'s marks if one of `$3` and `$4` raises them; nobody else writes meanwhile.
const GROWING: &str = "select m.conversation_id, m.user_id,
        max(m.delivered_seq, $3) as delivered_seq, max(m.read_seq, $4) as read_seq,
        m.delivered_seq as delivered_before, m.read_seq as read_before,
        m.left_seq is null as present, h.last_seq, h.member_count, h.member_version
    from members m join conversation_heads h on h.conversation_id = m.conversation_id
    where m.conversation_id = $1 and m.user_id = $2
      and ($3 > m.delivered_seq or $4 > m.read_seq)
      and $3 <= coalesce(m.left_seq, h.last_seq)";
const RAISE_MARKS: &str = "update members set
        delivered_seq = max(delivered_seq, $3),
        read_at = case when $4 > read_seq then $5 else read_at end,
        read_seq = max(read_seq, $4)
    where conversation_id = $1 and user_id = $2";

async fn raise_marks(
    store: &SqliteStore,
    wanted: Vec<Wanted>,
    at: Timestamp,
) -> Result<Vec<MarksGrown>> {
    let store = store.clone();
    detached(super::TRANSACTION_WITHIN, async move {
        let mut tx = store.begin().await?;
        let mut grown = Vec::new();
        for one in wanted {
            let growing: Option<GrownRecord> = sqlx::query_as(GROWING)
                .bind(one.conversation_id)
                .bind(one.user_id)
                .bind(one.delivered)
                .bind(one.read)
                .fetch_optional(&mut *tx)
                .await?;
            let Some(growing) = growing else { continue };
            sqlx::query(RAISE_MARKS)
                .bind(one.conversation_id)
                .bind(one.user_id)
                .bind(one.delivered)
                .bind(one.read)
                .bind(at)
                .execute(&mut *tx)
                .await?;
            grown.push(growing.into());
        }
        tx.commit().await?;
        Ok(grown)
    })
    .await
}

async fn authors(store: &SqliteStore, stretches: &[Stretch]) -> Result<Vec<Vec<UserId>>> {
    let mut all = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        let authors = sqlx::query_scalar(AUTHORS)
            .bind(stretch.conversation_id)
            .bind(stretch.after)
            .bind(stretch.to)
            .fetch_all(store.reader())
            .await?;
        all.push(authors);
    }
    Ok(all)
}

async fn read_marks(
    store: &SqliteStore,
    members: &[(ConversationId, UserId)],
) -> Result<Vec<ReadMark>> {
    let mut marks = Vec::with_capacity(members.len());
    for (id, user) in members {
        let record: Option<ReadMarkRecord> = sqlx::query_as(READ_MARK)
            .bind(id)
            .bind(user)
            .fetch_optional(store.reader())
            .await?;
        marks.extend(record.map(ReadMark::from));
    }
    Ok(marks)
}

receipt_store!(SqliteStore);
