//! This node's sign of life (the canary), sent around through Redis every second, because a link
//! can be dead without saying so. Neighbours listen to it too, see [`crate::bus::Neighbours`].
//!
//! The task that sends it does nothing else, so that it goes on whatever the links are at, and it
//! notices when the process itself stood still: then silence proves nothing against the links, but
//! things may have been missed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::link::Link;
use crate::bus::{BreakReason, BusEvent, Channel, Envelope, Ingress, VERSION};
use crate::clock::Clock;
use crate::lifecycle::Tasks;
use crate::metrics;

/// Often enough that a stand-still is noticed before anybody judges by it.
const BEAT: Duration = Duration::from_millis(250);
/// Beats from one canary to the next: a second.
const BEATS: u64 = 4;
/// A canary that has not come back for this long means the link is dead in one direction.
const SILENCE: Duration = Duration::from_secs(3);
/// A beat that comes so late was kept back by a process that stood still: stopped, swapped out or
/// starved. Shorter than [`SILENCE`], so that it is known before a link is blamed.
const STANDSTILL: Duration = Duration::from_secs(2);

/// What is known of the canary.
pub(super) struct Canary {
    channel: Channel,
    started: Instant,
    /// When it came back last, in milliseconds since `started`.
    heard_ms: AtomicU64,
    /// When its task ran last, likewise.
    beat_ms: AtomicU64,
    /// The newest that was sent, for the time it takes.
    sent: Mutex<(u64, Instant)>,
}

impl Canary {
    pub(super) fn of(node_id: &str) -> Self {
        let now = Instant::now();
        Self {
            channel: Channel::Node(node_id.to_owned()),
            started: now,
            heard_ms: AtomicU64::new(0),
            beat_ms: AtomicU64::new(0),
            sent: Mutex::new((0, now)),
        }
    }

    /// Where it is published and heard.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Something came back on the channel.
    pub(super) fn heard(&self, payload: &[u8]) {
        let Some(count) = count_in(payload) else {
            return;
        };
        self.rearm();
        let (newest, at) = *self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if count == newest {
            metrics::bus_canary_seconds().record(at.elapsed().as_secs_f64());
        }
    }

    /// Its silence counts from now.
    pub(super) fn rearm(&self) {
        self.heard_ms.store(self.now_ms(), Ordering::SeqCst);
    }

    /// Whether it should have come back by now, and this process ran meanwhile.
    pub(super) fn is_missed(&self) -> bool {
        self.since(&self.heard_ms) > SILENCE
    }

    /// Whether the process stands still, or did a moment ago: nobody is to be judged.
    pub(super) fn is_standstill(&self) -> bool {
        self.since(&self.beat_ms) > STANDSTILL
    }

    fn note_sent(&self, count: u64) {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = (count, Instant::now());
    }

    fn since(&self, at_ms: &AtomicU64) -> Duration {
        let at = Duration::from_millis(at_ms.load(Ordering::SeqCst));
        self.started.elapsed().saturating_sub(at)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn beat(&self) {
        self.beat_ms.store(self.now_ms(), Ordering::SeqCst);
    }
}

/// The number of the canary in an envelope; `None` if there is none.
pub(super) fn count_in(payload: &[u8]) -> Option<u64> {
    match Envelope::decode(payload).ok()?.event {
        BusEvent::Canary { count } => Some(count),
        _ => None,
    }
}

/// Sends it until the node stops.
pub(super) async fn run(link: Arc<Link>, clock: Clock, tasks: Tasks) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number: u64 = 0;
    loop {
        tokio::select! {
            () = tasks.stopping().cancelled() => return,
            _ = beats.tick() => {}
        }
        if link.canary.is_standstill() {
            tracing::warn!("this process stood still; news may have been missed");
            link.canary.rearm();
            link.neighbours.rearm(Instant::now());
            (link.sink)(Ingress::Break(BreakReason::Standstill));
        }
        link.canary.beat();
        if number.is_multiple_of(BEATS) {
            send(&link, number / BEATS, &clock);
        }
        number += 1;
    }
}

fn send(link: &Link, count: u64, clock: &Clock) {
    let envelope = Envelope {
        key: [0; 16],
        v: VERSION,
        origin: String::new(),
        skip: None,
        at: clock.now(),
        members: 0,
        event: BusEvent::Canary { count },
    };
    let Some(payload) = envelope.encode() else {
        return;
    };
    link.canary.note_sent(count);
    // Gets into the queue however full it is, and waits there for its turn.
    link.queue.push(link.canary.channel.clone(), payload);
}
