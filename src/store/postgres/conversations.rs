//! Conversations and memberships in PostgreSQL.

use super::PostgresStore;
use crate::store::MarkKind;
use crate::store::sql::conversations::views::seats;
use crate::store::sql::conversations::{
    conversation_of, conversation_store, conversations_of, member, member_list, membership,
};

// dialect: searching in bytes. The parameter is a uuid; its bytes are what mentions hold.
const CONVERSATIONS_OF: &str = conversations_of!("position(uuid_send($1) in x.mentions) > 0");
const CONVERSATION_OF: &str = conversation_of!("position(uuid_send($1) in x.mentions) > 0");
// dialect: lists.
const MEMBERSHIPS_OF: &str = concat!(membership!(), "where m.user_id = any($1)");
const PRESENT_MEMBERSHIPS_OF: &str = concat!(
    membership!(),
    "where m.user_id = any($1) and m.left_seq is null"
);
const MEMBERSHIPS_IN: &str = concat!(
    membership!(),
    "where m.conversation_id = $1 and m.user_id = any($2)"
);
const MEMBERS_BY_ID: &str = concat!(member!(), "and m.user_id = any($2)");
const SEATS: &str = seats!("= any($2)");
const MEMBER_LISTS: &str = concat!(member_list!(), "= any($1) order by h.conversation_id");
/// One statement for all marks: the marks that may be raised are merged, their rows are locked in
/// one order (two nodes may raise marks of the same people), then written where they grow.
/// `offset 0` keeps the look-up of a member a look-up by its whole key.
const RAISE_MARKS: &str = "
    with wanted as (
        select w.conversation_id, w.user_id,
               max(w.seq) as delivered, max(w.seq) filter (where w.is_read) as read
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::boolean[])
                 as w (conversation_id, user_id, seq, is_read)
        cross join lateral (
            select m.left_seq from members m
            where m.conversation_id = w.conversation_id and m.user_id = w.user_id
            offset 0) m
        join conversation_heads h on h.conversation_id = w.conversation_id
        where w.seq <= coalesce(m.left_seq, h.last_seq)
        group by w.conversation_id, w.user_id
    ), locked as (
        select m.conversation_id, m.user_id, w.delivered, coalesce(w.read, 0) as read
        from members m
        join wanted w on w.conversation_id = m.conversation_id and w.user_id = m.user_id
        where w.delivered > m.delivered_seq or w.read > m.read_seq
        order by m.conversation_id, m.user_id
        for no key update of m
    )
    update members m set
        delivered_seq = greatest(m.delivered_seq, locked.delivered),
        read_seq = greatest(m.read_seq, locked.read),
        read_at = case when locked.read > m.read_seq then $5 else m.read_at end
    from locked
    where m.conversation_id = locked.conversation_id and m.user_id = locked.user_id";

async fn raise_marks(store: &PostgresStore, marks: &[MarkRaise], at: Timestamp) -> Result<()> {
    let seqs: Vec<i64> = marks.iter().map(|mark| mark.seq.0).collect();
    let is_read: Vec<bool> = marks
        .iter()
        .map(|mark| mark.kind == MarkKind::Read)
        .collect();
    sqlx::query(RAISE_MARKS)
        .bind(super::list(
            marks.iter().map(|mark| mark.conversation_id.as_uuid()),
        ))
        .bind(super::list(marks.iter().map(|mark| mark.user_id.as_uuid())))
        .bind(seqs)
        .bind(is_read)
        .bind(at)
        .execute(store.writer())
        .await?;
    Ok(())
}

conversation_store!(PostgresStore);
