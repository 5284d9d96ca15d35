//! Counts and times those who wait for a connection.

use std::time::Instant;

use crate::metrics;

/// One who waits, until it is dropped.
pub(super) struct Waiting {
    since: Instant,
}

impl Waiting {
    pub(super) fn begin() -> Self {
        metrics::store_waiting().increment(1.0);
        Self {
            since: Instant::now(),
        }
    }

    /// There is a connection.
    pub(super) fn succeeded(self) {
        metrics::store_wait_seconds().record(self.since.elapsed());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::store_waiting().decrement(1.0);
    }
}
