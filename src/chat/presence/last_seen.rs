//! When users were seen last, on its way into the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::{Timestamp, UserId};

use crate::store::Store;

/// How long telling waits for the store, so that whoever hears that a user is gone and asks finds
/// since when.
const PATIENCE: Duration = Duration::from_millis(500);
/// Users written by one statement.
const CHUNK: usize = 500;
/// Users kept for a store that does not answer; of those beyond it the time is lost.
const WAITING_MAX: usize = 50_000;

/// See the module. What could not be written is tried again with the next.
pub(super) struct LastSeen {
    store: Arc<dyn Store>,
    waiting: HashMap<UserId, Timestamp>,
}

impl LastSeen {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            waiting: HashMap::new(),
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn note(&mut self, user: UserId, at: Timestamp) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.insert(user, at);
        }
    }

    /// Writes what waits, as far as the store takes it soon.
    pub(super) async fn write(&mut self) {
        let written = tokio::time::timeout(PATIENCE, self.write_all()).await;
        if written.is_err() {
            tracing::debug!("the store is slow; when users were seen last waits");
        }
    }

    async fn write_all(&mut self) {
        while !self.waiting.is_empty() {
            let chunk: Vec<(UserId, Timestamp)> = self
                .waiting
                .iter()
                .take(CHUNK)
                .map(|(user, at)| (*user, *at))
                .collect();
            if let Err(error) = self.store.note_last_seen(&chunk).await {
                tracing::debug!(%error, "when users were seen last waits for the store");
                return;
            }
            for (user, _) in &chunk {
                self.waiting.remove(user);
            }
        }
    }
}
