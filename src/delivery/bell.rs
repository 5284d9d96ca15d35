//! The reconciler's bell: rung when the bus may have lost something.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

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
    /// `lost`: what was missed will not come late.
    pub(super) fn ring(&self, lost: bool) {
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
