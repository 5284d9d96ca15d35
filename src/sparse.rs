//! Tables give back the room that many entries needed which are gone, so that a storm of connections
//! leaves no large empty ones.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use dashmap::{DashMap, DashSet};

/// Room for fewer entries is kept.
const KEPT: usize = 1_024;

/// Less than a quarter is used: a table that doubles its room when it is full does not shrink again
/// and again while it fills.
fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 4
}

/// Shrinks a table that is mostly empty. Cheap where it is not: to be called when entries have gone.
pub(crate) fn shrink<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if is_sparse(table.len(), table.capacity()) {
        table.shrink_to_fit();
    }
}

/// As [`shrink`], of a shared table, a part of it at a time.
pub(crate) fn shrink_shared<K: Eq + Hash, V>(table: &DashMap<K, V>) {
    if is_sparse(table.len(), table.capacity()) {
        table.shrink_to_fit();
    }
}

/// As [`shrink_shared`], of a set.
pub(crate) fn shrink_set<K: Eq + Hash>(set: &DashSet<K>) {
    if is_sparse(set.len(), set.capacity()) {
        set.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_once_most_entries_are_gone() {
        let mut table: HashMap<u32, ()> = (0..10_000).map(|number| (number, ())).collect();
        let shared: DashMap<u32, ()> = (0..10_000).map(|number| (number, ())).collect();
        let set: DashSet<u32> = (0..10_000).collect();
        let mut shrink_to = |len: u32| {
            table.retain(|number, ()| *number < len);
            shared.retain(|number, ()| *number < len);
            set.retain(|number| *number < len);
            shrink(&mut table);
            shrink_shared(&shared);
            shrink_set(&set);
            assert_eq!(table.len(), len as usize);
            assert_eq!(shared.len(), len as usize);
            assert_eq!(set.len(), len as usize);
            [table.capacity(), shared.capacity(), set.capacity()]
        };
        for capacity in shrink_to(6_000) {
            assert!(capacity >= 10_000, "it may fill again: {capacity}");
        }
        for capacity in shrink_to(100) {
            assert!(capacity < 1_000, "{capacity}");
        }
    }
}
