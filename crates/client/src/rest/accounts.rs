//! Accounts, log-ins and people.

use rookery_protocol::rest::{Login, Page, Refresh, Register, Session, Tokens, UpdateProfile};
use rookery_protocol::user::User;
use rookery_protocol::{SessionId, UserId};
use serde::de::IgnoredAny;

use super::{Api, ApiError, Method, PageRequest};

impl Api {
    /// Makes an account and logs in.
    ///
    /// # Errors
    /// `INVALID` names the field; `CONFLICT`: the username or e-mail address is taken.
    pub async fn register(&self, register: &Register) -> Result<Tokens, ApiError> {
        self.post("/auth/register", register).await
    }

    /// Logs in; a new session.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: unknown name or wrong password; `RATE_LIMITED`.
    pub async fn login(&self, login: &Login) -> Result<Tokens, ApiError> {
        self.post("/auth/login", login).await
    }

    /// Trades a refresh token for new tokens; the old one is used up.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: the token is unknown, used up or its session was ended.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, ApiError> {
        self.post(
            "/auth/refresh",
            &Refresh {
                refresh_token: refresh_token.to_owned(),
            },
        )
        .await
    }

    /// Ends this session.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when it has ended already.
    pub async fn logout(&self) -> Result<(), ApiError> {
        self.post::<_, IgnoredAny>("/auth/logout", &serde_json::json!({}))
            .await
            .map(drop)
    }

    /// Ends every session of this user.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when this session has ended already.
    pub async fn logout_all(&self) -> Result<(), ApiError> {
        self.post::<_, IgnoredAny>("/auth/logout-all", &serde_json::json!({}))
            .await
            .map(drop)
    }

    /// One's own sessions.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub async fn sessions(&self) -> Result<Page<Session>, ApiError> {
        self.get("/auth/sessions", &[]).await
    }

    /// Ends one of one's own sessions.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is none of that id, or it is not one's own.
    pub async fn end_session(&self, session: SessionId) -> Result<(), ApiError> {
        self.delete(&format!("/auth/sessions/{session}")).await
    }

    /// Oneself.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub async fn me(&self) -> Result<User, ApiError> {
        self.get("/users/me", &[]).await
    }

    /// Changes one's own profile.
    ///
    /// # Errors
    /// `INVALID` names the field.
    pub async fn update_me(&self, changes: &UpdateProfile) -> Result<User, ApiError> {
        self.patch("/users/me", changes).await
    }

    /// One person.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn user(&self, user: UserId) -> Result<User, ApiError> {
        self.get(&format!("/users/{user}"), &[]).await
    }

    /// People whose name matches; the first page.
    ///
    /// # Errors
    /// `INVALID`: the query is too short or too long.
    pub async fn search_users(&self, query: &str) -> Result<Page<User>, ApiError> {
        self.search_users_page(query, &PageRequest::default()).await
    }

    /// People whose name matches, page by page.
    ///
    /// # Errors
    /// `INVALID`: the query or the cursor is not allowed.
    pub async fn search_users_page(
        &self,
        query: &str,
        page: &PageRequest,
    ) -> Result<Page<User>, ApiError> {
        let mut pairs = page.pairs();
        pairs.push(("query", query.to_owned()));
        self.get("/users", &pairs).await
    }

    /// The people of these ids, at most 200; unknown ones are left out.
    ///
    /// # Errors
    /// `INVALID`: too many ids.
    pub async fn users_by_ids(&self, ids: &[UserId]) -> Result<Vec<User>, ApiError> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let page: Page<User> = self.get("/users", &[("user_ids", ids.join(","))]).await?;
        Ok(page.items)
    }

    /// Blocks somebody: no direct messages from them, and no presence for them.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is no such user; `INVALID`: it is oneself.
    pub async fn block(&self, user: UserId) -> Result<(), ApiError> {
        let path = format!("/users/{user}/block");
        self.call::<(), IgnoredAny>(Method::PUT, &path, &[], None)
            .await
            .map(drop)
    }

    /// Ends a block.
    ///
    /// # Errors
    /// As [`Api::block`].
    pub async fn unblock(&self, user: UserId) -> Result<(), ApiError> {
        self.delete(&format!("/users/{user}/block")).await
    }

    /// One page of those whom one blocks.
    ///
    /// # Errors
    /// `INVALID`: the cursor is none of this server's.
    pub async fn blocks(&self, page: &PageRequest) -> Result<Page<User>, ApiError> {
        self.get("/users/blocks", &page.pairs()).await
    }
}
