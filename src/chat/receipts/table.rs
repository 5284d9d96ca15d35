//! Marks that wait to be written, one entry a member of a conversation, merged to the highest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rookery_protocol::{ConversationId, Seq, UserId};
use tokio::sync::{Notify, oneshot};

use super::{Mark, Marker};
use crate::store::{MarkKind, MarkRaise};

/// Members whose marks may wait, some 6 MB: three conversations each of the sockets of a full node.
/// While the store is away they gather here; beyond it whoever marks has to wait.
const MEMBERS_MAX: usize = 50_000;

pub(super) type Key = (ConversationId, UserId);
pub(super) type Marks = HashMap<Key, Waiting>;

/// What is wanted of one member's marks: `delivered >= read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) delivered: Seq,
    pub(super) read: Seq,
    /// The socket whose read mark is the highest.
    pub(super) reader: Option<u64>,
}

impl Waiting {
    fn of(mark: Mark, socket: Option<u64>) -> Self {
        let (read, reader) = match mark.kind {
            MarkKind::Delivered => (Seq::ZERO, None),
            MarkKind::Read => (mark.seq, socket),
        };
        Self {
            delivered: mark.seq,
            read,
            reader,
        }
    }

    fn merge(&mut self, other: Self) {
        self.delivered = self.delivered.max(other.delivered);
        if other.read > self.read {
            self.read = other.read;
            self.reader = other.reader;
        }
    }

    /// As the store takes it: a read mark, and a delivered one where that is further.
    pub(super) fn raises(self, (id, user): Key) -> impl Iterator<Item = MarkRaise> {
        let raise = move |kind, seq| MarkRaise {
            conversation_id: id,
            user_id: user,
            kind,
            seq,
        };
        let read = (self.read > Seq::ZERO).then(|| raise(MarkKind::Read, self.read));
        let further = self.delivered > self.read;
        let delivered = further.then(|| raise(MarkKind::Delivered, self.delivered));
        read.into_iter().chain(delivered)
    }
}

/// What became of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// They wait; so many of them joined others that waited.
    Taken { merged: u64 },
    /// The node is stopping.
    Closed,
}

/// Everything that waited, and who wants to hear whether it was stored.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) marks: Marks,
    pub(super) waiters: Vec<oneshot::Sender<bool>>,
}

#[derive(Default)]
struct State {
    taken: Taken,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    state: Mutex<State>,
    /// Rung when something waits.
    pub(super) filled: Notify,
    /// Rung when somebody waits for an answer.
    pub(super) urgent: Notify,
    emptied: Notify,
}

impl Table {
    /// Adds marks, once there is room. `stored` is told once they are written, or could not be.
    pub(super) async fn put(
        &self,
        marker: Marker,
        marks: &[Mark],
        stored: Option<oneshot::Sender<bool>>,
    ) -> Put {
        loop {
            let emptied = self.emptied.notified();
            {
                let mut state = self.lock();
                if state.closed {
                    return Put::Closed;
                }
                let waiting = &state.taken.marks;
                let known = |mark: &Mark| {
                    let key = (mark.conversation_id, marker.user_id);
                    waiting.contains_key(&key)
                };
                if waiting.len() < MEMBERS_MAX || marks.iter().all(known) {
                    let merged = add(&mut state.taken.marks, marker, marks);
                    let urgent = stored.is_some();
                    state.taken.waiters.extend(stored);
                    drop(state);
                    self.filled.notify_one();
                    if urgent {
                        self.urgent.notify_one();
                    }
                    return Put::Taken { merged };
                }
            }
            emptied.await;
        }
    }

    /// Takes everything that waits.
    pub(super) fn take(&self) -> Taken {
        let taken = std::mem::take(&mut self.lock().taken);
        self.emptied.notify_waiters();
        taken
    }

    /// Puts back what could not be written, under what came meanwhile.
    pub(super) fn give_back(&self, marks: Marks) {
        let mut state = self.lock();
        for (key, waiting) in marks {
            merge(&mut state.taken.marks, key, waiting);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.emptied.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves marks that are still marks.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how many of them joined others.
fn add(waiting: &mut Marks, marker: Marker, marks: &[Mark]) -> u64 {
    let joined = marks.iter().filter(|mark| {
        let key = (mark.conversation_id, marker.user_id);
        merge(waiting, key, Waiting::of(**mark, marker.socket))
    });
    joined.count() as u64
}

/// True if the member's marks waited already.
fn merge(marks: &mut Marks, key: Key, new: Waiting) -> bool {
    match marks.entry(key) {
        Entry::Occupied(mut waiting) => {
            waiting.get_mut().merge(new);
            true
        }
        Entry::Vacant(place) => {
            place.insert(new);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));

    fn marker(user: u128, socket: u64) -> Marker {
        Marker {
            user_id: UserId::from_uuid(Uuid::from_u128(user)),
            socket: Some(socket),
        }
    }

    fn mark(kind: MarkKind, seq: i64) -> Mark {
        let seq = Seq(seq);
        Mark {
            conversation_id: ROOM,
            kind,
            seq,
        }
    }

    async fn put(table: &Table, marker: Marker, marks: &[Mark]) -> Put {
        table.put(marker, marks, None).await
    }

    #[tokio::test]
    async fn marks_of_one_member_become_one_of_the_highest() {
        let table = Table::default();
        let (one, other) = (marker(7, 1), marker(7, 2));
        let first = [mark(MarkKind::Delivered, 5), mark(MarkKind::Read, 3)];
        assert_eq!(put(&table, one, &first).await, Put::Taken { merged: 1 });
        let second = [mark(MarkKind::Read, 4), mark(MarkKind::Read, 2)];
        assert_eq!(put(&table, other, &second).await, Put::Taken { merged: 2 });
        let another = [mark(MarkKind::Delivered, 1)];
        assert_eq!(
            put(&table, marker(8, 3), &another).await,
            Put::Taken { merged: 0 }
        );
        let marks = table.take().marks;
        assert_eq!(marks.len(), 2);
        let merged = marks[&(ROOM, one.user_id)];
        let expected = Waiting {
            delivered: Seq(5),
            read: Seq(4),
            reader: Some(2),
        };
        assert_eq!(merged, expected);
        let raises: Vec<_> = merged.raises((ROOM, one.user_id)).collect();
        let raises: Vec<_> = raises.iter().map(|r| (r.kind, r.seq.0)).collect();
        assert_eq!(raises, [(MarkKind::Read, 4), (MarkKind::Delivered, 5)]);
        assert!(table.take().marks.is_empty());
    }

    #[tokio::test]
    async fn what_could_not_be_written_waits_under_what_came_meanwhile() {
        let table = Table::default();
        put(&table, marker(7, 1), &[mark(MarkKind::Read, 5)]).await;
        let failed = table.take().marks;
        put(&table, marker(7, 2), &[mark(MarkKind::Delivered, 6)]).await;
        table.give_back(failed);
        let marks = table.take().marks;
        let merged = marks[&(ROOM, marker(7, 1).user_id)];
        assert_eq!(
            (merged.delivered, merged.read, merged.reader),
            (Seq(6), Seq(5), Some(1))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_makes_wait_but_takes_what_it_knows() {
        let table = Table::default();
        let read = [mark(MarkKind::Read, 1)];
        for user in 0..MEMBERS_MAX as u128 {
            put(&table, marker(user, 1), &read).await;
        }
        let known = put(&table, marker(0, 1), &read).await;
        assert_eq!(known, Put::Taken { merged: 1 });
        let stranger = put(&table, marker(u128::MAX, 1), &read);
        tokio::pin!(stranger);
        let patience = Duration::from_secs(1);
        let waited = tokio::time::timeout(patience, &mut stranger).await;
        assert!(waited.is_err(), "there is no room");
        assert_eq!(table.take().marks.len(), MEMBERS_MAX);
        assert_eq!(stranger.await, Put::Taken { merged: 0 });
        table.close();
        assert_eq!(put(&table, marker(0, 1), &read).await, Put::Closed);
    }
}
