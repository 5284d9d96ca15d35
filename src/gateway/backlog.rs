//! What waits in all outboxes of a node together. One slow reader is bounded by its own outbox,
//! thousands of them by this: once the node holds as much as it may, those go first that have the
//! most to read.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::Level;

/// Bytes are counted in steps of this size, so that readers that keep up, which are nearly all,
/// never touch the number that all sockets share.
const STEP: usize = 64 * 1024;
/// Steps that all outboxes of a node may have: 256 MiB, what thousands of stalled readers can cost
/// until they are found by their time-out.
const STEPS_MAX: usize = 256 * 1024 * 1024 / STEP;
/// Beyond that an outbox may still grow up to here, so that a burst to many readers closes none of
/// those that read it.
const FAIR_STEPS: usize = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Backlog {
    steps: AtomicUsize,
}

/// The steps that one outbox has.
#[derive(Debug, Default)]
pub(super) struct Share(usize);

impl Backlog {
    /// Its bytes, in whole steps.
    pub(super) fn level(&self) -> Level {
        Level {
            used: self.steps.load(Ordering::Relaxed) * STEP,
            capacity: STEPS_MAX * STEP,
        }
    }

    /// Notes that an outbox will hold so many bytes; false if that is more than the node can bear.
    pub(super) fn grow(&self, share: &mut Share, bytes: usize) -> bool {
        let steps = bytes / STEP;
        if steps <= share.0 {
            return true;
        }
        let more = steps - share.0;
        let all = self.steps.fetch_add(more, Ordering::Relaxed) + more;
        share.0 = steps;
        all <= STEPS_MAX || steps <= FAIR_STEPS
    }

    /// Notes that an outbox holds only so many bytes any more.
    pub(super) fn shrink(&self, share: &mut Share, bytes: usize) {
        let steps = bytes / STEP;
        if steps < share.0 {
            self.steps.fetch_sub(share.0 - steps, Ordering::Relaxed);
            share.0 = steps;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_bears_small_outboxes_only() {
        let node = Backlog::default();
        let mut large = Share::default();
        assert!(node.grow(&mut large, STEPS_MAX * STEP));
        let (mut small, mut other) = (Share::default(), Share::default());
        assert!(node.grow(&mut small, FAIR_STEPS * STEP));
        assert!(!node.grow(&mut other, (FAIR_STEPS + 1) * STEP));
        node.shrink(&mut large, 0);
        assert!(node.grow(&mut other, (FAIR_STEPS + 2) * STEP));
        node.shrink(&mut small, 0);
        node.shrink(&mut other, STEP - 1);
        assert_eq!(node.steps.load(Ordering::Relaxed), 0, "all is given back");
    }
}
