//! The only reader of the wall clock and the only maker of random ids, so that tests can hold both
//! still and clippy can forbid them everywhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rookery_protocol::Timestamp;
use uuid::Uuid;

/// Tells the time: the system's, or one that a test sets.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds; `None`: the system's clock.
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self { manual: None }
    }

    /// A clock that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self {
            manual: Some(Arc::new(AtomicI64::new(start.as_millis()))),
        }
    }

    /// Moves a manual clock; does nothing to the system's.
    pub fn advance_millis(&self, millis: i64) {
        if let Some(manual) = &self.manual {
            manual.fetch_add(millis, Ordering::SeqCst);
        }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        if let Some(manual) = &self.manual {
            return Timestamp::from_millis(manual.load(Ordering::SeqCst));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the wall clock"
        )]
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A new time-ordered id (UUIDv7), so that index pages fill in order.
#[must_use]
pub fn new_id() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    Uuid::now_v7()
}
