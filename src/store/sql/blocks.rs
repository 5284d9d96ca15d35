//! Who blocks whom, and the mark of it in the direct conversation of the two.

/// Locked by whoever makes the direct conversation of two users and by whoever sets a block between
/// them: the account of the one with the lower id. PostgreSQL adds the lock, SQLite has one writer.
macro_rules! first_of_pair {
    () => {
        "select user_id from users where user_id = $1"
    };
}
pub(in crate::store) use first_of_pair;

pub(in crate::store) const HAS_ACCOUNT: &str =
    "select exists (select 1 from users where user_id = $1 and deleted_at is null)";

pub(in crate::store) const INSERT: &str = "insert into blocks (user_id, blocked_id, created_at) \
    values ($1, $2, $3) on conflict do nothing";

pub(in crate::store) const DELETE: &str =
    "delete from blocks where user_id = $1 and blocked_id = $2";

/// The blocks between two users, each with the one who is blocked.
pub(in crate::store) const BETWEEN: &str = "select blocked_id from blocks \
    where (user_id = $1 and blocked_id = $2) or (user_id = $2 and blocked_id = $1)";

/// Of the blocked one's membership; past ones are marked too, since a direct conversation can come
/// back.
pub(in crate::store) const MARK: &str =
    "update members set blocked_at = $3 where conversation_id = $1 and user_id = $2";

pub(in crate::store) const BLOCKS_OF: &str = "select blocked_id from blocks \
    where user_id = $1 and blocked_id > $2 order by blocked_id limit $3";

/// Implements `BlockStore`; needs `HEAD_LOCKED`, `FIRST_OF_PAIR_LOCKED`, `BLOCKERS_AMONG` and
/// `BLOCKS_AMONG`.
macro_rules! block_store {
    ($store:ty) => {
        use async_trait::async_trait;
        use rookery_protocol::{ConversationId, Timestamp, UserId};
        use uuid::Uuid;

        use $crate::store::sql::blocks as sql;
        use $crate::store::sql::transact;
        use $crate::store::{BlockStore, Result};

        #[async_trait]
        impl BlockStore for $store {
            async fn set_block(
                &self,
                user: UserId,
                other: UserId,
                blocked: bool,
                at: Timestamp,
            ) -> Result<Option<bool>> {
                transact(super::TRANSACTION_WITHIN, || {
                    let store = self.clone();
                    async move { set(&store, (user, other), blocked, at).await }
                })
                .await
            }

            async fn blocks_of(
                &self,
                user: UserId,
                after: Option<UserId>,
                limit: i64,
            ) -> Result<Vec<UserId>> {
                Ok(sqlx::query_scalar(sql::BLOCKS_OF)
                    .bind(user)
                    // No account has the nil id: all come after it.
                    .bind(after.unwrap_or(UserId::from_uuid(Uuid::nil())))
                    .bind(limit)
                    .fetch_all(self.reader())
                    .await?)
            }

            async fn blockers_among(
                &self,
                viewer: UserId,
                users: &[UserId],
            ) -> Result<Vec<UserId>> {
                if users.is_empty() {
                    return Ok(Vec::new());
                }
                Ok(sqlx::query_scalar(BLOCKERS_AMONG)
                    .bind(viewer)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?)
            }

            async fn blocks_among(
                &self,
                users: &[UserId],
                viewers: &[UserId],
            ) -> Result<Vec<(UserId, UserId)>> {
                if users.is_empty() || viewers.is_empty() {
                    return Ok(Vec::new());
                }
                Ok(sqlx::query_as(BLOCKS_AMONG)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .bind(super::list(viewers.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?)
            }
        }

        async fn set(
            store: &$store,
            (user, other): (UserId, UserId),
            blocked: bool,
            at: Timestamp,
        ) -> Result<Option<bool>> {
            let id = ConversationId::direct(user, other);
            let mut tx = store.begin_on(id).await?;
            lock_pair(&mut tx, user, other).await?;
            let exists: bool = sqlx::query_scalar(sql::HAS_ACCOUNT)
                .bind(other)
                .fetch_one(&mut *tx)
                .await?;
            if !exists {
                tx.rollback().await?;
                return Ok(None);
            }
            let changed = if blocked {
                let insert = sqlx::query(sql::INSERT).bind(user).bind(other).bind(at);
                insert.execute(&mut *tx).await?
            } else {
                let delete = sqlx::query(sql::DELETE).bind(user).bind(other);
                delete.execute(&mut *tx).await?
            };
            if changed.rows_affected() == 0 {
                tx.rollback().await?;
                return Ok(Some(false));
            }
            // Behind the head's lock, as everything that a send is decided by: a send that is being
            // stored ends before the block begins.
            sqlx::query(HEAD_LOCKED).bind(id).execute(&mut *tx).await?;
            let mark = sqlx::query(sql::MARK).bind(id).bind(other);
            mark.bind(blocked.then_some(at)).execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(Some(true))
        }

        /// Waits for another transaction that blocks between these two, or makes their direct
        /// conversation: each must see what the other one wrote.
        pub(super) async fn lock_pair(tx: &mut super::Tx, a: UserId, b: UserId) -> Result<()> {
            sqlx::query(FIRST_OF_PAIR_LOCKED)
                .bind(a.min(b))
                .execute(&mut **tx)
                .await?;
            Ok(())
        }

        /// Which of two users the other one blocks.
        pub(super) async fn between(
            tx: &mut super::Tx,
            a: UserId,
            b: UserId,
        ) -> Result<Vec<UserId>> {
            Ok(sqlx::query_scalar(sql::BETWEEN)
                .bind(a)
                .bind(b)
                .fetch_all(&mut **tx)
                .await?)
        }

        /// Marks the membership of somebody whom the other one of a new direct conversation blocks.
        pub(super) async fn mark(
            tx: &mut super::Tx,
            id: ConversationId,
            blocked: UserId,
            at: Timestamp,
        ) -> Result<()> {
            let mark = sqlx::query(sql::MARK).bind(id).bind(blocked);
            mark.bind(Some(at)).execute(&mut **tx).await?;
            Ok(())
        }
    };
}
pub(in crate::store) use block_store;
