//! Entries that arrived before the one in front of them: kept for a moment, since most holes close
//! by themselves (two nodes publish out of order), then left to a fill.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rookery_protocol::{ConversationId, Seq};

use super::Audience;

/// How long an entry waits for the one before it.
pub(super) const HOLD: Duration = Duration::from_millis(100);
/// Entries kept for one audience and conversation; a larger hole is read from the store whole.
const HELD_MAX: usize = 64;

type Key = (Audience, ConversationId);

struct Held<T> {
    since: Instant,
    /// The newest entry that was seen, kept or not.
    target: Seq,
    entries: BTreeMap<Seq, T>,
}

/// All holds of one worker.
pub(super) struct Holds<T> {
    held: HashMap<Key, Held<T>>,
}

impl<T> Holds<T> {
    pub(super) fn new() -> Self {
        Self {
            held: HashMap::new(),
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Keeps an entry; beyond the bound only its `seq`, as a target for the fill.
    pub(super) fn keep(&mut self, key: Key, seq: Seq, entry: T) {
        let held = self.held.entry(key).or_insert_with(|| Held {
            since: Instant::now(),
            target: seq,
            entries: BTreeMap::new(),
        });
        held.target = held.target.max(seq);
        if held.entries.len() < HELD_MAX {
            held.entries.insert(seq, entry);
        }
    }

    /// Takes the kept entry `seq`; a hold without entries and targets beyond it ends.
    pub(super) fn take(&mut self, key: Key, seq: Seq) -> Option<T> {
        let held = self.held.get_mut(&key)?;
        let entry = held.entries.remove(&seq);
        held.entries = held.entries.split_off(&seq);
        if held.target <= seq {
            self.held.remove(&key);
        }
        entry
    }

    /// Ends a hold whose entries were all passed on some other way.
    pub(super) fn passed(&mut self, key: Key, seq: Seq) {
        if self.held.get(&key).is_some_and(|held| held.target <= seq) {
            self.held.remove(&key);
        }
    }

    /// When the oldest hold is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held.values().map(|held| held.since + HOLD).min()
    }

    /// Holds that are over: their keys and targets. They stay, for what follows the fill.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(Key, Seq)> {
        let mut overdue = Vec::new();
        for (key, held) in &mut self.held {
            if held.since + HOLD <= now {
                overdue.push((*key, held.target));
                held.since = now;
            }
        }
        overdue
    }

    /// Drops a hold: its user has no socket any more, or is no member.
    pub(super) fn forget(&mut self, key: Key) {
        self.held.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_kept_comes_back_in_order_and_what_is_too_much_becomes_a_target() {
        let key = (Audience::Room, ConversationId::from_uuid(Uuid::nil()));
        let mut holds = Holds::new();
        for seq in 3..=(HELD_MAX as i64 + 10) {
            holds.keep(key, Seq(seq), seq);
        }
        assert_eq!(holds.take(key, Seq(3)), Some(3));
        assert_eq!(
            holds.take(key, Seq(HELD_MAX as i64 + 9)),
            None,
            "beyond the bound"
        );
        let overdue = holds.overdue(Instant::now() + HOLD);
        assert_eq!(overdue, [(key, Seq(HELD_MAX as i64 + 10))]);
        holds.passed(key, Seq(HELD_MAX as i64 + 10));
        assert!(holds.is_empty());
    }
}
