//! How users appear, in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::presence::presence_store;

// dialect: lists. `offset 0` keeps the look-up of a member a look-up by its whole key: read by its
// conversation alone it would be all members of a large group.
const SHARING_WITH: &str = "
    select w.user_id from unnest($2::uuid[]) as w (user_id)
    where exists (
        select 1 from members mine
        cross join lateral (
            select 1 from members m
            where m.conversation_id = mine.conversation_id and m.user_id = w.user_id
              and m.left_seq is null
            offset 0) theirs
        where mine.user_id = $1 and mine.left_seq is null)";

// dialect: of each conversation only as many members as the page may need, in the key's order.
const ACQUAINTANCES: &str = "
    select distinct theirs.user_id from members mine
    cross join lateral (
        select m.user_id from members m
        where m.conversation_id = mine.conversation_id and m.user_id > $2
          and m.left_seq is null and m.user_id <> $1
        order by m.user_id limit $3) theirs
    where mine.user_id = $1 and mine.left_seq is null
    order by theirs.user_id limit $3";

/// Rows are locked in one order: two nodes may have seen the same people leave.
const NOTE_SEEN: &str = "
    with locked as (
        select u.user_id, w.at
        from unnest($1::uuid[], $2::bigint[]) as w (user_id, at)
        join users u on u.user_id = w.user_id
        where u.last_seen_at is null or u.last_seen_at < w.at
        order by u.user_id
        for no key update of u
    )
    update users u set last_seen_at = locked.at
    from locked where u.user_id = locked.user_id";

async fn note_seen(store: &PostgresStore, seen: &[(UserId, Timestamp)]) -> Result<()> {
    let at: Vec<i64> = seen.iter().map(|(_, at)| at.as_millis()).collect();
    sqlx::query(NOTE_SEEN)
        .bind(super::list(seen.iter().map(|(user, _)| user.as_uuid())))
        .bind(at)
        .execute(store.writer())
        .await?;
    Ok(())
}

presence_store!(PostgresStore);
