//! Sessions: families of refresh tokens.

use rookery_protocol::{SessionId, Timestamp, UserId};

use crate::store::{RotateSession, SessionRow};

pub(in crate::store) const INSERT: &str = "insert into sessions \
    (session_id, user_id, token_hash, device_name, ip, user_agent, created_at, last_used_at, \
     expires_at) \
    values ($1, $2, $3, $4, $5, $6, $7, $7, $8)";

/// Behind it the row is locked: PostgreSQL adds `for update`, SQLite has one writer.
macro_rules! family {
    () => {
        "select user_id, token_hash, previous_token_hash, rotated_at, expires_at, revoked_at \
         from sessions where session_id = $1"
    };
}
pub(in crate::store) use family;

pub(in crate::store) const ROTATE: &str = "update sessions set \
    previous_token_hash = token_hash, token_hash = $2, rotated_at = $3, last_used_at = $3, \
    expires_at = $4 \
    where session_id = $1";

pub(in crate::store) const REPEAT: &str =
    "update sessions set token_hash = $2, last_used_at = $3, expires_at = $4 where session_id = $1";

pub(in crate::store) const END: &str = "update sessions set revoked_at = $2 where session_id = $1";

pub(in crate::store) const SESSIONS_OF: &str = "select \
    session_id, device_name, ip, user_agent, created_at, last_used_at, expires_at from sessions \
    where user_id = $1 and revoked_at is null and expires_at > $2 \
    order by created_at desc, session_id desc";

pub(in crate::store) const REVOKE: &str = "update sessions set revoked_at = $3 \
    where session_id = $2 and user_id = $1 and revoked_at is null";

pub(in crate::store) const REVOKE_ALL: &str = "update sessions set revoked_at = $2 \
    where user_id = $1 and revoked_at is null returning session_id";

pub(in crate::store) const REVOKED_SINCE: &str =
    "select session_id from sessions where revoked_at >= $1";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct FamilyRecord {
    pub(in crate::store) user_id: UserId,
    token_hash: Vec<u8>,
    previous_token_hash: Option<Vec<u8>>,
    rotated_at: Option<Timestamp>,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
}

/// What a presented token is to its family.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum Presented {
    /// The current one: it has a successor now.
    Current,
    /// The immediate predecessor of an unused one, within the grace: its owner never got the
    /// answer, and gets another successor.
    Repeated,
    /// Neither: somebody else has a copy.
    Stale,
    /// The family has ended.
    Ended,
}

impl FamilyRecord {
    pub(in crate::store) fn judge(&self, request: &RotateSession) -> Presented {
        if self.revoked_at.is_some() || self.expires_at <= request.now {
            return Presented::Ended;
        }
        if self.token_hash == request.presented {
            return Presented::Current;
        }
        let is_predecessor =
            self.previous_token_hash.as_deref() == Some(request.presented.as_slice());
        let in_grace = self
            .rotated_at
            .is_some_and(|rotated| request.now <= rotated.plus_millis(request.grace_ms));
        if is_predecessor && in_grace {
            Presented::Repeated
        } else {
            Presented::Stale
        }
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct SessionRecord {
    session_id: SessionId,
    device_name: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    created_at: Timestamp,
    last_used_at: Timestamp,
    expires_at: Timestamp,
}

impl From<SessionRecord> for SessionRow {
    fn from(record: SessionRecord) -> Self {
        Self {
            session_id: record.session_id,
            device_name: record.device_name,
            ip: record.ip,
            user_agent: record.user_agent,
            created_at: record.created_at,
            last_used_at: record.last_used_at,
            expires_at: record.expires_at,
        }
    }
}

/// Implements `SessionStore`; needs `FAMILY_LOCKED`.
macro_rules! session_store {
    ($store:ty) => {
        use async_trait::async_trait;
        use rookery_protocol::{SessionId, Timestamp, UserId};

        use super::journal::INSERT as INSERT_JOURNAL;
        use $crate::store::sql::journal;
        use $crate::store::sql::sessions::{self as sql, FamilyRecord, Presented, SessionRecord};
        use $crate::store::sql::transact;
        use $crate::store::sql::users::{BY_ID, NOTE_LOGIN, UserRecord};
        use $crate::store::{
            JournalRow, NewSession, Result, RotateSession, Rotation, SessionRow, SessionStore,
            UserRow,
        };

        #[async_trait]
        impl SessionStore for $store {
            async fn open_session(&self, session: &NewSession) -> Result<()> {
                transact(super::TRANSACTION_WITHIN, || {
                    let (store, session) = (self.clone(), session.clone());
                    async move { open(&store, &session).await }
                })
                .await
            }

            async fn rotate_session(&self, request: &RotateSession) -> Result<Rotation> {
                transact(super::TRANSACTION_WITHIN, || {
                    let (store, request) = (self.clone(), request.clone());
                    async move { rotate(&store, &request).await }
                })
                .await
            }

            async fn sessions_of(&self, user: UserId, now: Timestamp) -> Result<Vec<SessionRow>> {
                let records: Vec<SessionRecord> = sqlx::query_as(sql::SESSIONS_OF)
                    .bind(user)
                    .bind(now)
                    .fetch_all(self.reader())
                    .await?;
                Ok(records.into_iter().map(SessionRow::from).collect())
            }

            async fn revoke_session(
                &self,
                user: UserId,
                id: SessionId,
                at: Timestamp,
            ) -> Result<bool> {
                transact(super::TRANSACTION_WITHIN, || {
                    let store = self.clone();
                    async move { revoke(&store, user, id, at).await }
                })
                .await
            }

            async fn revoke_sessions_of(
                &self,
                user: UserId,
                at: Timestamp,
            ) -> Result<Vec<SessionId>> {
                transact(super::TRANSACTION_WITHIN, || {
                    let store = self.clone();
                    async move { revoke_all(&store, user, at).await }
                })
                .await
            }

            async fn revoked_since(&self, since: Timestamp) -> Result<Vec<SessionId>> {
                let ended = sqlx::query_scalar(sql::REVOKED_SINCE).bind(since);
                Ok(ended.fetch_all(self.reader()).await?)
            }
        }

        async fn open(store: &$store, session: &NewSession) -> Result<()> {
            let mut tx = store.begin().await?;
            sqlx::query(sql::INSERT)
                .bind(session.session_id)
                .bind(session.user_id)
                .bind(session.token_hash.as_slice())
                .bind(&session.device_name)
                .bind(&session.ip)
                .bind(&session.user_agent)
                .bind(session.created_at)
                .bind(session.expires_at)
                .execute(&mut *tx)
                .await?;
            sqlx::query(NOTE_LOGIN)
                .bind(session.user_id)
                .bind(session.created_at)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(())
        }

        async fn rotate(store: &$store, request: &RotateSession) -> Result<Rotation> {
            let mut tx = store.begin().await?;
            let family: Option<FamilyRecord> = sqlx::query_as(FAMILY_LOCKED)
                .bind(request.session_id)
                .fetch_optional(&mut *tx)
                .await?;
            let Some(family) = family else {
                tx.rollback().await?;
                return Ok(Rotation::Refused);
            };
            let user: Option<UserRecord> = sqlx::query_as(BY_ID)
                .bind(family.user_id)
                .fetch_optional(&mut *tx)
                .await?;
            let user = user.map(UserRow::try_from).transpose()?;
            let user = user.filter(|user| user.banned_at.is_none());
            let statement = match (family.judge(request), &user) {
                (Presented::Ended, _) | (_, None) => {
                    tx.rollback().await?;
                    return Ok(Rotation::Refused);
                }
                (Presented::Stale, Some(_)) => {
                    sqlx::query(sql::END)
                        .bind(request.session_id)
                        .bind(request.now)
                        .execute(&mut *tx)
                        .await?;
                    let ended = vec![request.session_id];
                    note_revoked(&mut tx, family.user_id, ended).await?;
                    tx.commit().await?;
                    return Ok(Rotation::Reused(family.user_id));
                }
                (Presented::Current, Some(_)) => sql::ROTATE,
                (Presented::Repeated, Some(_)) => sql::REPEAT,
            };
            sqlx::query(statement)
                .bind(request.session_id)
                .bind(request.successor.as_slice())
                .bind(request.now)
                .bind(request.expires_at)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(user.map_or(Rotation::Refused, Rotation::Rotated))
        }

        async fn revoke(
            store: &$store,
            user: UserId,
            id: SessionId,
            at: Timestamp,
        ) -> Result<bool> {
            let mut tx = store.begin().await?;
            let ended = sqlx::query(sql::REVOKE).bind(user).bind(id).bind(at);
            if ended.execute(&mut *tx).await?.rows_affected() == 0 {
                tx.rollback().await?;
                return Ok(false);
            }
            note_revoked(&mut tx, user, vec![id]).await?;
            tx.commit().await?;
            Ok(true)
        }

        async fn revoke_all(store: &$store, user: UserId, at: Timestamp) -> Result<Vec<SessionId>> {
            let mut tx = store.begin().await?;
            let ended: Vec<SessionId> = sqlx::query_scalar(sql::REVOKE_ALL)
                .bind(user)
                .bind(at)
                .fetch_all(&mut *tx)
                .await?;
            if ended.is_empty() {
                tx.rollback().await?;
                return Ok(ended);
            }
            note_revoked(&mut tx, user, ended.clone()).await?;
            tx.commit().await?;
            Ok(ended)
        }

        async fn note_revoked(
            tx: &mut super::Tx,
            user_id: UserId,
            session_ids: Vec<SessionId>,
        ) -> Result<()> {
            let (kind, payload) = journal::pack(&JournalRow::Revoked {
                user_id,
                session_ids,
            });
            sqlx::query(INSERT_JOURNAL)
                .bind(kind)
                .bind(payload)
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
    };
}
pub(in crate::store) use session_store;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ROTATED_AT: i64 = 100_000;
    const GRACE_MS: i64 = 20_000;

    fn family() -> FamilyRecord {
        FamilyRecord {
            user_id: UserId::from_uuid(Uuid::from_u128(1)),
            token_hash: vec![2; 32],
            previous_token_hash: Some(vec![1; 32]),
            rotated_at: Some(Timestamp::from_millis(ROTATED_AT)),
            expires_at: Timestamp::from_millis(1_000_000),
            revoked_at: None,
        }
    }

    fn present(family: &FamilyRecord, token: u8, now: i64) -> Presented {
        family.judge(&RotateSession {
            session_id: SessionId::from_uuid(Uuid::from_u128(2)),
            presented: [token; 32],
            successor: [9; 32],
            now: Timestamp::from_millis(now),
            expires_at: Timestamp::from_millis(2_000_000),
            grace_ms: GRACE_MS,
        })
    }

    #[test]
    fn the_predecessor_is_good_for_the_grace_and_not_longer() {
        let family = family();
        assert_eq!(present(&family, 2, ROTATED_AT), Presented::Current);
        assert_eq!(
            present(&family, 1, ROTATED_AT + GRACE_MS),
            Presented::Repeated
        );
        assert_eq!(
            present(&family, 1, ROTATED_AT + GRACE_MS + 1),
            Presented::Stale
        );
        assert_eq!(present(&family, 0, ROTATED_AT), Presented::Stale);
    }

    #[test]
    fn an_ended_family_takes_no_token() {
        let family = family();
        assert_eq!(present(&family, 2, 1_000_000), Presented::Ended);
        let revoked = FamilyRecord {
            revoked_at: Some(Timestamp::from_millis(1)),
            ..family
        };
        assert_eq!(present(&revoked, 2, ROTATED_AT), Presented::Ended);
        assert_eq!(present(&revoked, 0, ROTATED_AT), Presented::Ended);
    }
}
