//! When a run warms up, measures, and gives up; and what its threads count meanwhile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long acknowledged messages may take to arrive after the last send.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for all threads to learn of the start.
const LEAD: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub start: Instant,
    pub measure_from: Instant,
    /// Nothing is sent from here on.
    pub measure_to: Instant,
    /// Nothing is waited for from here on.
    pub give_up: Instant,
}

impl Schedule {
    pub(crate) fn new(warmup: Duration, measure: Duration) -> Self {
        let start = Instant::now() + LEAD;
        let measure_from = start + warmup;
        let measure_to = measure_from + measure;
        Self {
            start,
            measure_from,
            measure_to,
            give_up: measure_to + DRAIN,
        }
    }

    /// Whether a message sent at this time counts.
    pub(crate) fn measures(&self, at: Instant) -> bool {
        (self.measure_from..self.measure_to).contains(&at)
    }
}

/// What has happened so far, on one thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sent: AtomicU64,
    acked: AtomicU64,
    delivered: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
}

impl Counts {
    pub(crate) fn named(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sent", self.sent),
            ("acked", self.acked),
            ("delivered", self.delivered),
        ]
    }
}

impl Counters {
    pub(crate) fn sent(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    pub(crate) fn acked(&self) {
        self.acked.fetch_add(1, Relaxed);
    }

    pub(crate) fn delivered(&self) {
        self.delivered.fetch_add(1, Relaxed);
    }

    pub(crate) fn total<'a>(all: impl IntoIterator<Item = &'a Self>) -> Counts {
        all.into_iter().fold(Counts::default(), |sum, one| Counts {
            sent: sum.sent + one.sent.load(Relaxed),
            acked: sum.acked + one.acked.load(Relaxed),
            delivered: sum.delivered + one.delivered.load(Relaxed),
        })
    }
}
