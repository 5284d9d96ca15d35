//! Connecting, and coming back: which node, when, with which token.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng;
use rookery_protocol::command::MessageSend;
use rookery_protocol::conversation::Conversation;
use rookery_protocol::event::{Ready, ResetCursor};
use rookery_protocol::rest::Tokens;
use rookery_protocol::{CloseCode, ConversationId, ErrorCode, Seq, Timestamp, UserId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::ledger::Ledger;
use super::outbox::{Marks, Outbox};
use super::receipts::Receipts;
use super::{Command, LiveConfig, Start, Update};
use crate::rest::{Api, ApiError};
use crate::socket::{ABNORMAL, Connect, ConnectError, Socket, SocketError};

/// A connection that held this long was a good one: the next failure is a first one again.
const HELD: Duration = Duration::from_secs(10);
/// How long `ready` may take.
const READY_WAIT: Duration = Duration::from_secs(10);
/// Least wait after 1013, and after a refusal because of load without a `Retry-After`.
const LATER: Duration = Duration::from_secs(1);
/// A token younger than this that is refused will not be taken the next time either.
const YOUNG: Duration = Duration::from_secs(60);

/// How a connection, or the attempt at one, ended.
#[derive(Debug)]
pub(super) enum End {
    /// For good.
    Stop { code: u16, reason: String },
    /// To be tried again: not `before`; with a new token if the old one was refused.
    Again {
        code: u16,
        reason: String,
        before: Option<Instant>,
        refresh: bool,
    },
}

impl End {
    pub(super) fn again(code: u16, reason: impl ToString) -> Self {
        Self::Again {
            code,
            reason: reason.to_string(),
            before: None,
            refresh: false,
        }
    }

    fn later(code: u16, reason: impl ToString, wait: Duration) -> Self {
        let before = Some(Instant::now() + wait);
        Self::Again {
            code,
            reason: reason.to_string(),
            before,
            refresh: false,
        }
    }

    fn stop(reason: impl ToString) -> Self {
        Self::Stop {
            code: CloseCode::Unauthenticated.code(),
            reason: reason.to_string(),
        }
    }
}

impl From<SocketError> for End {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Closed { code, reason } if !CloseCode::reconnects(code) => {
                Self::Stop { code, reason }
            }
            SocketError::Closed { code, reason } => {
                let before = (code == CloseCode::TryLater.code()).then(|| Instant::now() + LATER);
                let refresh = code == CloseCode::TokenExpired.code();
                Self::Again {
                    code,
                    reason,
                    before,
                    refresh,
                }
            }
            error => Self::again(ABNORMAL, error),
        }
    }
}

impl From<ConnectError> for End {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused {
                status: 401, body, ..
            } => Self::Again {
                code: ABNORMAL,
                reason: body,
                before: None,
                refresh: true,
            },
            ConnectError::Refused {
                status: 400 | 403, ..
            }
            | ConnectError::Url(_) => Self::Stop {
                code: ABNORMAL,
                reason: error.to_string(),
            },
            ConnectError::Refused {
                status: 429 | 503,
                retry_after,
                ..
            } => Self::later(ABNORMAL, &error, retry_after.unwrap_or(LATER)),
            error => Self::again(ABNORMAL, error),
        }
    }
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        match (error.code, error.retry_after) {
            (ErrorCode::Unauthenticated, _) => Self::Again {
                code: ABNORMAL,
                reason: error.message,
                before: None,
                refresh: true,
            },
            (_, Some(wait)) => Self::later(ABNORMAL, &error, wait),
            _ => Self::again(ABNORMAL, error),
        }
    }
}

/// Everything that outlives a connection.
pub(super) struct Driver {
    pub(super) config: LiveConfig,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) updates: mpsc::Sender<Update>,
    pub(super) ledger: Ledger,
    pub(super) outbox: Outbox,
    pub(super) marks: Marks,
    pub(super) receipts: Receipts,
    /// The server's time when it was last heard, by this device's own measure of what passed
    /// since `ready`.
    pub(super) heard_at: Option<Timestamp>,
    pub(super) socket: Option<Socket>,
    pub(super) me: Option<UserId>,
    /// When a draining node asked to return.
    pub(super) return_at: Option<Instant>,
    pub(super) api: Api,
    node: usize,
    /// The epoch that the cursors belong to.
    epoch: Option<String>,
    /// Whether the cursors are known: named by the application, or read from the server.
    placed: bool,
}

impl Driver {
    pub(super) fn new(
        config: LiveConfig,
        commands: mpsc::Receiver<Command>,
        updates: mpsc::Sender<Update>,
    ) -> Self {
        let (cursors, placed) = match &config.start {
            Start::Cursors(cursors) => (cursors.clone(), true),
            Start::Undelivered | Start::Now => (HashMap::new(), false),
        };
        Self {
            ledger: Ledger::new(cursors),
            outbox: Outbox::new(config.outbox),
            marks: Marks::default(),
            receipts: Receipts::default(),
            heard_at: config.since,
            socket: None,
            me: None,
            return_at: None,
            api: Api::new(""),
            // Clients that know the same nodes do not all begin at the first.
            node: rand::rng().random_range(0..config.urls.len()),
            epoch: config.epoch.clone(),
            placed,
            config,
            commands,
            updates,
        }
    }

    /// Runs until stopped; returns what was never acknowledged.
    pub(super) async fn supervise(mut self, stopped: oneshot::Receiver<()>) -> Vec<MessageSend> {
        tokio::select! {
            () = self.run() => {}
            _ = stopped => {}
        }
        if let Some(socket) = self.socket.take() {
            socket.close().await;
        }
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            self.keep(command);
        }
        self.outbox.into_unsettled()
    }

    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        let mut refreshed_at: Option<Instant> = None;
        loop {
            let started = Instant::now();
            let end = match self.attempt().await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            self.socket = None;
            self.outbox.interrupted();
            self.marks.interrupted();
            if started.elapsed() > HELD {
                backoff.reset();
            }
            let (code, reason, before, refresh) = match end {
                End::Stop { code, reason } => {
                    return self.say(Update::Stopped { code, reason }).await;
                }
                End::Again {
                    code,
                    reason,
                    before,
                    refresh,
                } => (code, reason, before, refresh),
            };
            if refresh && refreshed_at.is_some_and(|at| at.elapsed() < YOUNG) {
                let code = CloseCode::Unauthenticated.code();
                return self.say(Update::Stopped { code, reason }).await;
            }
            let hinted = self.return_at.take();
            let wait = match (refresh, hinted) {
                (true, _) => Duration::ZERO,
                (_, Some(at)) => at.saturating_duration_since(Instant::now()),
                _ => backoff.next(&mut rand::rng()),
            };
            let until = before.into_iter().fold(Instant::now() + wait, Instant::max);
            let retry_in = until.saturating_duration_since(Instant::now());
            self.say(Update::Disconnected {
                code,
                reason,
                retry_in,
            })
            .await;
            self.node = (self.node + 1) % self.config.urls.len();
            self.wait_until(until).await;
            if refresh {
                match self.refresh().await {
                    Ok(()) => refreshed_at = Some(Instant::now()),
                    Err(Some(end)) => return self.say(end).await,
                    Err(None) => self.wait_until(Instant::now() + LATER).await,
                }
            }
        }
    }

    /// Connects to the next node and stays as long as it goes.
    async fn attempt(&mut self) -> Result<std::convert::Infallible, End> {
        let url = self.config.urls[self.node].clone();
        self.api = Api::new(&url).with_token(&self.config.credentials.access_token);
        if !self.placed {
            let now = matches!(self.config.start, Start::Now);
            self.ledger = Ledger::new(self.read_cursors(now).await?);
            self.placed = true;
        }
        let mut how = Connect::resuming(&self.config.credentials.access_token);
        how.format = self.config.format;
        let mut socket = Socket::connect(&url, &how).await?;
        let ready = tokio::time::timeout(READY_WAIT, socket.ready())
            .await
            .map_err(|_| End::again(ABNORMAL, "the server sent no ready"))??;
        self.socket = Some(socket);
        self.return_at = None;
        let set_back = self
            .epoch
            .as_ref()
            .is_some_and(|epoch| *epoch != ready.epoch);
        self.welcome(url, &ready).await;
        if set_back {
            self.start_over().await?;
        }
        self.epoch = Some(ready.epoch.clone());
        self.session(&ready).await
    }

    async fn welcome(&mut self, url: String, ready: &Ready) {
        self.me = Some(ready.user.user_id);
        self.say(Update::Connected {
            url,
            node_id: ready.node_id.clone(),
            user: ready.user.clone(),
            session_id: ready.session_id,
            epoch: ready.epoch.clone(),
        })
        .await;
    }

    /// The database was set back: cursors say nothing any more. Everything counts from the present
    /// ends, and the application is told to fetch what it shows.
    async fn start_over(&mut self) -> Result<(), End> {
        let cursors = self.read_cursors(true).await?;
        for (&conversation_id, &seq) in &cursors {
            self.say(Update::Reset(ResetCursor {
                conversation_id,
                seq,
            }))
            .await;
        }
        self.ledger = Ledger::new(cursors);
        self.receipts = Receipts::default();
        Ok(())
    }

    /// The cursors of someone who has everything up to the present ends, or up to what was
    /// confirmed as delivered. All memberships must be named: others count from the joining.
    async fn read_cursors(&self, now: bool) -> Result<HashMap<ConversationId, Seq>, End> {
        let cursor = |conversation: Conversation| {
            let me = &conversation.me;
            let seq = if now {
                conversation.last_seq
            } else {
                me.delivered_seq.max(me.joined_seq)
            };
            (conversation.conversation_id, seq)
        };
        Ok(self
            .api
            .all_conversations()
            .await?
            .into_iter()
            .map(cursor)
            .collect())
    }

    /// Gets new tokens. Fails with a last update where there is no hope, with `None` where a later
    /// attempt may succeed.
    async fn refresh(&mut self) -> Result<(), Option<Update>> {
        let stop = |end| match end {
            End::Stop { code, reason } => Some(Update::Stopped { code, reason }),
            End::Again { .. } => None,
        };
        let Some(refresh_token) = self.config.credentials.refresh_token.clone() else {
            return Err(stop(End::stop(
                "the access token ran out; there is no refresh token",
            )));
        };
        let url = &self.config.urls[self.node];
        match Api::new(url).refresh(&refresh_token).await {
            Ok(tokens) => {
                self.take_tokens(tokens).await;
                Ok(())
            }
            Err(error) if error.code == ErrorCode::Unauthenticated => {
                Err(stop(End::stop(error.message)))
            }
            Err(error) => Err(stop(End::from(error))),
        }
    }

    pub(super) async fn take_tokens(&mut self, tokens: Tokens) {
        self.config.credentials = (&tokens).into();
        self.say(Update::Refreshed(Box::new(tokens))).await;
    }

    pub(super) async fn say(&mut self, update: Update) {
        // Fails only when the application is gone, and then this task is about to be stopped.
        let _ = self.updates.send(update).await;
    }

    /// Waits, and goes on filling the outbox.
    async fn wait_until(&mut self, until: Instant) {
        let mut open = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                command = self.commands.recv(), if open && !self.outbox.is_full() => match command {
                    Some(command) => drop(self.keep(command)),
                    None => open = false,
                },
            }
        }
    }

    /// Keeps what is worth keeping of a command; returns what is to be sent now or never.
    pub(super) fn keep(&mut self, command: Command) -> Option<crate::ClientCommand> {
        match command {
            Command::Send(message) => self.outbox.push(message.into_send()),
            Command::Mark {
                conversation,
                seq,
                read,
            } => self.marks.set(conversation, seq, read),
            Command::Other(command) => return Some(*command),
        }
        None
    }
}
