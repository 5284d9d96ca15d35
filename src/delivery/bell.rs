//! The reconciler's bell: rung when the bus may have lost something.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::bus::BreakReason;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Notify,
    /// Rings that nobody took.
    rings: AtomicU64,
    /// One of them was for news that are not on their way any more.
    lost: AtomicBool,
}

/// How the bell was rung since it was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rung {
    pub(super) times: u64,
    /// What was missed will not come late: it is not to be waited for.
    pub(super) lost: bool,
}

impl Bell {
    pub(super) fn ring(&self, reason: BreakReason) {
        // Published while nobody was subscribed. For other reasons much may be on its way, or waits
        // for the workers.
        let lost = matches!(reason, BreakReason::Reconnected | BreakReason::CutOff);
        self.lost.fetch_or(lost, Ordering::SeqCst);
        self.rings.fetch_add(1, Ordering::SeqCst);
        self.rung.notify_one();
    }

    /// Waits until it is rung; at once, if it was since the last call.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// How it was rung since the last call. Rung meanwhile, it may count as lost what is told by the
    /// next call: that is only waited for less.
    pub(super) fn take(&self) -> Rung {
        Rung {
            times: self.rings.swap(0, Ordering::SeqCst),
            lost: self.lost.swap(false, Ordering::SeqCst),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_while_nobody_was_subscribed_is_lost_and_that_is_told_once() {
        let bell = Bell::default();
        let rung = |times, lost| Rung { times, lost };
        for reason in [BreakReason::Reconnected, BreakReason::CutOff] {
            bell.ring(reason);
            bell.ring(BreakReason::Canary);
            assert_eq!(bell.take(), rung(2, true), "{reason:?}");
            assert_eq!(bell.take(), rung(0, false));
        }
        for reason in [BreakReason::Overflow, BreakReason::Standstill] {
            bell.ring(reason);
            assert_eq!(bell.take(), rung(1, false), "{reason:?}");
        }
    }
}
