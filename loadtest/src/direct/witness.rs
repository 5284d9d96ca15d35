//! What the people of a run notice of what is done to the servers meanwhile.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by all pairs and by who does it.
#[derive(Debug, Default)]
pub(crate) struct Witness(Mutex<Seen>);

/// What was noticed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Messages that were due between these two are watched.
    from: Option<Instant>,
    to: Option<Instant>,
    /// Watched messages that arrived.
    pub arrived: u64,
    /// When the last of them did.
    pub last_arrival: Option<Instant>,
    /// The devices where they did, by number.
    pub devices: HashSet<usize>,
    /// When each socket was told that its node is about to go.
    pub hints: Vec<Instant>,
    /// When sockets were closed, and by which code; not again before they had returned.
    pub closes: Vec<(Instant, u16)>,
    /// From the close of a socket until it had everything on another node.
    pub returns: Vec<Duration>,
}

impl Witness {
    /// Messages that are due from now on are watched.
    pub(crate) fn begin(&self) {
        self.seen().from = Some(Instant::now());
    }

    /// Messages that are due from now on are not.
    pub(crate) fn end(&self) {
        self.seen().to = Some(Instant::now());
    }

    /// All that was noticed so far.
    pub(crate) fn look(&self) -> Seen {
        self.seen().clone()
    }

    pub(super) fn arrived(&self, device: usize, due: Instant) {
        let mut seen = self.seen();
        let begun = seen.from.is_some_and(|from| due >= from);
        if begun && seen.to.is_none_or(|to| due < to) {
            seen.arrived += 1;
            seen.last_arrival = Some(Instant::now());
            seen.devices.insert(device);
        }
    }

    pub(super) fn hinted(&self) {
        self.seen().hints.push(Instant::now());
    }

    pub(super) fn closed(&self, code: u16) {
        self.seen().closes.push((Instant::now(), code));
    }

    pub(super) fn returned(&self, after: Duration) {
        self.seen().returns.push(after);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
