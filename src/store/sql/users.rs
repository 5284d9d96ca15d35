//! Accounts.

use rookery_protocol::user::{ChosenStatus, UserRole};
use rookery_protocol::{Timestamp, UserId};

use super::corrupt;
use crate::store::{Chosen, Credentials, StoreError, UserRow};

macro_rules! user_columns {
    () => {
        "user_id, username, email, full_name, avatar_url, role, auth_version, banned_at, \
         created_at, last_seen_at, chosen_status, chosen_at"
    };
}
pub(in crate::store) use user_columns;

pub(in crate::store) const INSERT: &str = "insert into users \
    (user_id, username, email, password_hash, full_name, role, created_at) \
    values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing";

pub(in crate::store) const USERNAME_EXISTS: &str =
    "select exists (select 1 from users where lower(username) = lower($1))";

pub(in crate::store) const BY_ID: &str = concat!(
    "select ",
    user_columns!(),
    " from users where user_id = $1 and deleted_at is null"
);

pub(in crate::store) const CREDENTIALS: &str = concat!(
    "select ",
    user_columns!(),
    ", password_hash from users \
     where (lower(username) = lower($1) or lower(email) = lower($1)) and deleted_at is null"
);

pub(in crate::store) const SEARCH: &str = concat!(
    "select ",
    user_columns!(),
    r" from users
       where deleted_at is null
         and (lower(username) like lower($1) escape '\' or lower(full_name) like lower($1) escape '\')
         and lower(username) > lower($2)
       order by lower(username) limit $3"
);

pub(in crate::store) const UPDATE_PROFILE: &str = concat!(
    "update users set \
     full_name = case when $2 then $3 else full_name end, \
     avatar_url = case when $4 then $5 else avatar_url end \
     where user_id = $1 and deleted_at is null returning ",
    user_columns!()
);

pub(in crate::store) const SET_PASSWORD_HASH: &str =
    "update users set password_hash = $2 where user_id = $1";

pub(in crate::store) const NOTE_LOGIN: &str =
    "update users set last_login_at = $2 where user_id = $1";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct UserRecord {
    user_id: UserId,
    username: String,
    email: String,
    full_name: Option<String>,
    avatar_url: Option<String>,
    role: String,
    auth_version: i64,
    banned_at: Option<Timestamp>,
    created_at: Timestamp,
    last_seen_at: Option<Timestamp>,
    chosen_status: String,
    chosen_at: Timestamp,
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct CredentialsRecord {
    #[sqlx(flatten)]
    user: UserRecord,
    password_hash: String,
}

impl TryFrom<UserRecord> for UserRow {
    type Error = StoreError;

    fn try_from(record: UserRecord) -> Result<Self, StoreError> {
        let role = UserRole::parse(&record.role)
            .ok_or_else(|| corrupt("users", "role", record.user_id))?;
        let status = ChosenStatus::parse(&record.chosen_status)
            .ok_or_else(|| corrupt("users", "chosen_status", record.user_id))?;
        Ok(Self {
            user_id: record.user_id,
            username: record.username,
            email: record.email,
            full_name: record.full_name,
            avatar_url: record.avatar_url,
            role,
            auth_version: record.auth_version,
            banned_at: record.banned_at,
            created_at: record.created_at,
            last_seen_at: record.last_seen_at,
            chosen: Chosen {
                status,
                at: record.chosen_at,
            },
        })
    }
}

impl TryFrom<CredentialsRecord> for Credentials {
    type Error = StoreError;

    fn try_from(record: CredentialsRecord) -> Result<Self, StoreError> {
        Ok(Self {
            user: record.user.try_into()?,
            password_hash: record.password_hash,
        })
    }
}

/// Implements `UserStore`; needs `USERS_BY_ID`.
macro_rules! user_store {
    ($store:ty) => {
        use async_trait::async_trait;
        use rookery_protocol::UserId;

        use $crate::store::sql::contains_pattern;
        use $crate::store::sql::users::{self as sql, CredentialsRecord, UserRecord};
        use $crate::store::{
            Chosen, Credentials, NewUser, ProfileChange, Result, Taken, UserRow, UserStore,
        };

        #[async_trait]
        impl UserStore for $store {
            async fn insert_user(
                &self,
                user: &NewUser,
            ) -> Result<std::result::Result<UserRow, Taken>> {
                let inserted = sqlx::query(sql::INSERT)
                    .bind(user.user_id)
                    .bind(&user.username)
                    .bind(&user.email)
                    .bind(&user.password_hash)
                    .bind(&user.full_name)
                    .bind(user.role.as_str())
                    .bind(user.created_at)
                    .execute(self.writer())
                    .await?;
                if inserted.rows_affected() == 0 {
                    let username_is_taken: bool = sqlx::query_scalar(sql::USERNAME_EXISTS)
                        .bind(&user.username)
                        .fetch_one(self.reader())
                        .await?;
                    return Ok(Err(if username_is_taken {
                        Taken::Username
                    } else {
                        Taken::Email
                    }));
                }
                Ok(Ok(UserRow {
                    user_id: user.user_id,
                    username: user.username.clone(),
                    email: user.email.clone(),
                    full_name: user.full_name.clone(),
                    avatar_url: None,
                    role: user.role,
                    auth_version: 1,
                    banned_at: None,
                    created_at: user.created_at,
                    last_seen_at: None,
                    chosen: Chosen::default(),
                }))
            }

            async fn user(&self, id: UserId) -> Result<Option<UserRow>> {
                let record: Option<UserRecord> = sqlx::query_as(sql::BY_ID)
                    .bind(id)
                    .fetch_optional(self.reader())
                    .await?;
                record.map(UserRow::try_from).transpose()
            }

            async fn users(&self, ids: &[UserId]) -> Result<Vec<UserRow>> {
                let records: Vec<UserRecord> = sqlx::query_as(USERS_BY_ID)
                    .bind(super::list(ids.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(UserRow::try_from).collect()
            }

            async fn credentials(&self, login: &str) -> Result<Option<Credentials>> {
                let record: Option<CredentialsRecord> = sqlx::query_as(sql::CREDENTIALS)
                    .bind(login)
                    .fetch_optional(self.reader())
                    .await?;
                record.map(Credentials::try_from).transpose()
            }

            async fn search_users(
                &self,
                query: &str,
                after: Option<&str>,
                limit: i64,
            ) -> Result<Vec<UserRow>> {
                let records: Vec<UserRecord> = sqlx::query_as(sql::SEARCH)
                    .bind(contains_pattern(query))
                    .bind(after.unwrap_or_default())
                    .bind(limit)
                    .fetch_all(self.reader())
                    .await?;
                records.into_iter().map(UserRow::try_from).collect()
            }

            async fn update_profile(
                &self,
                id: UserId,
                change: &ProfileChange,
            ) -> Result<Option<UserRow>> {
                let record: Option<UserRecord> = sqlx::query_as(sql::UPDATE_PROFILE)
                    .bind(id)
                    .bind(change.full_name.is_some())
                    .bind(change.full_name.clone().flatten())
                    .bind(change.avatar_url.is_some())
                    .bind(change.avatar_url.clone().flatten())
                    .fetch_optional(self.writer())
                    .await?;
                record.map(UserRow::try_from).transpose()
            }

            async fn set_password_hash(&self, id: UserId, password_hash: &str) -> Result<()> {
                sqlx::query(sql::SET_PASSWORD_HASH)
                    .bind(id)
                    .bind(password_hash)
                    .execute(self.writer())
                    .await?;
                Ok(())
            }
        }
    };
}
pub(in crate::store) use user_store;
