//! Sessions that were ended while their access tokens still live.
//!
//! Access tokens are checked without asking anybody, so a node must know which of them to refuse:
//! those of sessions ended within the last token lifetime. It learns of them at the start from the
//! store, from its own log-outs, and from other nodes' news and the journal.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use rookery_protocol::{SessionId, Timestamp};

use crate::clock::Clock;

/// The set. An entry has 40 bytes and stays for one token lifetime, then nothing needs it.
pub struct Revocations {
    /// Until when the entry matters.
    until: RwLock<HashMap<SessionId, Timestamp>>,
    /// Lifetime of an access token, with leeway.
    matters_ms: i64,
    clock: Clock,
}

/// Whoever ended the session may have had another idea of the time.
const SKEW_MS: i64 = 60_000;

impl Revocations {
    #[must_use]
    pub fn new(clock: Clock, matters_ms: i64) -> Self {
        Self {
            until: RwLock::default(),
            matters_ms: matters_ms + SKEW_MS,
            clock,
        }
    }

    /// Sessions ended before this can be forgotten.
    #[must_use]
    pub fn matter_since(&self) -> Timestamp {
        self.clock.now().plus_millis(-self.matters_ms)
    }

    /// Refuses these sessions' tokens from now on.
    pub fn add(&self, session_ids: &[SessionId]) {
        if session_ids.is_empty() {
            return;
        }
        let until = self.clock.now().plus_millis(self.matters_ms);
        let mut map = self.until.write().unwrap_or_else(PoisonError::into_inner);
        map.extend(session_ids.iter().map(|id| (*id, until)));
    }

    #[must_use]
    pub fn contains(&self, session_id: SessionId) -> bool {
        self.until
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&session_id)
    }

    /// Drops the entries that no longer matter.
    pub fn prune(&self) {
        let now = self.clock.now();
        let mut map = self.until.write().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, until| *until > now);
        if map.len() < map.capacity() / 4 {
            map.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_as_long_as_a_token_could_live() {
        let clock = Clock::manual(Timestamp::from_millis(0));
        let revocations = Revocations::new(clock.clone(), 915_000);
        let session: SessionId = "00000000-0000-7000-8000-000000000002".parse().unwrap();
        assert!(!revocations.contains(session));
        revocations.add(&[session]);
        clock.advance_millis(915_000);
        revocations.prune();
        assert!(revocations.contains(session));
        clock.advance_millis(SKEW_MS);
        revocations.prune();
        assert!(!revocations.contains(session));
    }
}
