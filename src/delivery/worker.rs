//! One worker: judges entries of its conversations for the sockets of this node and passes them on.

mod filling;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rookery_protocol::event::Typing;
use rookery_protocol::message::MessageKind;
use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};
use tokio::sync::mpsc;
use tracing::Span;

use self::filling::Filling;
use super::fill::Fills;
use super::hold::{HeldBytes, Holds};
use super::receipts;
use super::settings::Settings;
use super::tell::{self, Entry, Kept, pass_on};
use super::{Audience, Behind, Delivery, DeliveryParts, Path, Work, weight};
use crate::bus::{BreakReason, BusEvent, Envelope};
use crate::gateway::Session;
use crate::metrics;
use crate::store::{Change, Chosen, LogEntry};
use crate::telemetry::{MESSAGE, SPANS, of_message};

/// Items taken from the queue at once.
const BATCH: usize = 256;

/// See the module.
pub(super) struct Worker {
    parts: DeliveryParts,
    delivery: Delivery,
    holds: Holds<Entry>,
    /// Conversations that are being read from the store.
    filling: HashMap<ConversationId, Filling>,
    fills: Fills,
    settings: Settings,
}

/// What the workers of a node share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) held: HeldBytes,
    fills: Fills,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            held: HeldBytes::default(),
            fills: Fills::default(),
        }
    }
}

impl Worker {
    pub(super) fn new(parts: DeliveryParts, delivery: Delivery, shared: Shared) -> Self {
        Self {
            parts,
            delivery,
            holds: Holds::new(shared.held),
            filling: HashMap::new(),
            fills: shared.fills,
            settings: Settings::default(),
        }
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.holds.deadline();
            tokio::select! {
                biased;
                () = self.parts.tasks.stopping().cancelled(), if batch.is_empty() => return,
                received = queue.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                }
                () = sleep_until(deadline), if deadline.is_some() => self.fill_overdue(),
            }
            for work in batch.drain(..) {
                self.work(work);
            }
            // A queue that is never empty must not keep holds waiting.
            if self
                .holds
                .deadline()
                .is_some_and(|due| due <= Instant::now())
            {
                self.fill_overdue();
            }
        }
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::News { to, payload } => match Envelope::decode(&payload) {
                Ok(envelope) => self.news(to, envelope),
                Err(error) => {
                    metrics::bus_undecodable_total().increment(1);
                    tracing::debug!(%error, "skipped what another version published");
                    self.delivery.broke(BreakReason::Undecodable);
                }
            },
            Work::Behind(behind) => self.fill(behind),
            Work::GoOn(behind, paced) => self.fill_paced(behind, paced),
            Work::Filled(filled) => self.filled(*filled),
            Work::FillOver(id) => self.fill_over(id),
        }
    }

    fn news(&mut self, to: Audience, envelope: Envelope) {
        let at = envelope.at;
        let now = self.heard(at);
        let is_ours = envelope.origin == self.parts.node_id;
        let skip = envelope.skip.filter(|_| is_ours);
        match envelope.event {
            BusEvent::Entry { message } if message.kind == MessageKind::System => {
                self.read(to, message.conversation_id, message.seq);
            }
            BusEvent::Entry { message } => {
                self.entry(to, Entry::new(LogEntry::Message(message), skip, at), now);
            }
            BusEvent::Changed {
                seq,
                message,
                windowed: true,
                ..
            } => self.read(to, message.conversation_id, seq),
            BusEvent::Changed {
                seq,
                by,
                kind,
                message,
                ..
            } => {
                let change = Change {
                    seq,
                    by,
                    kind,
                    message,
                };
                self.entry(to, Entry::new(LogEntry::Change(change), None, at), now);
            }
            BusEvent::Receipts { receipts } => {
                receipts::receipts(&self.parts.registry, to, &receipts);
            }
            BusEvent::OwnRead { reads } => {
                receipts::own_reads(&self.parts.registry, to, &reads, skip);
            }
            BusEvent::OwnSettings { conversation_id } => self.own_settings(to, conversation_id),
            BusEvent::DirectCreated { conversation_id } => {
                self.read(to, conversation_id, Seq::ZERO);
            }
            BusEvent::Typing {
                conversation_id,
                user_id,
                active,
                watched_only,
            } => {
                let typing = Typing {
                    conversation_id,
                    user_id,
                    active,
                };
                let watched_only = watched_only && to == Audience::Room;
                tell::typing(&self.parts.registry, to, &typing, watched_only);
            }
            BusEvent::Revoked {
                user_id,
                session_ids,
            } => {
                self.parts.auth.revocations.add(&session_ids);
                self.parts.registry.revoke(user_id, &session_ids);
            }
            BusEvent::Chosen { user_id, chosen } => self.chosen(user_id, chosen, skip),
            BusEvent::Blocked { by, blocked } => self.blocked(to, by, blocked),
            BusEvent::Presence(_) | BusEvent::Canary { .. } | BusEvent::Sockets { .. } => {}
        }
    }

    /// Notes how long news took. Returns the time, which is read once for each.
    fn heard(&self, published_at: Timestamp) -> Timestamp {
        let now = self.parts.clock.now();
        let lag_ms = now.as_millis() - published_at.as_millis();
        metrics::bus_lag_seconds().record(lag_ms.max(0) as f64 / 1_000.0);
        now
    }

    /// A user's own settings of a conversation changed.
    fn own_settings(&mut self, to: Audience, conversation_id: ConversationId) {
        if let Audience::User(user) = to {
            self.settings.changed(&self.parts, user, conversation_id);
        }
    }

    /// A user chose how to appear: listed so, and shown to the user's own devices.
    fn chosen(&self, user: UserId, chosen: Chosen, skip: Option<u64>) {
        self.parts.roster.chose(user, chosen, false);
        tell::own_presence(&self.parts, user, skip);
    }

    /// What the sockets of one who is blocked see of the one who blocks.
    fn blocked(&self, to: Audience, by: UserId, blocked: bool) {
        if let Audience::User(viewer) = to {
            self.parts.watchers.blocked(by, viewer, blocked);
        }
    }

    /// Has the store read up to `target` for those of an audience who lack it.
    fn read(&mut self, to: Audience, conversation_id: ConversationId, target: Seq) {
        let users = match to {
            Audience::User(user) => vec![user],
            Audience::Room => {
                let rooms = &self.parts.registry.rooms;
                rooms.offer(conversation_id, target, |_| {});
                self.users_of(to, conversation_id)
            }
        };
        self.fill(Behind {
            conversation_id,
            users,
            target,
            path: Path::Bus,
        });
    }

    /// Passes an entry and those held behind it on to an audience's sockets.
    pub(super) fn entry(&mut self, to: Audience, entry: Entry, now: Timestamp) {
        let Some(id) = entry.log.conversation_id() else {
            return;
        };
        let mut next = Some(entry);
        while let Some(entry) = next.take() {
            let seq = entry.log.seq();
            let span = entry.log.message().map_or_else(Span::none, |message| {
                let span = tracing::debug_span!(target: SPANS, "deliver");
                of_message(span, message.message_id)
            });
            let kept = span.in_scope(|| self.pass_on(to, id, &entry));
            if kept.told {
                Path::Bus.took(now.as_millis() - entry.at.as_millis());
            }
            if !kept.hole && !kept.stranger {
                next = self.holds.take((to, id), seq.next());
                continue;
            }
            tracing::debug!(target: MESSAGE, conversation_id = %id, %seq, "held behind a gap");
            let bytes = weight(&entry.log);
            self.holds.keep((to, id), seq, entry, bytes);
            if kept.stranger {
                self.read(to, id, seq);
            }
        }
    }

    fn pass_on(&self, to: Audience, id: ConversationId, entry: &Entry) -> Kept {
        let registry = &self.parts.registry;
        match to {
            Audience::User(user) => pass_on(&registry.of(user), id, entry, Path::Bus),
            Audience::Room => {
                let mut kept = Kept::default();
                let offer = |seats: &[_]| kept = pass_on(seats, id, entry, Path::Bus);
                registry.rooms.offer(id, entry.log.seq(), offer);
                // Who has a seat and no position has left, or is about to learn of it otherwise.
                kept.stranger = false;
                kept
            }
        }
    }

    /// Reads what is behind holds that are over.
    fn fill_overdue(&mut self) {
        for overdue in self.holds.overdue(Instant::now()) {
            let (key, target) = (overdue.key, overdue.target);
            let (to, conversation_id) = key;
            let mut users = self.users_of(to, conversation_id);
            users.retain(|user| self.lacking(*user, conversation_id, target).is_some());
            if users.is_empty() {
                // The sockets that lacked something are gone, or have it on another way.
                self.holds.forget(key);
                continue;
            }
            if !overdue.again {
                metrics::holes_total().increment(1);
            }
            self.fill(Behind {
                conversation_id,
                users,
                target,
                path: Path::Fill,
            });
        }
    }

    fn users_of(&self, to: Audience, id: ConversationId) -> Vec<UserId> {
        match to {
            Audience::User(user) => vec![user],
            Audience::Room => {
                let rooms = &self.parts.registry.rooms;
                rooms.seats(id, users_of).unwrap_or_default()
            }
        }
    }
}

/// Each user once for each socket.
fn users_of(sessions: &[Arc<Session>]) -> Vec<UserId> {
    sessions.iter().map(|session| session.user_id).collect()
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}
