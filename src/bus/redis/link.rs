//! What the tasks of one bus share, and what is known of its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::canary::{self, Canary};
use super::publisher::{Publisher, Queue};
use super::subscriber::Subscriber;
use crate::bus::{Channel, Ingress, Neighbours, Sink};
use crate::metrics;

/// Redis counts as reachable for so long after it answered: three looks of the probe.
const REACHABLE_FOR: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct Link {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) queue: Queue,
    pub(super) sink: Sink,
    pub(super) canary: Canary,
    pub(super) neighbours: Arc<Neighbours>,
    /// The subscriber hears every wanted channel, as far as is known. False from the first doubt
    /// on; only a new connection makes it true.
    in_step: AtomicBool,
    /// When Redis answered the probe last, in milliseconds since `started`; 0: never.
    answered_ms: AtomicU64,
    started: Instant,
}

/// What a link is made of.
pub(super) struct LinkParts {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) queue: Queue,
    pub(super) sink: Sink,
    pub(super) canary: Canary,
    pub(super) neighbours: Arc<Neighbours>,
}

impl Link {
    pub(super) fn new(parts: LinkParts) -> Self {
        Self {
            subscriber: parts.subscriber,
            publisher: parts.publisher,
            queue: parts.queue,
            sink: parts.sink,
            canary: parts.canary,
            neighbours: parts.neighbours,
            in_step: AtomicBool::new(false),
            answered_ms: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// Hands on what was published.
    pub(super) fn take(&self, name: &[u8], payload: Bytes) {
        metrics::bus_received_total().increment(1);
        let name = std::str::from_utf8(name).ok();
        let Some(channel) = name.and_then(Channel::parse) else {
            return;
        };
        let Channel::Node(node) = &channel else {
            (self.sink)(Ingress::Message { channel, payload });
            return;
        };
        if channel == *self.canary.channel() {
            self.canary.heard(&payload);
        } else if canary::count_in(&payload).is_some() {
            self.neighbours.heard(Instant::now(), node);
        }
    }

    pub(super) fn is_in_step(&self) -> bool {
        self.in_step.load(Ordering::SeqCst)
    }

    pub(super) fn found(&self) {
        self.in_step.store(true, Ordering::SeqCst);
        metrics::bus_connected().set(1.0);
    }

    pub(super) fn lost(&self) {
        if self.in_step.swap(false, Ordering::SeqCst) {
            metrics::bus_connected().set(0.0);
            tracing::warn!("the bus is down; messages travel through the store until it is back");
        }
    }

    /// Redis answered something.
    pub(super) fn answered(&self) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered_ms.store(since.max(1), Ordering::SeqCst);
    }

    /// Whether Redis answers this node at all.
    pub(super) fn is_reachable(&self) -> bool {
        let answered = self.answered_ms.load(Ordering::SeqCst);
        let since = self
            .started
            .elapsed()
            .saturating_sub(Duration::from_millis(answered));
        self.is_in_step() || (answered > 0 && since <= REACHABLE_FOR)
    }
}
