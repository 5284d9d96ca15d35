//! One connection, from `ready` to its end: sync first, then sends and events.

use std::convert::Infallible;
use std::time::Duration;

use rookery_protocol::command::{Auth, ClientCommand, MessageSend, Ping, Sync};
use rookery_protocol::event::{ErrorEvent, Limits, Ready};
use rookery_protocol::{ErrorCode, MessageId, Timestamp, limits};
use tokio::time::{Instant, sleep_until, timeout};

use super::driver::Driver;
use super::end::End;
use super::renewal::Renewed;
use super::timers::{Due, Timers};
use super::{Tapped, Update};
use crate::socket::{Received, Socket};

/// The `ref` of the `sync` that follows `ready`.
pub(super) const SYNC: &str = "sync";
/// The `ref` of an `auth` with a new token.
pub(super) const AUTH: &str = "auth";
/// The most that one cursor of a `sync` takes in a frame, in either format.
const CURSOR_BYTES: usize = 64;
/// What else there is in the frame of a `sync`.
const SYNC_BYTES: usize = 512;

/// What is true of this connection only.
pub(super) struct Session {
    pub(super) timers: Timers,
    /// Until `sync.done` nothing is sent: what the replay shows as stored need not be repeated.
    pub(super) synced: bool,
    /// When `sync` is to be asked, for the first time or again.
    pub(super) sync_at: Option<Instant>,
    /// When a new token is to be shown, for the first time or again.
    pub(super) auth_at: Option<Instant>,
    /// When the last event came, of whatever kind.
    event_at: Instant,
    /// The server's time at `ready`, and when that was here.
    began: (Timestamp, Instant),
    limits: Limits,
    /// Sends that no frame holds, to be reported.
    too_large: Vec<MessageId>,
}

impl Session {
    fn new(now: Instant, ready: &Ready, patience: Duration) -> Self {
        Self {
            timers: Timers::new(now, ready.server_time, ready.heartbeat_seconds, patience),
            synced: false,
            sync_at: Some(now),
            auth_at: None,
            event_at: now,
            began: (ready.server_time, now),
            limits: ready.limits.clone(),
            too_large: Vec::new(),
        }
    }

    fn server_time(&self, now: Instant) -> Timestamp {
        let (at_ready, ready) = self.began;
        let passed = now.saturating_duration_since(ready).as_millis();
        at_ready.plus_millis(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    /// How many cursors fit into one frame.
    fn cursors(&self) -> usize {
        let room = self.limits.frame_bytes.saturating_sub(SYNC_BYTES);
        (room / CURSOR_BYTES).min(limits::CURSORS_PER_SYNC)
    }
}

impl Driver {
    /// Never returns but with the reason why it ended.
    pub(super) async fn session(&mut self, ready: &Ready) -> Result<Infallible, End> {
        let now = Instant::now();
        let mut session = Session::new(now, ready, self.config.patience);
        if self.config.credentials.refresh_token.is_some() {
            session.timers.token_lives(now, ready.token_expires_at);
        }
        let inbox = std::sync::Arc::clone(&self.inbox);
        loop {
            timeout(self.config.patience, self.write(&mut session))
                .await
                .map_err(|_| End::again("the server does not read"))??;
            if let Some(message_id) = session.too_large.pop() {
                self.fail_too_large(message_id, session.limits.frame_bytes)
                    .await;
                // What stood behind it may leave.
                continue;
            }
            let wake = self.wakes_at(&session);
            tokio::select! {
                received = socket(&mut self.socket)?.next() => {
                    self.on_received(&mut session, received?).await?;
                }
                () = inbox.filled() => {}
                renewed = self.renewal.finished() => self.on_renewed(&mut session, renewed).await,
                () = sleep_until(wake) => self.on_timer(&mut session).await?,
            }
        }
    }

    fn wakes_at(&self, session: &Session) -> Instant {
        let (sends, marks) = {
            let state = self.inbox.lock();
            (state.outbox.wakes_at(), state.marks.wakes_at())
        };
        let waiting = [sends, marks]
            .into_iter()
            .flatten()
            .filter(|_| session.synced);
        let asked = [session.sync_at, session.auth_at, self.stuck_at(session)];
        let asked = asked.into_iter().flatten();
        waiting
            .chain(asked)
            .fold(session.timers.next(), Instant::min)
    }

    /// When this node counts as stuck, unless it answers: its pings prove only that it is there.
    /// While the application let this task wait, no answer could be heard.
    fn stuck_at(&self, session: &Session) -> Option<Instant> {
        let since = if session.synced {
            self.inbox.lock().outbox.unanswered_since()?
        } else {
            session
                .event_at
                .max(session.sync_at.unwrap_or(session.event_at))
        };
        let heard_since = self.deaf_until.map_or(since, |until| until.max(since));
        Some(heard_since + self.config.patience)
    }

    /// Feeds everything that is due and writes it in one go.
    async fn write(&mut self, session: &mut Session) -> Result<(), End> {
        let now = Instant::now();
        if session.auth_at.is_some_and(|at| now >= at) {
            session.auth_at = None;
            let auth = Auth {
                reference: Some(AUTH.to_owned()),
                token: self.config.credentials.access_token.clone(),
                resume: false,
            };
            self.feed(&ClientCommand::Auth(auth)).await?;
        }
        if session.sync_at.is_some_and(|at| now >= at) {
            session.sync_at = None;
            session.event_at = now;
            self.ledger.begin_sync();
            let sync = Sync {
                reference: Some(SYNC.to_owned()),
                cursors: Some(self.ledger.cursors(session.cursors())),
                since: self.heard_at,
            };
            self.feed(&ClientCommand::Sync(sync)).await?;
        }
        while let Some(command) = self.next_command() {
            self.feed(&command).await?;
        }
        if session.synced {
            while let Some(send) = self.next_send(now, session) {
                self.feed_send(session, send).await?;
            }
            while let Some(mark) = self.next_mark(now) {
                self.feed(&mark).await?;
            }
        }
        Ok(socket(&mut self.socket)?.flush().await?)
    }

    fn next_command(&self) -> Option<ClientCommand> {
        self.inbox.lock().commands.pop_front()
    }

    fn next_send(&self, now: Instant, session: &Session) -> Option<MessageSend> {
        let mut state = self.inbox.lock();
        state.outbox.next_due(now, session.limits.in_flight)
    }

    fn next_mark(&self, now: Instant) -> Option<ClientCommand> {
        self.inbox.lock().marks.next_due(now)
    }

    async fn feed(&mut self, command: &ClientCommand) -> Result<(), End> {
        self.tap(Tapped::Out(command));
        Ok(socket(&mut self.socket)?.feed(command).await?)
    }

    /// A send that no frame holds would end every connection it leaves on, so it fails here.
    async fn feed_send(&mut self, session: &mut Session, send: MessageSend) -> Result<(), End> {
        let message_id = send.message_id;
        let command = ClientCommand::MessageSend(send);
        let frame = socket(&mut self.socket)?.encode(&command)?;
        if frame.len() > session.limits.frame_bytes {
            session.too_large.push(message_id);
            return Ok(());
        }
        self.tap(Tapped::Out(&command));
        Ok(socket(&mut self.socket)?.feed_raw(frame).await?)
    }

    async fn fail_too_large(&mut self, message_id: MessageId, allowed: usize) {
        if self.inbox.settle(message_id).is_some() {
            let error = ErrorEvent {
                reference: Some(message_id.to_string()),
                code: ErrorCode::TooLarge,
                message: format!("the message needs a frame of more than {allowed} bytes"),
                retryable: false,
                retry_after_ms: None,
                details: Vec::new(),
                message_id: Some(message_id),
            };
            self.say(Update::Failed { message_id, error }).await;
        }
    }

    async fn on_received(&mut self, session: &mut Session, received: Received) -> Result<(), End> {
        let now = Instant::now();
        session.timers.heard(now);
        if session.synced {
            self.heard_at = Some(session.server_time(now));
        }
        let Received::Event(event) = received else {
            return Ok(());
        };
        session.event_at = now;
        self.tap(Tapped::In(&event));
        self.on_event(session, *event).await
    }

    async fn on_timer(&mut self, session: &mut Session) -> Result<(), End> {
        let now = Instant::now();
        if self.stuck_at(session).is_some_and(|at| now >= at) {
            return Err(End::again("the server does not answer"));
        }
        match session.timers.due(now) {
            Due::Nothing => Ok(()),
            Due::Ping => {
                let ping = Ping { reference: None };
                self.feed(&ClientCommand::Ping(ping)).await
            }
            Due::Dead => Err(End::again("the server has fallen silent")),
            Due::Renew => {
                if self.start_renewal() {
                    session.timers.renewing(now);
                } else {
                    session.timers.renew_never();
                }
                Ok(())
            }
        }
    }

    async fn on_renewed(&mut self, session: &mut Session, renewed: Renewed) {
        match renewed {
            Renewed::Tokens(tokens) => {
                self.take_tokens(*tokens).await;
                session.auth_at = Some(Instant::now());
            }
            Renewed::Later(_) => session.timers.renewing(Instant::now()),
            // It shows when the token runs out; until then this connection may live.
            Renewed::Refused(_) => session.timers.renew_never(),
        }
    }

    pub(super) fn on_auth_ok(&self, session: &mut Session, until: Timestamp) {
        let renews = self.config.credentials.refresh_token.is_some();
        if renews {
            session.timers.token_lives(Instant::now(), until);
        }
    }
}

/// The socket of a running session; its absence would be a mistake of this crate, and ends it.
fn socket(socket: &mut Option<Socket>) -> Result<&mut Socket, End> {
    socket
        .as_mut()
        .ok_or_else(|| End::again("there is no socket"))
}
