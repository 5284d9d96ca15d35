//! How to start a [`Live`](super::Live).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::rest::Tokens;
use rookery_protocol::{ConversationId, Format, Seq, Timestamp};

use crate::{ClientCommand, ServerEvent};

/// What proves who one is. Without a refresh token the connection ends with the access token.
#[derive(Clone, Default)]
pub struct Credentials {
    pub access_token: String,
    pub refresh_token: Option<String>,
}

impl From<&Tokens> for Credentials {
    fn from(tokens: &Tokens) -> Self {
        Self {
            access_token: tokens.access_token.clone(),
            refresh_token: Some(tokens.refresh_token.clone()),
        }
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Which messages come first.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// Those that no device of this user has confirmed as delivered.
    #[default]
    Undelivered,
    /// Those that are sent from now on.
    Now,
    /// Those after these cursors, as [`Update`](super::Update) explains how to keep them.
    /// Memberships that are not named count from the joining.
    Cursors(HashMap<ConversationId, Seq>),
}

/// One thing that happened on the wire, before anything is merged, repeated or left out.
#[derive(Clone, Copy, Debug)]
pub enum Tapped<'a> {
    /// A connection was upgraded at this URL.
    Opened { url: &'a str },
    /// A command was handed to the connection: also each repetition of a send, and the `sync` with
    /// its cursors.
    Out(&'a ClientCommand),
    /// An event arrived: also duplicates, acknowledgements of what was settled, and refusals that
    /// will be retried.
    In(&'a ServerEvent),
    /// A connection, or the attempt at one, ended: the close code, 1006 if there was none.
    Closed { code: u16, reason: &'a str },
}

/// Looks on while a [`Live`](super::Live) works, for tests and records of what really went over the
/// wire. Called by the task that owns the connection: it must be quick and must not wait.
#[derive(Clone)]
pub struct Tap(Arc<dyn Fn(Tapped<'_>) + Send + Sync>);

impl Tap {
    #[must_use]
    pub fn new(look: impl Fn(Tapped<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    pub(super) fn show(&self, tapped: Tapped<'_>) {
        (self.0)(tapped);
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap(..)")
    }
}

/// How to start a [`Live`](super::Live).
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// Base URLs (`http://…` or `https://…`) of nodes of one cluster, or of its load balancer.
    pub urls: Vec<String>,
    pub credentials: Credentials,
    pub format: Format,
    pub start: Start,
    /// The epoch that [`Start::Cursors`] belong to, if it was kept: see
    /// [`Update::Connected`](super::Update::Connected).
    pub epoch: Option<String>,
    /// The server's time when this device was last connected, if it was kept: what was read on
    /// other devices since is handed out as [`Update::Read`](super::Update::Read).
    pub since: Option<Timestamp>,
    /// Sends that may wait for their acknowledgement; then [`Handle::send`](super::Handle::send)
    /// waits.
    pub outbox: usize,
    /// Bytes of content and metadata that may wait so, too.
    pub outbox_bytes: usize,
    /// Updates that may wait for the application; then the socket is not read.
    pub updates: usize,
    /// How long a node may leave something unanswered, or not take what is written, before it is
    /// left for another one.
    pub patience: Duration,
    /// Who looks on.
    pub tap: Option<Tap>,
}

impl LiveConfig {
    #[must_use]
    pub fn new<U: Into<String>>(
        urls: impl IntoIterator<Item = U>,
        credentials: Credentials,
    ) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            credentials,
            format: Format::Json,
            start: Start::default(),
            epoch: None,
            since: None,
            outbox: 1_024,
            outbox_bytes: 8 * 1024 * 1024,
            updates: 1_024,
            patience: Duration::from_secs(30),
            tap: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), BadConfig> {
        if self.urls.is_empty() {
            return Err(BadConfig("at least one URL is needed"));
        }
        if self.outbox == 0 || self.outbox_bytes == 0 || self.updates == 0 {
            return Err(BadConfig(
                "the outbox and the queue of updates need room for one",
            ));
        }
        Ok(())
    }
}

/// A [`LiveConfig`] that cannot work.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let credentials = Credentials {
            access_token: "hunter1".into(),
            refresh_token: Some("hunter2".into()),
        };
        let shown = format!("{:?}", LiveConfig::new(["http://h"], credentials));
        assert!(!shown.contains("hunter"), "{shown}");
    }
}
