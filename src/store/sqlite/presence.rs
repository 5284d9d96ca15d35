//! How users appear, in SQLite.

use super::SqliteStore;
use crate::store::sql::detached;
use crate::store::sql::presence::presence_store;

// dialect: lists. `cross join` keeps the order: one's own memberships, then a whole key of each.
const SHARING_WITH: &str = "
    select unhex(w.value) from json_each($2) w
    where exists (
        select 1 from members mine cross join members theirs
        where mine.user_id = $1 and mine.left_seq is null
          and theirs.conversation_id = mine.conversation_id
          and theirs.user_id = unhex(w.value) and theirs.left_seq is null)";

// dialect: no lateral joins.
const ACQUAINTANCES: &str = "
    select distinct theirs.user_id from members mine cross join members theirs
    where mine.user_id = $1 and mine.left_seq is null
      and theirs.conversation_id = mine.conversation_id and theirs.user_id > $2
      and theirs.left_seq is null and theirs.user_id <> $1
    order by theirs.user_id limit $3";

// dialect: one at a time; nobody else writes meanwhile.
const NOTE_SEEN: &str = "update users set last_seen_at = $2 \
    where user_id = $1 and (last_seen_at is null or last_seen_at < $2)";

async fn note_seen(store: &SqliteStore, seen: &[(UserId, Timestamp)]) -> Result<()> {
    let (store, seen) = (store.clone(), seen.to_vec());
    detached(super::TRANSACTION_WITHIN, async move {
        let mut tx = store.begin().await?;
        for (user, at) in &seen {
            sqlx::query(NOTE_SEEN)
                .bind(user)
                .bind(at)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    })
    .await
}

presence_store!(SqliteStore);
