//! What is known of one group's messages, and what of that breaks a promise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::latency::Latencies;
use crate::report::Run;

pub(super) type Shared = Arc<Mutex<Board>>;

pub(super) fn lock(board: &Shared) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody but one writes to a group: a message's place is known when it is sent, if none before it is
/// refused.
pub(super) struct Board {
    /// Entries before the first message.
    base: i64,
    others: usize,
    /// When each message was sent, and its counter.
    sent: Vec<(Instant, u64)>,
    /// Who has the message of each place.
    places: Vec<Place>,
    pub complete: usize,
    pub deliveries: u64,
    pub to_last: Latencies,
    /// Since when latencies count.
    pub measuring: bool,
    /// Nothing more is sent.
    pub over: bool,
    pub room: Arc<Notify>,
    pub found: Found,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    acked: bool,
    members: usize,
}

/// What must not be.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Acknowledged, and somebody does not have it.
    lost: u64,
    unanswered: u64,
    refused: u64,
    pub disorder: u64,
    /// Not what was written, to the one who reads all of it.
    pub foreign: u64,
    pub closed: u64,
    problem: Option<String>,
}

impl Found {
    pub(super) fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.unanswered += other.unanswered;
        self.refused += other.refused;
        self.disorder += other.disorder;
        self.foreign += other.foreign;
        self.closed += other.closed;
        self.problem = self.problem.take().or_else(|| other.problem.clone());
    }

    pub(super) fn put(self, run: &mut Run) {
        run.promise("unanswered", self.unanswered);
        run.promise("refused", self.refused);
        run.promise("messages lost to somebody", self.lost);
        run.promise("messages doubled or out of order", self.disorder);
        run.promise("messages that nobody wrote", self.foreign);
        run.promise("members' sockets closed", self.closed);
        run.notes.extend(self.problem);
    }
}

impl Board {
    pub(super) fn new(base: i64, others: usize) -> anyhow::Result<Self> {
        Ok(Self {
            base,
            others,
            sent: Vec::new(),
            places: Vec::new(),
            complete: 0,
            deliveries: 0,
            to_last: Latencies::new()?,
            measuring: false,
            over: false,
            room: Arc::new(Notify::new()),
            found: Found::default(),
        })
    }

    pub(super) fn sent(&mut self, counter: u64) {
        self.sent.push((Instant::now(), counter));
        self.places.push(Place::default());
    }

    pub(super) fn acked(&mut self, seq: i64) {
        self.has(seq, |place| place.acked = true);
    }

    pub(super) fn delivered(&mut self, seq: i64) {
        self.has(seq, |place| place.members += 1);
    }

    fn has(&mut self, seq: i64, note: impl FnOnce(&mut Place)) {
        let Ok(index) = usize::try_from(seq - self.base - 1) else {
            return;
        };
        let Some(place) = self.places.get_mut(index) else {
            self.found.disorder += 1;
            return;
        };
        note(place);
        self.deliveries += 1;
        if place.acked && place.members == self.others {
            self.complete += 1;
            if self.measuring {
                self.to_last.record(self.sent[index].0.elapsed());
            }
            self.room.notify_one();
        }
    }

    /// It has no place: those after it move up, whoever has them already.
    pub(super) fn refused(&mut self, counter: Option<u64>, problem: String) {
        let index = counter.and_then(|counter| {
            let known = |(_, sent): &(Instant, u64)| sent.cmp(&counter);
            self.sent.binary_search_by(known).ok()
        });
        if let Some(index) = index {
            self.sent.remove(index);
            self.places.pop();
        }
        self.found.refused += 1;
        self.found.problem = Some(problem);
        self.room.notify_one();
    }

    pub(super) fn wants_more(&self, window: usize) -> bool {
        !self.over && self.under_way() < window
    }

    pub(super) fn under_way(&self) -> usize {
        self.sent.len() - self.complete
    }

    /// The end: what not everybody has counts, with its age.
    pub(super) fn close(&mut self) {
        for (place, (at, _)) in self.places.iter().zip(&self.sent) {
            if place.acked && place.members >= self.others {
                continue;
            }
            match place.acked {
                true => self.found.lost += 1,
                false => self.found.unanswered += 1,
            }
            self.to_last.record(at.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a writer and two others, with four messages.
    fn board() -> Board {
        let mut board = Board::new(10, 2).unwrap();
        (0..4).for_each(|counter| board.sent(counter));
        board
    }

    fn everybody_has(board: &mut Board, seq: i64) {
        board.acked(seq);
        board.delivered(seq);
        board.delivered(seq);
    }

    fn broken(mut board: Board) -> Vec<String> {
        board.close();
        let mut run = Run::new("group", "group");
        board.found.put(&mut run);
        run.broken
    }

    #[test]
    fn what_everybody_has_breaks_nothing() {
        let mut board = board();
        (11..15).for_each(|seq| everybody_has(&mut board, seq));
        assert_eq!(board.under_way(), 0);
        assert_eq!(broken(board), [""; 0]);
    }

    #[test]
    fn lost_and_unanswered_are_told_apart_and_have_an_age() {
        let mut board = board();
        (11..13).for_each(|seq| everybody_has(&mut board, seq));
        board.acked(13);
        board.delivered(13);
        board.close();
        assert_eq!(board.to_last.quantiles().count, 2);
        let mut run = Run::new("group", "group");
        board.found.put(&mut run);
        assert_eq!(run.broken, ["1 unanswered", "1 messages lost to somebody"]);
    }

    #[test]
    fn a_refused_message_is_neither_lost_nor_does_it_move_others() {
        let mut board = board();
        // One of those after it was there before the refusal was known.
        board.delivered(12);
        board.refused(Some(1), "RATE_LIMITED: slowly".to_owned());
        board.acked(12);
        board.delivered(12);
        everybody_has(&mut board, 11);
        everybody_has(&mut board, 13);
        assert_eq!(board.under_way(), 0);
        assert_eq!(broken(board), ["1 refused"]);
    }
}
