//! Stage 6: news to sockets, in `seq` order and without holes.
//!
//! In: [`Ingress`] from the bus, which may lose, double and reorder. Out: frames in the outboxes of
//! this node's sockets, each conversation's entries in order and none missing.
//!
//! ```text
//! bus → sink → worker (by conversation) → position check ─ next ──→ registry → outbox
//!                        ↑                 ├ old ──→ dropped
//!                        │                 └ hole ─→ held ≤ 100 ms → fill from the store ─┐
//!                        └────────────────────────────────────────────────────────────────┘
//! journal → reconcile ─ behind ─→ worker           (what no later entry would reveal)
//! ```
//!
//! A worker alone moves the live positions of its conversations, so it needs no lock beyond the
//! moment of asking. It never waits: the store is read by tasks whose result comes back to it as
//! one more item of its queue. Entries that change memberships take the way of a fill too, since
//! telling them needs more than the entry.

mod base;
mod bell;
mod epoch;
mod fill;
mod hold;
mod pace;
mod presence;
mod receipts;
mod reconcile;
mod seats;
mod settings;
mod tell;
mod worker;

use std::sync::Arc;

use bytes::Bytes;
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, Seq, UserId, limits};
use tokio::sync::mpsc;

pub use base::{Base, BaseLoader};
pub use epoch::Epoch;
pub use presence::{Look, Watchers};
pub use reconcile::Outset;
pub use seats::Seating;

use crate::auth::Auth;
use crate::bus::{BreakReason, Channel, Envelope, Ingress, Sink};
use crate::gateway::{Registry, Surplus};
use crate::lifecycle::Tasks;
use crate::metrics::{self, Level};
use crate::presence::Roster;
use crate::store::{LogEntry, Store};

/// Work that may wait for one worker: a second of a node's best rate.
const WORKER_QUEUE: usize = 32_768;

/// How an entry reached a socket; the label of `rookery_delivered_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Bus,
    Fill,
    Reconcile,
}

impl Path {
    /// So long an entry took from its storing to its sockets.
    fn took(self, millis: i64) {
        let seconds = metrics::delivery_seconds();
        let seconds = match self {
            Self::Bus => &seconds.bus,
            Self::Fill => &seconds.fill,
            Self::Reconcile => &seconds.reconcile,
        };
        seconds.record(millis.max(0) as f64 / 1_000.0);
    }

    fn delivered(self) -> &'static ::metrics::Counter {
        let delivered = metrics::delivered_total();
        match self {
            Self::Bus => &delivered.bus,
            Self::Fill => &delivered.fill,
            Self::Reconcile => &delivered.reconcile,
        }
    }
}

/// Users whose sockets lack entries of a conversation, up to a target.
#[derive(Clone, Debug)]
pub struct Behind {
    pub conversation_id: ConversationId,
    pub users: Vec<UserId>,
    /// Zero: only learn of the conversation.
    pub target: Seq,
    pub path: Path,
}

/// Whose sockets a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Audience {
    User(UserId),
    /// All who have a seat in the conversation.
    Room,
}

/// About the bytes that an entry takes in memory.
fn weight(entry: &LogEntry) -> usize {
    /// Ids, times, and the maps around them.
    const REST: usize = 512;
    let message = match entry {
        LogEntry::Message(message) => Some(message),
        LogEntry::Change(change) => Some(&change.message),
        LogEntry::Blank { .. } => None,
    };
    let metadata = |m: &Message| m.metadata.as_ref().map_or(0, |_| limits::METADATA_BYTES);
    REST + message.map_or(0, |m| m.content.len() + metadata(m))
}

/// Everything a worker does.
enum Work {
    News {
        to: Audience,
        payload: Bytes,
    },
    Behind(Behind),
    /// There is room for what a fill could not tell a socket.
    GoOn(Behind, pace::Paced),
    Filled(Box<fill::Filled>),
    /// A fill came to nothing.
    FillOver(ConversationId),
}

/// The entrance to the workers, the reconciler's bell, and what they all share.
#[derive(Clone)]
pub struct Delivery {
    workers: Arc<[mpsc::Sender<Work>]>,
    /// Rung when the bus may have lost something.
    broken: Arc<bell::Bell>,
    /// Where to ask for the channels of large conversations.
    seats: mpsc::Sender<seats::Change>,
    watchers: Watchers,
    roster: Arc<Roster>,
    surplus: Surplus,
    held: hold::HeldBytes,
}

/// What delivery works with.
#[derive(Clone)]
pub struct DeliveryParts {
    pub node_id: String,
    pub store: Arc<dyn Store>,
    pub registry: Arc<Registry>,
    pub auth: Arc<Auth>,
    pub roster: Arc<Roster>,
    pub watchers: Watchers,
    pub surplus: Surplus,
    pub clock: crate::clock::Clock,
    pub tasks: Tasks,
}

impl Delivery {
    /// Starts the workers. The seating is to be run once there are subscriptions.
    #[must_use]
    pub fn start(parts: &DeliveryParts, workers: usize) -> (Self, Seating) {
        let (senders, queues): (Vec<_>, Vec<_>) = (0..workers.max(1))
            .map(|_| mpsc::channel(WORKER_QUEUE))
            .unzip();
        let (seats, seating) = seats::queue(parts.clone());
        let shared = worker::Shared::new();
        let delivery = Self {
            workers: senders.into(),
            broken: Arc::default(),
            seats,
            watchers: parts.watchers.clone(),
            roster: Arc::clone(&parts.roster),
            surplus: parts.surplus.clone(),
            held: shared.held.clone(),
        };
        for queue in queues {
            let worker = worker::Worker::new(parts.clone(), delivery.clone(), shared.clone());
            parts.tasks.spawn_vital("delivery", worker.run(queue));
        }
        (delivery, seating)
    }

    /// Starts the looks into the journal.
    pub fn start_reconciler<F, G>(&self, parts: &DeliveryParts, outset: Outset<F, G>)
    where
        F: Fn() -> bool + Send + Sync + 'static,
        G: Fn() + Send + Sync + 'static,
    {
        let reconciler = reconcile::Reconciler::new(parts.clone(), self.clone(), outset);
        parts.tasks.spawn_vital("reconcile", reconciler.run());
    }

    /// Where the bus puts what arrives. Decodes nothing but the key.
    #[must_use]
    pub fn sink(&self) -> Sink {
        let delivery = self.clone();
        Arc::new(move |ingress| delivery.take(ingress))
    }

    fn take(&self, ingress: Ingress) {
        match ingress {
            Ingress::Message {
                channel: Channel::User(user),
                payload,
            } => {
                let key = Envelope::key_of(&payload);
                let to = Audience::User(user);
                self.put(&key, Work::News { to, payload });
            }
            Ingress::Message {
                channel: Channel::Conversation(id),
                payload,
            } => {
                let to = Audience::Room;
                self.put(id.as_bytes(), Work::News { to, payload });
            }
            Ingress::Message {
                channel: Channel::Presence(_),
                payload,
                // A copy, where it may wait long: it is small, and a part of something large.
            } => self.watchers.take(Bytes::copy_from_slice(&payload)),
            Ingress::Message {
                channel: Channel::Sockets,
                payload,
            } => self.surplus.take(Bytes::copy_from_slice(&payload)),
            Ingress::Message {
                channel: Channel::Node(_),
                ..
            } => {}
            Ingress::Break(reason) => self.broke(reason),
        }
    }

    /// Something may have been lost: the reconciler looks at once.
    fn broke(&self, reason: BreakReason) {
        let breaks = metrics::ingress_breaks_total();
        match reason {
            BreakReason::Reconnected => breaks.reconnect.increment(1),
            BreakReason::Overflow => breaks.overflow.increment(1),
            BreakReason::CutOff => breaks.cut_off.increment(1),
            BreakReason::Canary => breaks.canary.increment(1),
            BreakReason::Neighbour => breaks.neighbour.increment(1),
            BreakReason::Standstill => breaks.standstill.increment(1),
            BreakReason::Unpublished => breaks.unpublished.increment(1),
            BreakReason::Undecodable => breaks.undecodable.increment(1),
        }
        self.broken.ring(reason);
        self.watchers.look_again();
        self.roster.doubt();
    }

    /// What waits for the busiest worker.
    #[must_use]
    pub fn queue_level(&self) -> Level {
        let levels = self.workers.iter().map(Level::of_queue);
        levels.max_by_key(|level| level.used).unwrap_or_default()
    }

    /// How many questions about sockets of users, and answers, wait.
    #[must_use]
    pub fn questions_level(&self) -> Level {
        self.surplus.level()
    }

    /// The bytes of entries that are kept behind gaps.
    #[must_use]
    pub fn held_level(&self) -> Level {
        self.held.level()
    }

    /// Asks for what some sockets lack. Waits for room: no later look of the reconciler will find it.
    pub async fn behind(&self, behind: Behind) {
        let key = *behind.conversation_id.as_bytes();
        self.put_patiently(&key, Work::Behind(behind)).await;
    }

    /// As [`Self::put`], for tasks that may wait: their work is in no later look of the reconciler.
    async fn put_patiently(&self, key: &[u8; 16], work: Work) {
        let worker = usize::from(key[15]) % self.workers.len();
        // The worker is gone only when the node is.
        self.workers[worker].send(work).await.ok();
    }

    fn put(&self, key: &[u8; 16], work: Work) {
        let worker = usize::from(key[15]) % self.workers.len();
        if self.workers[worker].try_send(work).is_err() {
            // Dropped, not waited for: the reconciler finds what it was about.
            self.broke(BreakReason::Overflow);
        }
    }
}
