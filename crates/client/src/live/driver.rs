//! Connecting, and coming back: which node, when, with which token.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::rest::Tokens;
use rookery_protocol::{Timestamp, UserId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::Backoff;
use super::end::{End, Next};
use super::inbox::Inbox;
use super::ledger::Ledger;
use super::nodes::Nodes;
use super::receipts::Receipts;
use super::renewal::{Renewal, Renewed};
use super::{Closed, LiveConfig, Start, Tapped, Update};
use crate::ServerEvent;
use crate::rest::Api;
use crate::socket::{Connect, Socket};

/// How long a connection, and then `ready`, may take; less where the application has less patience.
const OPEN_WAIT: Duration = Duration::from_secs(10);
/// Where a token younger than this is refused, the next one is not asked for at once.
const YOUNG: Duration = Duration::from_secs(60);

/// Everything that outlives a connection.
pub(super) struct Driver {
    pub(super) config: LiveConfig,
    pub(super) inbox: Arc<Inbox>,
    updates: mpsc::Sender<Update>,
    pub(super) ledger: Ledger,
    pub(super) receipts: Receipts,
    /// The server's time when it was last heard, by this device's own measure of what passed
    /// since `ready`.
    pub(super) heard_at: Option<Timestamp>,
    pub(super) socket: Option<Socket>,
    pub(super) me: Option<UserId>,
    /// When a draining node asked to return.
    pub(super) return_at: Option<Instant>,
    pub(super) api: Api,
    pub(super) nodes: Nodes,
    pub(super) renewal: Renewal,
    /// The epoch that the cursors belong to.
    pub(super) epoch: Option<String>,
    /// Whether the cursors are known: named by the application, or read from the server.
    pub(super) placed: bool,
    /// When the application last let this task wait: until then it heard nobody.
    pub(super) deaf_until: Option<Instant>,
    /// Since when the connection is one.
    ready_at: Option<Instant>,
    /// When the access token is from, if it was renewed here.
    refreshed_at: Option<Instant>,
    /// The access token was made since the last one was refused, and no node has taken it yet.
    on_trial: bool,
}

impl Driver {
    pub(super) fn new(
        config: LiveConfig,
        inbox: Arc<Inbox>,
        updates: mpsc::Sender<Update>,
    ) -> Self {
        let (ledger, placed) = match &config.start {
            Start::Cursors(cursors) => (Ledger::new(cursors.clone()), true),
            Start::Undelivered | Start::Now => (Ledger::default(), false),
        };
        Self {
            inbox,
            updates,
            ledger,
            receipts: Receipts::default(),
            heard_at: config.since,
            socket: None,
            me: None,
            return_at: None,
            api: Api::new(""),
            nodes: Nodes::new(config.urls.clone(), &mut rand::rng()),
            renewal: Renewal::default(),
            epoch: config.epoch.clone(),
            placed,
            deaf_until: None,
            ready_at: None,
            refreshed_at: None,
            on_trial: false,
            config,
        }
    }

    /// Runs until stopped; returns what an application has to keep.
    pub(super) async fn supervise(mut self, stopped: oneshot::Receiver<()>) -> Closed {
        tokio::select! {
            () = self.run() => {}
            _ = stopped => {}
        }
        let unacked = self.inbox.end();
        if let Some(socket) = self.socket.take() {
            socket.close().await;
        }
        let mut credentials = self.config.credentials;
        if let Some(tokens) = self.renewal.last().await {
            credentials = (&tokens).into();
        }
        Closed {
            unacked,
            credentials,
        }
    }

    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let end = match self.attempt().await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            self.cleared(&end, &mut backoff);
            let end = match end.next {
                Next::Refresh => match self.come_back_with_new_tokens(end, &mut backoff).await {
                    Ok(()) => continue,
                    Err(end) => end,
                },
                Next::Stop => end,
                Next::Again | Next::After(_) => {
                    self.come_back(end, &mut backoff).await;
                    continue;
                }
            };
            let End { code, reason, .. } = end;
            return self.say(Update::Stopped { code, reason }).await;
        }
    }

    /// What a connection leaves behind when it has ended.
    fn cleared(&mut self, end: &End, backoff: &mut Backoff) {
        self.tap(Tapped::Closed {
            code: end.code,
            reason: &end.reason,
        });
        self.socket = None;
        self.inbox.connected(false);
        {
            let mut state = self.inbox.lock();
            state.outbox.interrupted();
            state.marks.interrupted(Instant::now());
        }
        if let Some(at) = self.ready_at.take() {
            backoff.held(at.elapsed());
        }
    }

    /// Waits until the next attempt may be made: as long as a server asked, else as the dice say.
    async fn come_back(&mut self, end: End, backoff: &mut Backoff) {
        let now = Instant::now();
        if let Next::After(hint) = end.next {
            self.nodes.leave_alone(now, hint);
        }
        let free_at = self.nodes.advance(now);
        let until = match self.return_at.take() {
            // Already spread by the server.
            Some(at) => free_at.map_or(at, |free_at| free_at.max(at)),
            None => free_at.unwrap_or(now) + backoff.next(&mut rand::rng()),
        };
        let retry_in = until.saturating_duration_since(now);
        self.say_disconnected(end, retry_in).await;
        self.wait_until(until).await;
    }

    /// The token was refused: gets another one and comes back at once. Fails if that is no use.
    async fn come_back_with_new_tokens(
        &mut self,
        end: End,
        backoff: &mut Backoff,
    ) -> Result<(), End> {
        if self.on_trial {
            return Err(End::refused(end.reason));
        }
        let is_young = self.refreshed_at.is_some_and(|at| at.elapsed() < YOUNG);
        let wait = match is_young {
            true => backoff.next(&mut rand::rng()),
            false => Duration::ZERO,
        };
        self.say_disconnected(end, wait).await;
        self.wait_until(Instant::now() + wait).await;
        loop {
            if !self.start_renewal() {
                return Err(End::refused(
                    "the access token ran out; there is no refresh token",
                ));
            }
            match self.renewal.finished().await {
                Renewed::Tokens(tokens) => {
                    self.take_tokens(*tokens).await;
                    self.on_trial = true;
                    return Ok(());
                }
                Renewed::Refused(error) => return Err(End::refused(error.message)),
                Renewed::Later(error) => self.come_back(End::from(error), backoff).await,
            }
        }
    }

    async fn say_disconnected(&mut self, end: End, retry_in: Duration) {
        let End { code, reason, .. } = end;
        self.say(Update::Disconnected {
            code,
            reason,
            retry_in,
        })
        .await;
    }

    /// Connects to the next node and stays as long as it goes.
    async fn attempt(&mut self) -> Result<Infallible, End> {
        let url = self.nodes.current().to_owned();
        let token = self.config.credentials.access_token.clone();
        self.api = self.api.at(&url).with_token(&token);
        if !self.placed {
            self.find_place().await?;
        }
        let mut how = Connect::resuming(&token);
        how.format = self.config.format;
        how.timeout = OPEN_WAIT.min(self.config.patience);
        let mut socket = Socket::connect(&url, &how).await?;
        self.tap(Tapped::Opened { url: &url });
        let ready = timeout(how.timeout, socket.ready())
            .await
            .map_err(|_| End::again("the server sent no ready"))??;
        self.tap(Tapped::In(&ServerEvent::Ready(ready.clone())));
        self.socket = Some(socket);
        self.ready_at = Some(Instant::now());
        self.return_at = None;
        self.on_trial = false;
        self.me = Some(ready.user.user_id);
        self.inbox.lock().outbox.identify(ready.user.user_id);
        self.inbox.connected(true);
        self.say(Update::Connected {
            url,
            node_id: ready.node_id.clone(),
            user: ready.user.clone(),
            session_id: ready.session_id,
            epoch: ready.epoch.clone(),
            server_time: ready.server_time,
        })
        .await;
        self.check_epoch(&ready.epoch).await?;
        self.session(&ready).await
    }

    /// Begins to get new tokens, if it has not begun. Whether there is something to get them with.
    pub(super) fn start_renewal(&mut self) -> bool {
        if self.renewal.is_running() {
            return true;
        }
        let Some(refresh_token) = self.config.credentials.refresh_token.clone() else {
            return false;
        };
        let urls = self.nodes.in_turn();
        self.renewal
            .start(self.api.without_token(), urls, refresh_token);
        true
    }

    pub(super) async fn take_tokens(&mut self, tokens: Tokens) {
        self.config.credentials = (&tokens).into();
        self.refreshed_at = Some(Instant::now());
        self.say(Update::Refreshed(Box::new(tokens))).await;
    }

    /// Hands out an update. Waits for an application that does not read; whoever waits for room
    /// in the outbox meanwhile is told, since they may be the ones who should read.
    pub(super) async fn say(&mut self, update: Update) {
        let Err(error) = self.updates.try_send(update) else {
            return;
        };
        // The application is gone, and this task is about to be stopped.
        let mpsc::error::TrySendError::Full(update) = error else {
            return;
        };
        self.inbox.stalled(true);
        let _ = self.updates.send(update).await;
        self.inbox.stalled(false);
        self.deaf_until = Some(Instant::now());
    }

    pub(super) fn tap(&self, tapped: Tapped<'_>) {
        if let Some(tap) = &self.config.tap {
            tap.show(tapped);
        }
    }

    /// Waits; tokens that arrive meanwhile are taken.
    async fn wait_until(&mut self, until: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                renewed = self.renewal.finished() => {
                    if let Renewed::Tokens(tokens) = renewed {
                        self.take_tokens(*tokens).await;
                    }
                }
            }
        }
    }
}
