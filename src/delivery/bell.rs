//! The reconciler's bell: rung when the bus may have lost something.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Notify,
    /// Rings that nobody took.
    rings: AtomicU64,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        self.rung.notify_one();
    }

    /// Waits until it is rung; at once, if it was since the last call.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// How often it was rung since the last call.
    pub(super) fn take(&self) -> u64 {
        self.rings.swap(0, Ordering::SeqCst)
    }
}
