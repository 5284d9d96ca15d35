//! New tokens for old: one attempt at a time, which outlives the connection it began on.

use std::time::Duration;

use rookery_protocol::ErrorCode;
use rookery_protocol::rest::Tokens;
use tokio::task::JoinHandle;

use crate::rest::{Api, ApiError};

/// How long one request may take. A server that has taken a refresh token takes it once more for
/// 20 s as long as its successor is unused: an answer that was lost is asked for again well within.
const REQUEST: Duration = Duration::from_secs(4);
/// Requests with the same token in a row, within those 20 s.
const REQUESTS: usize = 4;
/// Between two of them: a node that refuses connections does so at once.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the end waits for tokens that are on their way, which would be lost with it.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Renewed {
    Tokens(Box<Tokens>),
    /// Another attempt may succeed.
    Later(ApiError),
    /// The token was refused.
    Refused(ApiError),
}

/// A refresh token is used up by its first use, so no two attempts may run at once, and none may be
/// dropped half-way: what a server answered would be lost, and with it the session.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    running: Option<JoinHandle<Renewed>>,
}

impl Renewal {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins an attempt at these nodes in turn, unless one is under way.
    pub(super) fn start(&mut self, api: Api, urls: Vec<String>, refresh_token: String) {
        if self.running.is_none() {
            self.running = Some(tokio::spawn(renew(api, urls, refresh_token)));
        }
    }

    /// What became of the attempt that is under way; never, if none is. Safe to cancel.
    pub(super) async fn finished(&mut self) -> Renewed {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let outcome = running.await;
        self.running = None;
        outcome.unwrap_or_else(|error| Renewed::Later(ApiError::unavailable(error.to_string())))
    }

    /// Waits a while for the tokens that are on their way, if any are.
    pub(super) async fn last(mut self) -> Option<Tokens> {
        self.running.as_ref()?;
        match tokio::time::timeout(LAST_WAIT, self.finished()).await {
            Ok(Renewed::Tokens(tokens)) => Some(*tokens),
            _ => None,
        }
    }
}

async fn renew(api: Api, urls: Vec<String>, refresh_token: String) -> Renewed {
    let mut last = ApiError::unavailable("there is no node to ask".into());
    for url in urls.iter().cycle().take(REQUESTS) {
        let api = api.at(url);
        match tokio::time::timeout(REQUEST, api.refresh(&refresh_token)).await {
            Ok(Ok(tokens)) => return Renewed::Tokens(Box::new(tokens)),
            Ok(Err(error)) if is_refusal(error.code) => return Renewed::Refused(error),
            // Somebody answered, and asked for patience.
            Ok(Err(error)) if error.code == ErrorCode::RateLimited => return Renewed::Later(error),
            Ok(Err(error)) => last = error,
            Err(_) => last = ApiError::unavailable(format!("no answer within {REQUEST:?}")),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Renewed::Later(last)
}

fn is_refusal(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Unauthenticated | ErrorCode::Forbidden | ErrorCode::Invalid
    )
}
