//! Writes the marks that wait, many at once, as the group commit does for messages: while one
//! flush is under way the next gathers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::table::{Key, Marks, Table, Taken};
use crate::chat::fanout::Fanout;
use crate::clock::Clock;
use crate::metrics;
use crate::store::{MarkRaise, MarksGrown, Store, StoreError};

/// How long the first mark waits for others: who reads marks message after message, and nobody
/// notices a twentieth of a second.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// How long under load. The more there was to write, the longer the next pause, so that more marks
/// merge and the database spends a twentieth of a core on them, however many come.
const PAUSE_MAX: Duration = Duration::from_millis(500);
const PAUSE_PER_ROW: Duration = Duration::from_micros(500);
/// How long a flush that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Members whose marks one statement writes: some 10 ms of the database.
const BATCH_MAX: usize = 1_000;

/// See the module.
pub(super) struct Flusher {
    pub(super) store: Arc<dyn Store>,
    pub(super) fanout: Arc<Fanout>,
    pub(super) clock: Clock,
    /// In groups of more members, receipts go to authors and watchers only.
    pub(super) fanout_max: i64,
    pub(super) table: Arc<Table>,
}

/// What became of a table of marks.
struct Written {
    grown: Vec<MarksGrown>,
    /// None is of a kind that cannot be written at all.
    all: bool,
    /// Not tried, since the store does not answer.
    left: HashSet<Key>,
}

/// The store does not answer; what was to be written waits again.
struct Away;

impl Flusher {
    /// Runs until the node stops, then writes what is left.
    pub(super) async fn run(self, stopping: CancellationToken) {
        let mut pause = PAUSE_MIN;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                () = self.table.filled.notified() => {}
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                () = self.table.urgent.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            match self.flush().await {
                Ok(rows) => {
                    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
                    pause = PAUSE_PER_ROW
                        .saturating_mul(rows)
                        .clamp(PAUSE_MIN, PAUSE_MAX);
                }
                Err(Away) => {
                    tokio::select! {
                        () = stopping.cancelled() => break,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
        self.table.close();
        if self.flush().await.is_err() {
            // Clients repeat their last marks when they come back.
            tracing::warn!("marks are lost: the database does not answer while the node stops");
        }
    }

    /// Writes everything that waits and tells of what grew. Returns how many members' marks that
    /// were.
    async fn flush(&self) -> Result<usize, Away> {
        let Taken { mut marks, waiters } = self.table.take();
        if marks.is_empty() {
            return Ok(0);
        }
        let rows = marks.len();
        let written = self.write(&marks).await;
        for waiter in waiters {
            // Whoever asked may be gone by now.
            waiter.send(written.all && written.left.is_empty()).ok();
        }
        let grown = written.grown;
        metrics::marks_total().written.increment(grown.len() as u64);
        // What is written grows no second time: it is told now, even if the rest has to wait.
        self.tell(&grown, &marks).await;
        if written.left.is_empty() {
            return Ok(rows);
        }
        marks.retain(|key, _| written.left.contains(key));
        self.table.give_back(marks);
        Err(Away)
    }

    async fn write(&self, marks: &Marks) -> Written {
        let keys: Vec<Key> = marks.keys().copied().collect();
        let mut parts: Vec<&[Key]> = keys.chunks(BATCH_MAX).collect();
        let mut written = Written {
            grown: Vec::new(),
            all: true,
            left: HashSet::new(),
        };
        while let Some(part) = parts.pop() {
            let raise = |key: &Key| marks[key].raises(*key);
            let raises: Vec<MarkRaise> = part.iter().flat_map(raise).collect();
            let began = Instant::now();
            match self.store.raise_marks(&raises, self.clock.now()).await {
                Ok(more) => {
                    metrics::marks_flush_seconds().record(began.elapsed());
                    metrics::marks_flush_size().record(part.len() as f64);
                    written.grown.extend(more);
                }
                Err(
                    why @ (StoreError::Unavailable(_)
                    | StoreError::Collided(_)
                    | StoreError::Denied(_)),
                ) => {
                    tracing::warn!(%why, marks = part.len(), "marks could not be written yet");
                    written.left.extend(part);
                    written.left.extend(parts.drain(..).flatten());
                }
                Err(error) if part.len() == 1 => {
                    tracing::error!(%error, "a mark cannot be written");
                    written.all = false;
                }
                Err(error) => {
                    tracing::warn!(%error, marks = part.len(), "splitting a batch of marks");
                    let (one, other) = part.split_at(part.len() / 2);
                    parts.extend([one, other]);
                }
            }
        }
        written
    }
}
