//! Sockets of one user that are too many on all nodes together, see `limits.sockets_per_user`.
//!
//! A node that finds by the lists of presence that a user may have too many asks all nodes; those
//! that have some tell them to all. Then each closes those of its own that are surplus: a socket
//! goes if as many others as are allowed are known to have been heard later.
//!
//! Nobody decides for all, and it does not matter what gets lost or who asks at the same time. The
//! time at which a socket was heard only grows, so whatever a node knows of another's socket, that
//! socket was heard then or later: those that were heard last never go, and as many as are allowed
//! stay. Who knows less closes less; the user's next socket has everybody asked again. The exception
//! is a socket that ends by itself, or with its node, within [`FRESH`] of having been told of. Clocks of
//! nodes that disagree make another one the longest silent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_protocol::{Timestamp, UserId};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Gateway;
use super::session::Session;
use crate::bus::{BusEvent, BusSocket, Channel, Envelope};
use crate::metrics::{self, Level};

/// Questions and answers that may wait; what does not fit is asked again with the user's next socket.
const QUEUE: usize = 1_024;
/// How long what a node told counts. Answers take milliseconds; later the sockets may be gone. Those
/// of a node that dies may still count for so long after its last answer.
const FRESH: Duration = Duration::from_secs(2);

enum Work {
    Ask(UserId),
    Heard(Bytes),
}

/// The entrance to the task. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Surplus(mpsc::Sender<Work>);

/// What waits for the task.
pub struct SurplusQueue(mpsc::Receiver<Work>);

impl Surplus {
    /// The entrance, and what [`Gateway::start`] takes the work from.
    #[must_use]
    pub fn queue() -> (Self, SurplusQueue) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), SurplusQueue(receiver))
    }

    /// This user may have too many sockets. Never waits.
    pub fn ask(&self, user: UserId) {
        self.put(Work::Ask(user));
    }

    /// Takes what arrived on [`Channel::Sockets`]. Never waits.
    pub fn take(&self, payload: Bytes) {
        self.put(Work::Heard(payload));
    }

    /// How many questions and answers wait.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::of_queue(&self.0)
    }

    fn put(&self, work: Work) {
        if self.0.try_send(work).is_err() {
            tracing::debug!("too many questions about sockets at once; one is left out");
        }
    }
}

/// What was told of each user with sockets here, for as long as it is fresh.
type Known = HashMap<UserId, Vec<Told>>;

/// What one node told of a user's sockets.
struct Told {
    by: String,
    at: Instant,
    sockets: Vec<BusSocket>,
}

impl Told {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

/// The order of silence, the same on every node: by time, then by node, then by age.
type Place<'a> = (Timestamp, &'a str, u64);

/// Asks, answers and closes until the node stops. `started_at`: when the node's seconds began.
pub(super) async fn run(gateway: Gateway, mut queue: SurplusQueue, started_at: Timestamp) {
    // If the bus is not up yet, the channel is subscribed as soon as it is.
    let joined = gateway.subscriptions.join(vec![Channel::Sockets]);
    joined.await.ok();
    let mut known = Known::new();
    let mut sweeps = tokio::time::interval(FRESH);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gateway.tasks.stopping().cancelled() => return,
            Some(work) = queue.0.recv() => match work {
                Work::Ask(user) => tell(&gateway, user, true, started_at),
                Work::Heard(payload) => hear(&gateway, &mut known, &payload, started_at),
            },
            _ = sweeps.tick(), if !known.is_empty() => {
                known.retain(|_, by_nodes| by_nodes.iter().any(Told::is_fresh));
            }
        }
    }
}

fn hear(gateway: &Gateway, known: &mut Known, payload: &[u8], started_at: Timestamp) {
    let Ok(envelope) = Envelope::decode(payload) else {
        metrics::bus_undecodable_total().increment(1);
        return;
    };
    let BusEvent::Sockets {
        user_id,
        ask,
        sockets,
    } = envelope.event
    else {
        return;
    };
    if envelope.origin == gateway.node_id || !gateway.registry.has(user_id) {
        return;
    }
    let by_nodes = known.entry(user_id).or_default();
    by_nodes.retain(|node| node.is_fresh() && node.by != envelope.origin);
    by_nodes.push(Told {
        by: envelope.origin,
        at: Instant::now(),
        sockets,
    });
    if ask {
        tell(gateway, user_id, false, started_at);
    }
    let elsewhere: Vec<Place<'_>> = by_nodes.iter().flat_map(places).collect();
    let later_elsewhere = |session: &Session, heard: u32| {
        let heard_at = at(started_at, heard);
        let place: Place<'_> = (heard_at, &gateway.node_id, session.id);
        elsewhere.iter().filter(|other| **other > place).count()
    };
    let max = gateway.options.sockets_per_user;
    gateway.registry.thin(user_id, max, later_elsewhere);
}

fn tell(gateway: &Gateway, user: UserId, ask: bool, started_at: Timestamp) {
    let mut open = gateway.registry.of(user);
    open.retain(|session| !session.outbox.is_closing());
    let socket = |session: &Arc<Session>| BusSocket {
        id: session.id,
        heard_at: at(started_at, session.heard_at()),
    };
    let sockets: Vec<BusSocket> = open.iter().map(socket).collect();
    if ask || !sockets.is_empty() {
        gateway.fanout.sockets(user, ask, sockets);
    }
}

fn places(told: &Told) -> impl Iterator<Item = Place<'_>> {
    let place = |socket: &BusSocket| (socket.heard_at, told.by.as_str(), socket.id);
    told.sockets.iter().map(place)
}

/// A time in seconds of the node's life on the nodes' common clock, as far as they have one.
fn at(started_at: Timestamp, seconds: u32) -> Timestamp {
    started_at.plus_millis(i64::from(seconds) * 1_000)
}
