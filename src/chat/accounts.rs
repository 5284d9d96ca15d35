//! Accounts: registering, logging in, staying logged in, logging out.

mod blocks;
mod profiles;

use std::net::IpAddr;
use std::sync::Arc;

use rookery_protocol::event::ErrorDetail;
use rookery_protocol::rest::{Login, Refresh, Register, Session, Tokens};
use rookery_protocol::user::UserRole;
use rookery_protocol::{ErrorCode, SessionId, UserId, limits, validate};

use crate::auth::passwords::Verdict;
use crate::auth::rate_limit::{Limited, Subject};
use crate::auth::sessions::{Device, Issued, Renewal};
use crate::auth::{Access, Auth};
use crate::chat::fanout::Fanout;
use crate::clock::{Clock, new_id};
use crate::error::AppError;
use crate::metrics;
use crate::store::{Credentials, NewUser, SessionRow, Store, Taken, UserRow};

pub(crate) use profiles::{own_view, public_view};

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub ip: IpAddr,
    pub user_agent: Option<String>,
}

/// The rules of accounts.
pub struct Accounts {
    store: Arc<dyn Store>,
    auth: Arc<Auth>,
    fanout: Arc<Fanout>,
    clock: Clock,
}

/// The one answer to a wrong password and to an unknown name.
const WRONG: &str = "wrong username, e-mail address or password";

impl Accounts {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, auth: Arc<Auth>, fanout: Arc<Fanout>, clock: Clock) -> Self {
        Self {
            store,
            auth,
            fanout,
            clock,
        }
    }

    /// Makes an account and logs it in.
    ///
    /// # Errors
    /// `INVALID`, `RATE_LIMITED`; `CONFLICT` names the field that somebody else has.
    pub async fn register(&self, request: Register, from: Origin) -> Result<Tokens, AppError> {
        let username = validate::username(&request.username)?;
        let email = validate::email(&request.email)?;
        validate::password(&request.password)?;
        check_line("full_name", request.full_name.as_deref())?;
        check_line("device_name", request.device_name.as_deref())?;
        self.auth
            .rates
            .check(Limited::RegisterFrom, Subject::ip(from.ip))
            .await?;
        let user = NewUser {
            user_id: UserId::from_uuid(new_id()),
            username,
            email,
            password_hash: self.auth.passwords.hash(request.password).await?,
            full_name: request.full_name,
            role: UserRole::User,
            created_at: self.clock.now(),
        };
        let user = self.store.insert_user(&user).await?.map_err(taken)?;
        self.open_session(&user, request.device_name, from).await
    }

    /// Logs in with a username or an e-mail address.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a wrong password and an unknown name alike, in equal time;
    /// `RATE_LIMITED`; `FORBIDDEN` for the right password of a banned account.
    pub async fn login(&self, request: Login, from: Origin) -> Result<Tokens, AppError> {
        let result = self.log_in(request, from).await;
        let logins = metrics::auth_logins_total();
        match &result {
            Ok(_) => logins.ok.increment(1),
            Err(error) if error.code == ErrorCode::RateLimited => logins.limited.increment(1),
            Err(_) => logins.refused.increment(1),
        }
        result
    }

    async fn log_in(&self, request: Login, from: Origin) -> Result<Tokens, AppError> {
        check_line("device_name", request.device_name.as_deref())?;
        let rates = &self.auth.rates;
        rates
            .check(Limited::LoginFrom, Subject::ip(from.ip))
            .await?;
        rates
            .check(Limited::LoginOfAccount, Subject::account(&request.login))
            .await?;
        let found = self.credentials(&request.login).await?;
        let stored = found.as_ref().map(|found| found.password_hash.clone());
        let verdict = self.auth.passwords.verify(request.password, stored).await?;
        let (Some(Credentials { user, .. }), Verdict::Right { rehashed }) = (found, verdict) else {
            return Err(AppError::unauthenticated(WRONG));
        };
        if user.banned_at.is_some() {
            return Err(AppError::forbidden("this account is banned"));
        }
        if let Some(rehashed) = rehashed {
            self.store
                .set_password_hash(user.user_id, &rehashed)
                .await?;
        }
        self.open_session(&user, request.device_name, from).await
    }

    /// Exchanges a refresh token.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: unknown, expired, ended or replaced; `RATE_LIMITED`.
    pub async fn refresh(&self, request: Refresh, from: Origin) -> Result<Tokens, AppError> {
        self.auth
            .rates
            .check(Limited::RefreshFrom, Subject::ip(from.ip))
            .await?;
        match self.auth.sessions.renew(&request.refresh_token).await? {
            Renewal::Renewed(user, issued) => Ok(tokens(&user, issued)),
            Renewal::Reused(user_id, session_id) => {
                metrics::auth_refresh_reuse_total().increment(1);
                self.fanout.revoked(user_id, &[session_id]);
                Err(refresh_refused())
            }
            Renewal::Refused => Err(refresh_refused()),
        }
    }

    /// Ends the session this access belongs to. Repeating it changes nothing.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn logout(&self, access: &Access) -> Result<(), AppError> {
        self.end(access.user_id, access.session_id).await.map(drop)
    }

    /// Ends all sessions of the user, this one too.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn logout_all(&self, access: &Access) -> Result<(), AppError> {
        let ended = self.auth.sessions.end_all(access.user_id).await?;
        if !ended.is_empty() {
            self.fanout.revoked(access.user_id, &ended);
        }
        Ok(())
    }

    /// The user's live sessions, the newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn sessions(&self, access: &Access) -> Result<Vec<Session>, AppError> {
        let rows = self
            .store
            .sessions_of(access.user_id, self.clock.now())
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| session_view(row, access.session_id))
            .collect())
    }

    /// Ends one of the user's sessions.
    ///
    /// # Errors
    /// `NOT_FOUND` if the user has no such live session.
    pub async fn end_session(&self, access: &Access, id: SessionId) -> Result<(), AppError> {
        if self.end(access.user_id, id).await? {
            Ok(())
        } else {
            Err(AppError::not_found())
        }
    }

    async fn end(&self, user: UserId, session_id: SessionId) -> Result<bool, AppError> {
        let ended = self.auth.sessions.end(user, session_id).await?;
        if ended {
            self.fanout.revoked(user, &[session_id]);
        }
        Ok(ended)
    }

    async fn credentials(&self, login: &str) -> Result<Option<Credentials>, AppError> {
        let login = login.trim();
        // No name of ours, and PostgreSQL would refuse U+0000 with an error.
        if login.is_empty() || login.len() > limits::EMAIL_BYTES || login.contains('\0') {
            return Ok(None);
        }
        Ok(self.store.credentials(&login.to_lowercase()).await?)
    }

    async fn open_session(
        &self,
        user: &UserRow,
        name: Option<String>,
        from: Origin,
    ) -> Result<Tokens, AppError> {
        let device = Device {
            name,
            ip: Some(from.ip),
            user_agent: from.user_agent,
        };
        let issued = self.auth.sessions.open(user, device).await?;
        Ok(tokens(user, issued))
    }
}

fn check_line(field: &str, text: Option<&str>) -> Result<(), AppError> {
    match text {
        Some(text) => Ok(validate::line(field, text, limits::NAME_CHARS)?),
        None => Ok(()),
    }
}

fn taken(taken: Taken) -> AppError {
    let (field, message) = match taken {
        Taken::Username => ("username", "this username is taken"),
        Taken::Email => ("email", "this e-mail address has an account"),
    };
    let detail = ErrorDetail {
        field: field.into(),
        reason: "is taken".into(),
        allowed: None,
    };
    AppError {
        details: vec![detail],
        ..AppError::new(ErrorCode::Conflict, message)
    }
}

fn refresh_refused() -> AppError {
    AppError::unauthenticated("the refresh token is not valid any more; log in again")
}

fn tokens(user: &UserRow, issued: Issued) -> Tokens {
    Tokens {
        user: own_view(user.clone()),
        access_token: issued.access_token,
        refresh_token: issued.refresh_token,
        token_type: "Bearer".into(),
        expires_in: issued.expires_in,
    }
}

fn session_view(row: SessionRow, current: SessionId) -> Session {
    Session {
        session_id: row.session_id,
        device_name: row.device_name,
        ip: row.ip,
        user_agent: row.user_agent,
        created_at: row.created_at,
        last_used_at: row.last_used_at,
        expires_at: row.expires_at,
        current: row.session_id == current,
    }
}
