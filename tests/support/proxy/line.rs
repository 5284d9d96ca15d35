//! What is under way in one direction of a connection and has not arrived yet.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::Mode;

/// How much may be under way before nothing more is read. A delay of a second must not turn into a
/// throttle at the rates of the tests.
const ROOM: usize = 4 * 1_024 * 1_024;
/// What passes at a time: as large as reads from a socket usually are.
const PORTION: usize = 64 * 1_024;
/// Portions of a throttled link each second: often enough to look like a slow line.
const PORTIONS_PER_SECOND: u32 = 20;
/// How long a piece that is to swap places with the next one waits for it.
const SWAP_WITHIN: Duration = Duration::from_millis(100);

/// When a piece goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Now,
    /// This much later, without holding up what follows.
    Later(Duration),
    /// After the piece that follows.
    BehindNext,
}

#[derive(Default)]
pub(super) struct Line {
    /// By the time at which a piece is due, and then by its number.
    pieces: BTreeMap<(Instant, u64), Bytes>,
    length: usize,
    number: u64,
    /// When the last piece that keeps its place is due.
    ordered_until: Option<Instant>,
    swapping: Option<(Instant, u64)>,
}

/// How much to read at a time.
pub(super) fn portion(mode: Mode) -> usize {
    match mode {
        Mode::Throttle { bytes_per_second } => {
            let portion = (bytes_per_second / PORTIONS_PER_SECOND).max(1);
            usize::try_from(portion).unwrap_or(PORTION).min(PORTION)
        }
        _ => PORTION,
    }
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether more should be read. A slow link reads no faster than it writes, so that the sender
    /// feels it.
    pub(super) fn has_room(&self, mode: Mode) -> bool {
        match mode {
            Mode::Throttle { .. } => self.is_empty(),
            _ => self.length < ROOM,
        }
    }

    /// Waits until the first piece is due.
    pub(super) async fn due(&self) {
        match self.pieces.first_key_value() {
            Some(((due, _), _)) => sleep_until(*due).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn take(&mut self) -> Option<Bytes> {
        let (key, piece) = self.pieces.pop_first()?;
        self.length -= piece.len();
        if self.swapping == Some(key) {
            self.swapping = None;
        }
        Some(piece)
    }

    /// Puts a piece on its way, or gives it back when it can go at once.
    pub(super) fn put(&mut self, piece: Bytes, passage: Passage, mode: Mode) -> Option<Bytes> {
        let now = Instant::now();
        match passage {
            Passage::Later(delay) => {
                self.insert(now + delay, piece);
            }
            Passage::BehindNext if self.swapping.is_none() => {
                self.swapping = Some(self.insert(now + SWAP_WITHIN, piece));
            }
            Passage::Now | Passage::BehindNext => {
                let due = self.ordered_until.unwrap_or(now).max(now) + takes(mode, piece.len());
                if due == now && self.swapping.is_none() && !self.is_late(now) {
                    return Some(piece);
                }
                self.ordered_until = Some(due);
                self.insert(due, piece);
                self.finish_swap();
            }
        }
        None
    }

    /// Whether something should have gone on by now, and must not be overtaken.
    fn is_late(&self, now: Instant) -> bool {
        let first = self.pieces.first_key_value();
        first.is_some_and(|((due, _), _)| *due <= now)
    }

    fn insert(&mut self, due: Instant, piece: Bytes) -> (Instant, u64) {
        self.number += 1;
        self.length += piece.len();
        let key = (due, self.number);
        self.pieces.insert(key, piece);
        key
    }

    /// The piece that waited for another goes right behind the one just put.
    fn finish_swap(&mut self) {
        let Some(key) = self.swapping.take() else {
            return;
        };
        let last = self.number;
        let due = self.pieces.keys().find(|(_, number)| *number == last);
        let Some((due, _)) = due.copied() else { return };
        if let Some(piece) = self.pieces.remove(&key) {
            self.length -= piece.len();
            self.insert(due, piece);
        }
    }
}

/// How much later a piece arrives on a link in this mode.
fn takes(mode: Mode, length: usize) -> Duration {
    match mode {
        Mode::Delay { fixed, jitter } => fixed + jitter.mul_f64(fastrand::f64()),
        Mode::Throttle { bytes_per_second } => {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            Duration::from_secs_f64(f64::from(length) / f64::from(bytes_per_second.max(1)))
        }
        Mode::Pass | Mode::Blackhole | Mode::Cut => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_order(line: &mut Line) -> Vec<Bytes> {
        std::iter::from_fn(|| line.take()).collect()
    }

    #[tokio::test]
    async fn pieces_keep_their_order_unless_they_are_told_otherwise() {
        let piece = Bytes::from_static;
        let mut line = Line::default();
        let slow = Mode::Delay {
            fixed: Duration::from_millis(1),
            jitter: Duration::from_millis(500),
        };
        assert_eq!(
            line.put(piece(b"0"), Passage::Now, Mode::Pass),
            Some(piece(b"0"))
        );
        for number in ["1", "2", "3"] {
            let put = line.put(Bytes::from(number), Passage::Now, slow);
            assert_eq!(put, None);
        }
        // What follows on a link that was healed must not overtake what is under way.
        assert_eq!(line.put(piece(b"4"), Passage::Now, Mode::Pass), None);
        assert_eq!(in_order(&mut line), ["1", "2", "3", "4"]);
    }

    #[tokio::test]
    async fn a_piece_swaps_places_with_the_next_one() {
        let piece = Bytes::from_static;
        let mut line = Line::default();
        assert_eq!(line.put(piece(b"1"), Passage::BehindNext, Mode::Pass), None);
        assert_eq!(line.put(piece(b"2"), Passage::Now, Mode::Pass), None);
        let late = Passage::Later(Duration::from_secs(1));
        assert_eq!(line.put(piece(b"4"), late, Mode::Pass), None);
        assert_eq!(in_order(&mut line), ["2", "1", "4"]);
    }
}
