//! One connection, from `ready` to its end: sync first, then sends and events.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use rookery_protocol::Timestamp;
use rookery_protocol::command::{Auth, ClientCommand, Ping, Sync};
use rookery_protocol::event::{
    ConversationChanged, ErrorEvent, MemberChanged, MessageAck, MessageBatch, MessageChanged,
    Ready, Receipt, ServerEvent, SyncDone,
};
use rookery_protocol::message::{Message, MessageStatus};
use rookery_protocol::rest::Tokens;
use tokio::time::Instant;

use super::driver::{Driver, End};
use super::timers::{Due, Timers};
use super::{Command, Update};
use crate::rest::ApiError;
use crate::socket::{ABNORMAL, Received, Socket};

/// Sends on their way at once; far below what a server allows, enough for its group commit.
const WINDOW: usize = 64;
/// The wait after a retryable refusal that names none.
const RETRY: Duration = Duration::from_millis(500);
/// The `ref` of the `sync` that follows `ready`.
const SYNC: &str = "sync";

type Renewal = Pin<Box<dyn Future<Output = Result<Tokens, ApiError>> + Send>>;

/// What is true of this connection only.
struct Session {
    timers: Timers,
    /// Until `sync.done` nothing is sent: what the replay shows as stored need not be repeated.
    synced: bool,
    /// When a refused `sync` is repeated.
    sync_at: Option<Instant>,
    /// The server's time at `ready`, and when that was here.
    began: (Timestamp, Instant),
    window: usize,
    renewal: Option<Renewal>,
}

impl Session {
    fn server_time(&self, now: Instant) -> Timestamp {
        let (at_ready, ready) = self.began;
        let passed = now.saturating_duration_since(ready).as_millis();
        at_ready.plus_millis(i64::try_from(passed).unwrap_or(i64::MAX))
    }
}

impl Driver {
    /// Never returns but with the reason why it ended.
    pub(super) async fn session(&mut self, ready: &Ready) -> Result<Infallible, End> {
        let now = Instant::now();
        let mut session = Session {
            timers: Timers::new(now, ready.server_time, ready.heartbeat_seconds),
            synced: false,
            sync_at: Some(now),
            began: (ready.server_time, now),
            window: WINDOW.min(ready.limits.in_flight.max(1)),
            renewal: None,
        };
        if self.config.credentials.refresh_token.is_some() {
            session.timers.token_lives(now, ready.token_expires_at);
        }
        let mut open = true;
        loop {
            self.write(&mut session).await?;
            let wake = [
                Some(session.timers.next()),
                session.sync_at,
                self.outbox.wakes_at(),
            ];
            let wake = wake.into_iter().flatten().min().unwrap_or(now);
            let room = open && !self.outbox.is_full();
            tokio::select! {
                received = socket(&mut self.socket)?.next() => {
                    let now = Instant::now();
                    session.timers.heard(now);
                    if session.synced {
                        self.heard_at = Some(session.server_time(now));
                    }
                    if let Received::Event(event) = received? {
                        self.on_event(&mut session, *event).await?;
                    }
                }
                command = self.commands.recv(), if room => match command {
                    Some(command) => self.on_command(command).await?,
                    None => open = false,
                },
                tokens = poll_renewal(&mut session.renewal) => {
                    session.renewal = None;
                    // A refusal shows when the token runs out; until then this socket may live.
                    if let Ok(tokens) = tokens {
                        self.renew(tokens).await?;
                    }
                }
                () = tokio::time::sleep_until(wake) => self.on_timer(&mut session).await?,
            }
        }
    }

    /// Feeds everything that is due and writes it in one go.
    async fn write(&mut self, session: &mut Session) -> Result<(), End> {
        let now = Instant::now();
        let socket = socket(&mut self.socket)?;
        if session.sync_at.is_some_and(|at| now >= at) {
            session.sync_at = None;
            let cursors = Some(self.ledger.cursors());
            let sync = Sync {
                reference: Some(SYNC.to_owned()),
                cursors,
                since: self.heard_at,
            };
            socket.feed(&ClientCommand::Sync(sync)).await?;
        }
        if session.synced {
            while let Some(message) = self.outbox.next_due(now, session.window) {
                socket
                    .feed(&ClientCommand::MessageSend(message.clone()))
                    .await?;
            }
            while let Some(mark) = self.marks.next_due() {
                socket.feed(&mark).await?;
            }
        }
        Ok(socket.flush().await?)
    }

    async fn on_command(&mut self, command: Command) -> Result<(), End> {
        if let Some(command) = self.keep(command) {
            socket(&mut self.socket)?.feed(&command).await?;
        }
        Ok(())
    }

    async fn on_timer(&mut self, session: &mut Session) -> Result<(), End> {
        let now = Instant::now();
        match session.timers.due(now) {
            Due::Nothing => Ok(()),
            Due::Ping => {
                let ping = ClientCommand::Ping(Ping { reference: None });
                Ok(socket(&mut self.socket)?.feed(&ping).await?)
            }
            Due::Dead => Err(End::again(ABNORMAL, "the server has fallen silent")),
            Due::Renew => {
                match self.config.credentials.refresh_token.clone() {
                    Some(token) if session.renewal.is_none() => {
                        session.timers.renewing(now);
                        let api = self.api.clone();
                        session.renewal = Some(Box::pin(async move { api.refresh(&token).await }));
                    }
                    Some(_) => session.timers.renewing(now),
                    None => session.timers.renew_never(),
                }
                Ok(())
            }
        }
    }

    async fn renew(&mut self, tokens: Tokens) -> Result<(), End> {
        let auth = Auth {
            reference: None,
            token: tokens.access_token.clone(),
            resume: false,
        };
        self.take_tokens(tokens).await;
        Ok(socket(&mut self.socket)?
            .feed(&ClientCommand::Auth(auth))
            .await?)
    }

    async fn on_event(&mut self, session: &mut Session, event: ServerEvent) -> Result<(), End> {
        match event {
            ServerEvent::MessageNew(new) => self.on_message(new.message).await,
            ServerEvent::MessageAck(ack) => self.on_ack(ack).await,
            ServerEvent::MessageBatch(batch) => self.on_batch(batch).await,
            ServerEvent::MessageEdited(change)
            | ServerEvent::MessageDeleted(change)
            | ServerEvent::ReactionAdded(change)
            | ServerEvent::ReactionRemoved(change) => self.on_change(change).await,
            ServerEvent::SyncDone(done) => self.on_synced(session, done).await,
            ServerEvent::ConversationCreated(change) => self.on_conversation(change, true).await,
            ServerEvent::ConversationUpdated(change) => self.on_conversation(change, false).await,
            ServerEvent::MemberAdded(change) => self.on_member(change, true).await,
            ServerEvent::MemberRemoved(change) => self.on_member(change, false).await,
            ServerEvent::ConversationRead(read) if self.receipts.is_current(&read) => {
                self.say(Update::Read(read)).await;
            }
            ServerEvent::ReceiptDelivered(receipt) => self.on_receipt(receipt, false).await,
            ServerEvent::ReceiptRead(receipt) => self.on_receipt(receipt, true).await,
            ServerEvent::AuthOk(renewed) => {
                session
                    .timers
                    .token_lives(Instant::now(), renewed.token_expires_at);
            }
            ServerEvent::ServerDraining(drain) => {
                let reconnect_after = Duration::from_millis(drain.reconnect_after_ms);
                self.return_at = Some(Instant::now() + reconnect_after);
                self.say(Update::Draining { reconnect_after }).await;
            }
            ServerEvent::Error(error) => self.on_error(session, error).await?,
            ServerEvent::Ready(_)
            | ServerEvent::ConversationRead(_)
            | ServerEvent::SyncStart(_)
            | ServerEvent::Ok(_)
            | ServerEvent::Pong(_) => {}
            other => self.say(Update::Event(Box::new(other))).await,
        }
        Ok(())
    }

    async fn on_receipt(&mut self, receipt: Receipt, read: bool) {
        if self.receipts.is_news(&receipt, read) {
            self.say(Update::Receipt { receipt, read }).await;
        }
    }

    async fn on_message(&mut self, message: Message) {
        let new = self.ledger.arrived(message.conversation_id, message.seq);
        let own = self.me == Some(message.sender_id);
        if own && self.outbox.settle(message.message_id).is_some() {
            // Seen in the log before its ack, or instead of it.
            self.say(Update::Acked(ack_of(&message))).await;
        } else if new {
            self.say(Update::Message(Box::new(message))).await;
        }
    }

    /// A change has a place in the log like a message, and moves the cursor like one.
    async fn on_change(&mut self, change: MessageChanged) {
        let cursor = change.seq;
        if self.ledger.arrived(change.conversation_id, cursor) {
            let message = Box::new(change.message);
            self.say(Update::Changed { cursor, message }).await;
        }
    }

    async fn on_ack(&mut self, ack: MessageAck) {
        self.ledger.acked(ack.conversation_id, ack.seq);
        if self.outbox.settle(ack.message_id).is_some() {
            self.say(Update::Acked(ack)).await;
        }
    }

    async fn on_batch(&mut self, batch: MessageBatch) {
        for message in batch.messages {
            self.on_message(message).await;
        }
        let mut changed = batch.changed.into_iter().peekable();
        while let Some(message) = changed.next() {
            // What follows in this batch must not be passed over by whoever stops here.
            let is_last = changed.peek().is_none();
            let cursor = if is_last { batch.to_seq } else { message.seq };
            let message = Box::new(message);
            self.say(Update::Changed { cursor, message }).await;
        }
        self.ledger.advance(batch.conversation_id, batch.to_seq);
    }

    async fn on_synced(&mut self, session: &mut Session, done: SyncDone) {
        for reset in done.reset {
            self.ledger.reset(reset.conversation_id, reset.seq);
            self.say(Update::Reset(reset)).await;
        }
        session.synced = true;
        self.say(Update::Synced {
            messages: done.count,
        })
        .await;
    }

    async fn on_conversation(&mut self, change: ConversationChanged, created: bool) {
        let conversation = Box::new(change.conversation);
        self.say(Update::ConversationChanged {
            seq: change.seq,
            created,
            conversation,
        })
        .await;
    }

    async fn on_member(&mut self, change: MemberChanged, added: bool) {
        let MemberChanged {
            conversation_id,
            seq,
            member,
        } = change;
        if !added && self.me == Some(member.user_id) {
            self.ledger.forget(conversation_id);
        }
        self.say(Update::MemberChanged {
            conversation_id,
            seq,
            added,
            member,
        })
        .await;
    }

    async fn on_error(&mut self, session: &mut Session, error: ErrorEvent) -> Result<(), End> {
        let retry_at = Instant::now() + error.retry_after_ms.map_or(RETRY, Duration::from_millis);
        let by_reference = || {
            error
                .reference
                .as_deref()
                .and_then(|text| text.parse().ok())
        };
        if error.reference.as_deref() == Some(SYNC) {
            if !error.retryable {
                let reason = format!("{}: {}", error.code.as_str(), error.message);
                return Err(End::again(ABNORMAL, reason));
            }
            session.sync_at = Some(retry_at);
        } else if let Some(message_id) = error.message_id.or_else(by_reference) {
            if error.retryable {
                self.outbox.postpone(message_id, retry_at);
            } else if self.outbox.settle(message_id).is_some() {
                self.say(Update::Failed { message_id, error }).await;
            }
        } else {
            self.say(Update::Event(Box::new(ServerEvent::Error(error))))
                .await;
        }
        Ok(())
    }
}

/// The socket of a running session; its absence would be a mistake of this crate, and ends it.
fn socket(socket: &mut Option<Socket>) -> Result<&mut Socket, End> {
    socket
        .as_mut()
        .ok_or_else(|| End::again(ABNORMAL, "there is no socket"))
}

async fn poll_renewal(renewal: &mut Option<Renewal>) -> Result<Tokens, ApiError> {
    match renewal {
        Some(renewal) => renewal.await,
        None => std::future::pending().await,
    }
}

fn ack_of(message: &Message) -> MessageAck {
    MessageAck {
        reference: None,
        message_id: message.message_id,
        conversation_id: message.conversation_id,
        seq: message.seq,
        created_at: message.created_at,
        status: message.status.unwrap_or(MessageStatus::Sent),
        duplicate: true,
    }
}
