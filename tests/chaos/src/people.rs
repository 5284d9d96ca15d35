//! Accounts, and what they do over REST.

use std::time::Duration;

use anyhow::{Context, Result};
use rookery_client::{Api, ApiError};
use rookery_protocol::rest::{Login, Register, Tokens};
use rookery_protocol::{ConversationId, ErrorCode, SessionId, UserId};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

const PASSWORD: &str = "correct horse battery";
/// How long a call is repeated while it is refused for a while only: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(90);
const AGAIN: Duration = Duration::from_millis(200);

/// Somebody with an account.
pub(crate) struct Account {
    pub(crate) number: usize,
    name: String,
    id: UserId,
    nobody: Api,
    /// As this person; replaced when its token has run out.
    api: Mutex<Api>,
}

impl Account {
    pub(crate) async fn register(number: usize, nobody: &Api) -> Result<Self> {
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
            api: Mutex::new(nobody.with_token(&tokens.access_token)),
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
        let login = Login {
            login: self.name.clone(),
            password: PASSWORD.to_owned(),
            device_name: None,
        };
        patiently(|| self.nobody.login(&login)).await
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
        let mut api = self.api.lock().await;
        match patiently(|| call(api.clone())).await {
            Err(error) if error.code == ErrorCode::Unauthenticated => {
                *api = self.nobody.with_token(&self.log_in().await?.access_token);
                patiently(|| call(api.clone())).await
            }
            outcome => outcome,
        }
    }
}

async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(
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
