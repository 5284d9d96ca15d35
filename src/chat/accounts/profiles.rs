//! Profiles: one's own, and what others see of one.

use rookery_protocol::rest::UpdateProfile;
use rookery_protocol::user::{User, UserRole};
use rookery_protocol::{UserId, limits, validate};

use super::{Accounts, check_line};
use crate::auth::Access;
use crate::error::AppError;
use crate::store::{ProfileChange, UserRow};

impl Accounts {
    /// One's own account, with the e-mail address.
    ///
    /// # Errors
    /// `NOT_FOUND` if it was deleted while the token lives.
    pub async fn me(&self, access: &Access) -> Result<User, AppError> {
        let row = self
            .store
            .user(access.user_id)
            .await?
            .ok_or_else(AppError::not_found)?;
        Ok(own_view(row))
    }

    /// Changes one's own profile.
    ///
    /// # Errors
    /// `INVALID` with the field.
    pub async fn update_me(
        &self,
        access: &Access,
        change: UpdateProfile,
    ) -> Result<User, AppError> {
        check_line(
            "full_name",
            change.full_name.as_ref().and_then(Option::as_deref),
        )?;
        if let Some(Some(url)) = &change.avatar_url {
            validate::avatar_url(url)?;
        }
        let change = ProfileChange {
            full_name: change.full_name,
            avatar_url: change.avatar_url,
        };
        let row = self.store.update_profile(access.user_id, &change).await?;
        row.map(own_view).ok_or_else(AppError::not_found)
    }

    /// Somebody's account.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn user(&self, viewer: &Access, id: UserId) -> Result<User, AppError> {
        let row = self.store.user(id).await?.ok_or_else(AppError::not_found)?;
        Ok(view(row, viewer))
    }

    /// The accounts with these ids, in that order; those that do not exist are left out.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn users(&self, viewer: &Access, ids: &[UserId]) -> Result<Vec<User>, AppError> {
        let mut rows = self.store.users(ids).await?;
        let place = |row: &UserRow| ids.iter().position(|id| *id == row.user_id);
        rows.sort_by_cached_key(place);
        Ok(rows.into_iter().map(|row| view(row, viewer)).collect())
    }

    /// Accounts whose username or full name contains `query`, by username, after `after`.
    ///
    /// # Errors
    /// `INVALID` for a query that no name can contain.
    pub async fn search(
        &self,
        viewer: &Access,
        query: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<User>, AppError> {
        validate::text_within("query", query, 0, limits::NAME_CHARS)?;
        let rows = self.store.search_users(query, after, limit).await?;
        Ok(rows.into_iter().map(|row| view(row, viewer)).collect())
    }
}

/// An account as its owner sees it.
pub(crate) fn own_view(row: UserRow) -> User {
    User {
        user_id: row.user_id,
        username: row.username,
        full_name: row.full_name,
        avatar_url: row.avatar_url,
        role: row.role,
        created_at: row.created_at,
        last_seen_at: row.last_seen_at,
        email: Some(row.email),
    }
}

/// An account as `viewer` sees it: the e-mail address only if it is theirs, or they are an admin.
fn view(row: UserRow, viewer: &Access) -> User {
    let sees_email = row.user_id == viewer.user_id || viewer.role == UserRole::Admin;
    if sees_email {
        own_view(row)
    } else {
        public_view(row)
    }
}

/// An account as everybody sees it.
pub(crate) fn public_view(row: UserRow) -> User {
    User {
        email: None,
        ..own_view(row)
    }
}
