//! Accounts, and what they do over REST.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rookery_client::{Api, ApiError};
use rookery_protocol::rest::{Login, Register, Tokens};
use rookery_protocol::{ConversationId, ErrorCode, SessionId, UserId};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::keys;
use crate::measure::Measure;

const PASSWORD: &str = "correct horse battery";
/// How long a call is repeated while it is refused for a while only: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(90);
/// A token that is younger lives on for longer than any use of it takes.
const FRESH: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_millis(200);

/// Somebody with an account.
pub(crate) struct Account {
    pub(crate) number: usize,
    name: String,
    id: UserId,
    nobody: Api,
    measure: Arc<Measure>,
    held: Mutex<Held>,
}

/// What a person calls with; replaced when its token has run out.
struct Held {
    api: Api,
    tokens: Tokens,
    since: Instant,
}

impl Held {
    fn new(nobody: &Api, tokens: Tokens) -> Self {
        Self {
            api: nobody.with_token(&tokens.access_token),
            tokens,
            since: Instant::now(),
        }
    }
}

impl Account {
    pub(crate) async fn register(
        number: usize,
        nobody: &Api,
        measure: &Arc<Measure>,
    ) -> Result<Self> {
        let name = format!("person-{number}");
        let account = Register {
            username: name.clone(),
            email: format!("{name}@example.com"),
            password: PASSWORD.to_owned(),
            full_name: None,
            device_name: None,
        };
        let tokens = patiently(|| nobody.register(&account)).await;
        let tokens = tokens.with_context(|| format!("{name} cannot register"))?;
        Ok(Self {
            number,
            name,
            id: tokens.user.user_id,
            nobody: nobody.clone(),
            measure: Arc::clone(measure),
            held: Mutex::new(Held::new(nobody, tokens)),
        })
    }

    pub(crate) fn id(&self) -> UserId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its devices connect.
    pub(crate) fn url(&self) -> &str {
        self.nobody.base()
    }

    /// A new session.
    pub(crate) async fn log_in(&self) -> Result<Tokens, ApiError> {
        self.log_in_at(&self.nobody).await
    }

    /// A new session, from one node.
    pub(crate) async fn log_in_at(&self, nobody: &Api) -> Result<Tokens, ApiError> {
        let login = Login {
            login: self.name.clone(),
            password: PASSWORD.to_owned(),
            device_name: None,
        };
        patiently(|| nobody.login(&login)).await
    }

    /// New tokens for those that have this one, or of a new session, should it be refused.
    pub(crate) async fn renew(&self, refresh_token: &str) -> Result<Tokens, ApiError> {
        match patiently(|| self.nobody.refresh(refresh_token)).await {
            Err(error) if error.code == ErrorCode::Unauthenticated => self.log_in().await,
            outcome => outcome,
        }
    }

    /// Gets new tokens to call with, unless those it has are of this key.
    pub(crate) async fn renew_unless(&self, head: &str) -> Result<(), ApiError> {
        let mut held = self.held.lock().await;
        if keys::head(&held.tokens.access_token) != head {
            let tokens = self.renew(&held.tokens.refresh_token).await?;
            *held = Held::new(&self.nobody, tokens);
        }
        Ok(())
    }

    /// An access token that does not run out soon. Seldom a log-in, which a busy node puts off.
    pub(crate) async fn token(&self) -> Result<String, ApiError> {
        let mut held = self.held.lock().await;
        if held.since.elapsed() > FRESH {
            let tokens = self.renew(&held.tokens.refresh_token).await?;
            *held = Held::new(&self.nobody, tokens);
        }
        Ok(held.tokens.access_token.clone())
    }

    /// Makes the direct conversation with somebody.
    pub(crate) async fn meet(&self, other: UserId) -> Result<(), ApiError> {
        self.call(async |api| api.create_direct(other).await.map(drop))
            .await
    }

    /// A new group of this person and others.
    pub(crate) async fn group(&self, title: &str, others: &[UserId]) -> Result<ConversationId> {
        let made = self
            .call(async |api| api.create_group(title, others).await)
            .await;
        Ok(made.with_context(|| format!("no {title}"))?.conversation_id)
    }

    pub(crate) async fn add(&self, room: ConversationId, user: UserId) -> Result<(), ApiError> {
        self.call(async |api| api.add_members(room, &[user]).await)
            .await
    }

    /// Also when the user has gone already, which a repeated call finds.
    pub(crate) async fn remove(&self, room: ConversationId, user: UserId) -> Result<(), ApiError> {
        let removed = self
            .call(async |api| api.remove_member(room, user).await)
            .await;
        match removed {
            Err(error) if error.code == ErrorCode::NotFound => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn end_session(&self, session: SessionId) -> Result<(), ApiError> {
        self.call(async |api| api.end_session(session).await).await
    }

    async fn call<T>(&self, call: impl AsyncFn(Api) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let deadline = Instant::now() + PATIENCE;
        let mut held = self.held.lock().await;
        loop {
            match patiently(|| call(held.api.clone())).await {
                // A node with a wrong clock refuses what others gave, and they what it gave.
                Err(error)
                    if error.code == ErrorCode::Unauthenticated && Instant::now() < deadline =>
                {
                    self.measure.token_was_refused(held.since.elapsed());
                    *held = Held::new(&self.nobody, self.log_in().await?);
                }
                outcome => return outcome,
            }
        }
    }
}

/// Repeats a call for as long as it is refused for a while only.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, ApiError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                sleep(error.retry_after.unwrap_or(AGAIN)).await;
            }
            outcome => return outcome,
        }
    }
}
