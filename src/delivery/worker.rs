//! One worker: judges entries of its conversations for the sockets of this node and passes them on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::message::MessageKind;
use rookery_protocol::{ConversationId, Seq, UserId};
use tokio::sync::mpsc;

use super::fill::{self, Filled};
use super::hold::Holds;
use super::receipts;
use super::settings::Settings;
use super::tell::{Entry, Passed, fill_session, pass_on};
use super::{Behind, Delivery, DeliveryParts, Path, Work};
use crate::bus::{BreakReason, BusEvent, Envelope};
use crate::gateway::Session;
use crate::metrics;
use crate::store::{Change, LogEntry};

/// How long a fill that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Items taken from the queue at once.
const BATCH: usize = 256;

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
            Work::News { user, payload } => match Envelope::decode(&payload) {
                Ok(envelope) => self.news(user, envelope),
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

    fn news(&mut self, user: UserId, envelope: Envelope) {
        let lag_ms = self.parts.clock.now().as_millis() - envelope.at.as_millis();
        metrics::bus_lag_seconds().record(lag_ms.max(0) as f64 / 1_000.0);
        match envelope.event {
            BusEvent::Entry { message } => {
                let skip = envelope
                    .skip
                    .filter(|_| envelope.origin == self.parts.node_id);
                if message.kind == MessageKind::System {
                    let target = message.seq;
                    let conversation_id = message.conversation_id;
                    let users = vec![user];
                    self.fill(Behind {
                        conversation_id,
                        users,
                        target,
                        path: Path::Bus,
                    });
                } else {
                    self.entry(
                        user,
                        Entry {
                            log: Arc::new(LogEntry::Message(message)),
                            skip,
                        },
                    );
                }
            }
            BusEvent::Changed {
                seq,
                by,
                kind,
                message,
                windowed,
            } => {
                if windowed {
                    self.fill(Behind {
                        conversation_id: message.conversation_id,
                        users: vec![user],
                        target: seq,
                        path: Path::Bus,
                    });
                } else {
                    let change = Change {
                        seq,
                        by,
                        kind,
                        message,
                    };
                    self.entry(
                        user,
                        Entry {
                            log: Arc::new(LogEntry::Change(change)),
                            skip: None,
                        },
                    );
                }
            }
            BusEvent::Receipts { receipts } => {
                receipts::receipts(&self.parts.registry, user, &receipts);
            }
            BusEvent::OwnRead { reads } => {
                let here = envelope.origin == self.parts.node_id;
                let skip = envelope.skip.filter(|_| here);
                receipts::own_reads(&self.parts.registry, user, &reads, skip);
            }
            BusEvent::OwnSettings { conversation_id } => {
                self.settings.changed(&self.parts, user, conversation_id);
            }
            BusEvent::Typing { .. } | BusEvent::Presence(_) | BusEvent::Blocked { .. } => {}
            BusEvent::DirectCreated { conversation_id } => {
                let users = vec![user];
                self.fill(Behind {
                    conversation_id,
                    users,
                    target: Seq::ZERO,
                    path: Path::Bus,
                });
            }
            BusEvent::Revoked {
                user_id,
                session_ids,
            } => {
                self.parts.auth.revocations.add(&session_ids);
                self.parts.registry.revoke(user_id, &session_ids);
            }
            BusEvent::Canary { .. } => {}
        }
    }

    /// Passes an entry and those held behind it on to a user's sockets.
    fn entry(&mut self, user: UserId, entry: Entry) {
        let sessions = self.parts.registry.of(user);
        let Some(id) = entry.log.conversation_id() else {
            return;
        };
        let mut next = Some(entry);
        while let Some(entry) = next.take() {
            let seq = entry.log.seq();
            match pass_on(&sessions, id, &entry, Path::Bus) {
                Passed::Yes => next = self.holds.take((user, id), seq.next()),
                Passed::Hole => self.holds.keep((user, id), seq, entry),
                Passed::Stranger => {
                    let users = vec![user];
                    self.holds.keep((user, id), seq, entry);
                    let target = seq;
                    self.fill(Behind {
                        conversation_id: id,
                        users,
                        target,
                        path: Path::Bus,
                    });
                }
            }
        }
    }

    /// Reads what is behind holds that are over.
    fn fill_overdue(&mut self) {
        for ((user, conversation_id), target) in self.holds.overdue(Instant::now()) {
            let users = vec![user];
            if self.lacking(user, conversation_id, target).is_none() {
                // The socket that lacked something is gone, or has it on another way.
                self.holds.forget((user, conversation_id));
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

    /// Starts reading, or notes what to read next if the conversation is being read.
    fn fill(&mut self, behind: Behind) {
        let id = behind.conversation_id;
        if let Some(filling) = self.filling.get_mut(&id) {
            match &mut filling.next {
                Some(next) => {
                    next.target = next.target.max(behind.target);
                    for user in behind.users {
                        if !next.users.contains(&user) {
                            next.users.push(user);
                        }
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
                    delivery.behind(Behind {
                        conversation_id,
                        users,
                        target,
                        path,
                    });
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
        let lacking = |user: UserId| Some((user, self.lacking(user, conversation_id, target)?));
        let users: Vec<_> = behind.users.into_iter().filter_map(lacking).collect();
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
        let positions = sessions.iter().filter_map(|session| {
            let positions = session.positions();
            let known = positions.get(id);
            let lacks = positions.is_based() && known.is_none_or(|seq| seq < target);
            lacks.then_some(known)
        });
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
        for user in &filled.users {
            let key = (*user, id);
            let membership = filled.memberships.iter().find(|m| m.user_id == *user);
            let Some(membership) = membership else {
                self.holds.forget(key);
                continue;
            };
            let sessions = self.parts.registry.of(*user);
            for session in &sessions {
                fill_session(session, membership, &filled);
            }
            if !membership.is_present() {
                self.holds.forget(key);
                continue;
            }
            self.release(key, &sessions);
        }
        self.fill_ended(id);
    }

    /// Passes on held entries that follow the sockets' positions.
    fn release(&mut self, key: (UserId, ConversationId), sessions: &[Arc<Session>]) {
        let position = |session: &Arc<Session>| session.positions().get(key.1);
        let Some(lowest) = sessions.iter().filter_map(position).min() else {
            self.holds.forget(key);
            return;
        };
        self.holds.passed(key, lowest);
        if let Some(entry) = self.holds.take(key, lowest.next()) {
            self.entry(key.0, entry);
        }
    }
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
