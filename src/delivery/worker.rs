//! One worker: judges entries of its conversations for the sockets of this node and passes them on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::event::Typing;
use rookery_protocol::message::MessageKind;
use rookery_protocol::{ConversationId, Seq, UserId};
use tokio::sync::mpsc;

use super::fill::{self, Filled};
use super::hold::Holds;
use super::receipts;
use super::settings::Settings;
use super::tell::{self, Entry, EntryFrame, Kept, fill_session, pass_on};
use super::{Audience, Behind, Delivery, DeliveryParts, Path, Work, seats};
use crate::bus::{BreakReason, BusEvent, Envelope};
use crate::gateway::Session;
use crate::metrics;
use crate::store::{Change, Chosen, FanoutMode, LogEntry, Membership};

/// How long a fill that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Items taken from the queue at once.
const BATCH: usize = 256;

/// Users who wait for the next read of a conversation before repeated names are thrown out.
const NEXT_USERS: usize = 1_024;

/// A conversation that is being read from the store, with what was asked for meanwhile.
#[derive(Default)]
struct Filling {
    next: Option<Behind>,
}

/// See the module.
pub(super) struct Worker {
    parts: DeliveryParts,
    delivery: Delivery,
    holds: Holds<Entry>,
    filling: HashMap<ConversationId, Filling>,
    settings: Settings,
}

impl Worker {
    pub(super) fn new(parts: DeliveryParts, delivery: Delivery) -> Self {
        Self {
            parts,
            delivery,
            holds: Holds::new(),
            filling: HashMap::new(),
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
            Work::Filled(filled) => self.filled(*filled),
            Work::FillFailed(id) => self.fill_ended(id),
        }
    }

    fn news(&mut self, to: Audience, envelope: Envelope) {
        let lag_ms = self.parts.clock.now().as_millis() - envelope.at.as_millis();
        metrics::bus_lag_seconds().record(lag_ms.max(0) as f64 / 1_000.0);
        let is_ours = envelope.origin == self.parts.node_id;
        let skip = envelope.skip.filter(|_| is_ours);
        match envelope.event {
            BusEvent::Entry { message } if message.kind == MessageKind::System => {
                self.read(to, message.conversation_id, message.seq);
            }
            BusEvent::Entry { message } => {
                let log = Arc::new(LogEntry::Message(message));
                self.entry(to, Entry { log, skip });
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
                let log = Arc::new(LogEntry::Change(change));
                self.entry(to, Entry { log, skip: None });
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
            BusEvent::Presence(_) | BusEvent::Canary { .. } => {}
        }
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
    fn entry(&mut self, to: Audience, entry: Entry) {
        let Some(id) = entry.log.conversation_id() else {
            return;
        };
        let mut next = Some(entry);
        while let Some(entry) = next.take() {
            let seq = entry.log.seq();
            let kept = self.pass_on(to, id, &entry);
            if !kept.hole && !kept.stranger {
                next = self.holds.take((to, id), seq.next());
                continue;
            }
            self.holds.keep((to, id), seq, entry);
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
        for ((to, conversation_id), target) in self.holds.overdue(Instant::now()) {
            let mut users = self.users_of(to, conversation_id);
            users.retain(|user| self.lacking(*user, conversation_id, target).is_some());
            if users.is_empty() {
                // The sockets that lacked something are gone, or have it on another way.
                self.holds.forget((to, conversation_id));
                continue;
            }
            metrics::holes_total().increment(1);
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

    /// Starts reading, or notes what to read next if the conversation is being read.
    fn fill(&mut self, behind: Behind) {
        let id = behind.conversation_id;
        if let Some(filling) = self.filling.get_mut(&id) {
            match &mut filling.next {
                Some(next) => {
                    next.target = next.target.max(behind.target);
                    next.users.extend(behind.users);
                    if next.users.len() > NEXT_USERS {
                        next.users.sort_unstable();
                        next.users.dedup();
                    }
                }
                next => *next = Some(behind),
            }
            return;
        }
        let Some(request) = self.request(behind) else {
            return;
        };
        self.filling.insert(id, Filling::default());
        let store = Arc::clone(&self.parts.store);
        let delivery = self.delivery.clone();
        self.parts.tasks.spawn("fill", async move {
            match fill::read(store.as_ref(), &request).await {
                Ok(filled) => {
                    metrics::fills_total().filled.increment(1);
                    let work = Work::Filled(Box::new(filled));
                    delivery.put_patiently(id.as_bytes(), work).await;
                }
                Err(error) => {
                    metrics::fills_total().failed.increment(1);
                    tracing::warn!(%error, "a hole could not be filled yet");
                    tokio::time::sleep(RETRY).await;
                    let Request {
                        conversation_id,
                        users,
                        target,
                        path,
                    } = request.into();
                    delivery
                        .put_patiently(id.as_bytes(), Work::FillFailed(id))
                        .await;
                    let behind = Behind {
                        conversation_id,
                        users,
                        target,
                        path,
                    };
                    delivery.behind(behind).await;
                }
            }
        });
    }

    /// What has to be read for those who still lack it; `None` if nobody does.
    fn request(&self, behind: Behind) -> Option<fill::Request> {
        let Behind {
            conversation_id,
            target,
            path,
            ..
        } = behind;
        let mut users = behind.users;
        users.sort_unstable();
        users.dedup();
        let lacking = |user: UserId| Some((user, self.lacking(user, conversation_id, target)?));
        let users: Vec<_> = users.into_iter().filter_map(lacking).collect();
        let nobody = users.is_empty();
        (!nobody).then_some(fill::Request {
            conversation_id,
            users,
            target,
            path,
        })
    }

    /// The lowest position among a user's sockets that have not reached `target`, itself `None`
    /// where a socket does not know the conversation; `None` if no socket lacks anything.
    fn lacking(&self, user: UserId, id: ConversationId, target: Seq) -> Option<Option<Seq>> {
        let sessions = self.parts.registry.of(user);
        let lacks = |session: &Arc<Session>| session.positions().lacks(id, target);
        let positions = sessions.iter().filter_map(lacks);
        positions.min()
    }

    fn fill_ended(&mut self, id: ConversationId) {
        if let Some(filling) = self.filling.remove(&id)
            && let Some(next) = filling.next
        {
            self.fill(next);
        }
    }

    /// Passes on what was read, then what was held behind it.
    fn filled(&mut self, filled: Filled) {
        let id = filled.conversation_id;
        let mut frames: Vec<_> = filled.entries.iter().map(EntryFrame::of).collect();
        for user in &filled.users {
            let key = (Audience::User(*user), id);
            let Some(membership) = filled.memberships.get(user) else {
                self.holds.forget(key);
                continue;
            };
            let sessions = self.parts.registry.of(*user);
            for session in &sessions {
                fill_session(session, membership, &filled, &mut frames);
                self.seat(session, membership);
            }
            if !membership.is_present() {
                self.holds.forget(key);
                continue;
            }
            self.release(key, lowest_position(&sessions, id));
        }
        let rooms = &self.parts.registry.rooms;
        let lowest = rooms.seats(id, |seats| lowest_position(seats, id));
        self.release((Audience::Room, id), lowest.flatten());
        self.fill_ended(id);
    }

    /// Makes a socket's seat in the conversation what its membership says.
    fn seat(&self, session: &Arc<Session>, membership: &Membership) {
        let id = membership.conversation_id;
        let rooms = &self.parts.registry.rooms;
        let knows = session.positions().get(id).is_some();
        let change = if knows && membership.fanout == FanoutMode::Channel {
            rooms.join(id, session).then_some(seats::Change::Taken(id))
        } else if knows {
            None
        } else {
            let left = rooms.leave(id, session);
            left.then_some(seats::Change::GivenUp(id))
        };
        let Some(change) = change else { return };
        if let Err(full) = self.delivery.seats.try_send(change) {
            let seats = self.delivery.seats.clone();
            self.parts.tasks.spawn("seats", async move {
                // The other end is gone only when the node is.
                seats.send(full.into_inner()).await.ok();
            });
        }
    }

    /// Passes on held entries that follow the sockets' positions.
    fn release(&mut self, key: (Audience, ConversationId), lowest: Option<Seq>) {
        let Some(lowest) = lowest else {
            self.holds.forget(key);
            return;
        };
        self.holds.passed(key, lowest);
        if let Some(entry) = self.holds.take(key, lowest.next()) {
            self.entry(key.0, entry);
        }
    }
}

/// Each user once for each socket.
fn users_of(sessions: &[Arc<Session>]) -> Vec<UserId> {
    sessions.iter().map(|session| session.user_id).collect()
}

/// Of those that are live in the conversation.
fn lowest_position(sessions: &[Arc<Session>], id: ConversationId) -> Option<Seq> {
    let positions = sessions.iter().filter_map(|s| s.positions().live(id));
    positions.min()
}

/// A fill's request, as asked for again.
struct Request {
    conversation_id: ConversationId,
    users: Vec<UserId>,
    target: Seq,
    path: Path,
}

impl From<fill::Request> for Request {
    fn from(request: fill::Request) -> Self {
        Self {
            conversation_id: request.conversation_id,
            users: request.users.into_iter().map(|(user, _)| user).collect(),
            target: request.target,
            path: request.path,
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}
