//! Entries that arrived before the one in front of them: kept for a moment, since most holes close
//! by themselves (two nodes publish out of order), then left to a fill.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rookery_protocol::{ConversationId, Seq};

use super::Audience;
use crate::metrics::Level;

/// How long an entry waits for the one before it.
pub(super) const HOLD: Duration = Duration::from_millis(100);
/// When a fill is asked for again that closed nothing: its sockets may have been of another mind.
const AGAIN: Duration = Duration::from_secs(1);
/// Entries kept for one audience and conversation; a larger hole is read from the store whole.
const HELD_MAX: usize = 64;
/// Bytes kept on a node, for all audiences together: what a moment of a busy node weighs. When the
/// bus loses much at once, the store has to be read anyway.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;

type Key = (Audience, ConversationId);

/// The bytes that all holds of a node have kept. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    pub(super) fn level(&self) -> Level {
        Level {
            used: self.0.load(Ordering::Relaxed),
            capacity: HELD_BYTES_MAX,
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= HELD_BYTES_MAX;
        if !fits {
            self.give(bytes);
        }
        fits
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

struct Held<T> {
    /// When a fill is to be asked for.
    due: Instant,
    asked: bool,
    /// The newest entry that was seen, kept or not.
    target: Seq,
    entries: BTreeMap<Seq, (T, usize)>,
}

impl<T> Held<T> {
    fn bytes(&self) -> usize {
        self.entries.values().map(|(_, bytes)| bytes).sum()
    }
}

/// A hold that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) key: Key,
    pub(super) target: Seq,
    /// A fill was asked for before, and has not closed the hole yet.
    pub(super) again: bool,
}

/// All holds of one worker.
pub(super) struct Holds<T> {
    held: HashMap<Key, Held<T>>,
    /// When to look at which hold. Those that have ended, or are due at another time by now, are
    /// passed over.
    due: BinaryHeap<Reverse<(Instant, Key)>>,
    bytes: HeldBytes,
}

impl<T> Holds<T> {
    pub(super) fn new(bytes: HeldBytes) -> Self {
        Self {
            held: HashMap::new(),
            due: BinaryHeap::new(),
            bytes,
        }
    }

    /// Keeps an entry of about so many bytes; beyond the bounds only its `seq`, as a target for the
    /// fill.
    pub(super) fn keep(&mut self, key: Key, seq: Seq, entry: T, bytes: usize) {
        let due_heap = &mut self.due;
        let held = self.held.entry(key).or_insert_with(|| {
            let due = Instant::now() + HOLD;
            due_heap.push(Reverse((due, key)));
            Held {
                due,
                asked: false,
                target: seq,
                entries: BTreeMap::new(),
            }
        });
        held.target = held.target.max(seq);
        if held.entries.len() < HELD_MAX
            && self.bytes.take(bytes)
            && let Some((_, before)) = held.entries.insert(seq, (entry, bytes))
        {
            self.bytes.give(before);
        }
    }

    /// The newest entry that was seen of a hold.
    pub(super) fn target(&self, key: Key) -> Option<Seq> {
        Some(self.held.get(&key)?.target)
    }

    /// Takes the kept entry `seq`; a hold without entries and targets beyond it ends.
    pub(super) fn take(&mut self, key: Key, seq: Seq) -> Option<T> {
        let held = self.held.get_mut(&key)?;
        let before = held.bytes();
        let entry = held.entries.remove(&seq).map(|(entry, _)| entry);
        held.entries = held.entries.split_off(&seq);
        self.bytes.give(before - held.bytes());
        // A target that was not kept is still to be filled.
        if held.target < seq || (held.target == seq && entry.is_some()) {
            self.forget(key);
        }
        entry
    }

    /// Ends a hold whose entries were all passed on some other way.
    pub(super) fn passed(&mut self, key: Key, seq: Seq) {
        if self.held.get(&key).is_some_and(|held| held.target <= seq) {
            self.forget(key);
        }
    }

    /// A fill has done what it could: what is still held waits for a new one, if need be.
    pub(super) fn renew(&mut self, key: Key) {
        if let Some(held) = self.held.get_mut(&key) {
            held.due = Instant::now() + HOLD;
            held.asked = false;
            self.due.push(Reverse((held.due, key)));
        }
    }

    /// When the oldest hold is over.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        while let Some(Reverse((due, key))) = self.due.peek() {
            if self.held.get(key).is_some_and(|held| held.due == *due) {
                return Some(*due);
            }
            self.due.pop();
        }
        None
    }

    /// Holds that are over. They stay, for what follows the fill, and are over again after a while
    /// if it does not come.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Overdue> {
        let mut overdue = Vec::new();
        while self.deadline().is_some_and(|due| due <= now) {
            let Some(Reverse((_, key))) = self.due.pop() else {
                break;
            };
            if let Some(held) = self.held.get_mut(&key) {
                overdue.push(Overdue {
                    key,
                    target: held.target,
                    again: held.asked,
                });
                held.asked = true;
                held.due = now + AGAIN;
                self.due.push(Reverse((held.due, key)));
            }
        }
        overdue
    }

    /// Drops a hold: its user has no socket any more, or is no member.
    pub(super) fn forget(&mut self, key: Key) {
        if let Some(held) = self.held.remove(&key) {
            self.bytes.give(held.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SMALL: usize = 100;

    fn key(n: u128) -> Key {
        (
            Audience::Room,
            ConversationId::from_uuid(Uuid::from_u128(n)),
        )
    }

    fn holds() -> (Holds<i64>, HeldBytes) {
        let bytes = HeldBytes::default();
        (Holds::new(bytes.clone()), bytes)
    }

    fn kept(bytes: &HeldBytes) -> usize {
        bytes.0.load(Ordering::Relaxed)
    }

    #[test]
    fn what_is_kept_comes_back_in_order_and_what_is_too_much_becomes_a_target() {
        let (mut holds, bytes) = holds();
        let last = HELD_MAX as i64 + 10;
        for seq in 3..=last {
            holds.keep(key(1), Seq(seq), seq, SMALL);
        }
        assert_eq!(holds.take(key(1), Seq(3)), Some(3));
        assert_eq!(kept(&bytes), (HELD_MAX - 1) * SMALL);
        assert_eq!(holds.take(key(1), Seq(last - 1)), None, "beyond the bound");
        assert_eq!(kept(&bytes), 0, "older ones are of no use any more");
        let overdue = holds.overdue(Instant::now() + HOLD);
        let expected = Overdue {
            key: key(1),
            target: Seq(last),
            again: false,
        };
        assert_eq!(overdue, [expected]);
        holds.passed(key(1), Seq(last));
        assert!(holds.held.is_empty());
    }

    #[test]
    fn a_target_that_was_not_kept_waits_for_its_fill() {
        let (mut holds, _) = holds();
        holds.keep(key(1), Seq(6), 6, HELD_BYTES_MAX + 1);
        assert_eq!(holds.take(key(1), Seq(6)), None);
        assert_eq!(holds.overdue(Instant::now() + HOLD)[0].target, Seq(6));
        holds.keep(key(2), Seq(6), 6, SMALL);
        assert_eq!(holds.take(key(2), Seq(6)), Some(6));
        assert!(!holds.held.contains_key(&key(2)));
    }

    #[test]
    fn bytes_are_bounded_over_all_and_come_back() {
        let (mut holds, bytes) = holds();
        let mut other_worker = Holds::new(bytes.clone());
        let half = HELD_BYTES_MAX / 2;
        holds.keep(key(1), Seq(3), 3, half);
        other_worker.keep(key(2), Seq(3), 3, half);
        holds.keep(key(3), Seq(5), 5, SMALL);
        assert_eq!(kept(&bytes), HELD_BYTES_MAX);
        assert_eq!(holds.take(key(3), Seq(4)), None);
        let targets: Vec<_> = holds.overdue(Instant::now() + HOLD);
        assert!(
            targets
                .iter()
                .any(|o| o.key == key(3) && o.target == Seq(5))
        );
        other_worker.forget(key(2));
        holds.keep(key(1), Seq(3), 3, SMALL);
        assert_eq!(kept(&bytes), SMALL, "a repeat takes the place of the first");
        holds.passed(key(1), Seq(3));
        assert_eq!(kept(&bytes), 0);
    }

    #[test]
    fn a_hold_is_over_once_and_again_when_nothing_came_of_it() {
        let (mut holds, _) = holds();
        holds.keep(key(1), Seq(3), 3, SMALL);
        let due = holds.deadline().expect("one waits");
        assert_eq!(holds.overdue(due).len(), 1);
        assert_eq!(holds.overdue(due + HOLD), [], "it was asked for");
        let again = holds.overdue(due + AGAIN);
        assert!(again[0].again);
        holds.renew(key(1));
        assert!(holds.deadline().expect("it waits anew") < due + AGAIN);
        holds.forget(key(1));
        assert_eq!(holds.deadline(), None);
    }
}
