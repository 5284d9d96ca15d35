//! Group commit: sends that arrive while a commit is under way are stored together by the next one.
//!
//! One lane a node: a batch is as large as what waited. Under load the lane pauses after a batch, half as
//! long as its commit took, so that fewer and larger ones follow. A conversation that somebody else
//! has locked leaves the lane for a detour, a transaction of its own, and so delays only itself;
//! until the detour is done, later sends to it queue behind it, which keeps each sender's order.
//!
//! ```text
//! submit → queue → lane ── append(Wait::No) ──→ committed
//!                   └─ held ─→ detour: append(Wait::Yes) ──→ committed
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_pause::Pauses;
use rookery_protocol::ConversationId;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout_at;
use tracing::Instrument;

use super::{NewMessage, Outcome, Refusal, Store, StoreError, Stored, Wait};
use crate::clock::Clock;
use crate::lifecycle::Tasks;
use crate::metrics::{self, Level};
use crate::telemetry::SPANS;

/// Sends that may wait for the lane. At 15,000 a second this is half a second of work; a submitter
/// beyond it waits, which stops its socket from being read.
const QUEUE: usize = 8_192;
/// Larger batches gain little throughput and cost milliseconds of latency (measured).
const BATCH_MAX: usize = 128;
/// The lane pauses for a half of what a commit took: that costs much the same for one send as for a hundred,
/// here, in PostgreSQL and in Redis, and where it takes long a pause adds least to it
/// (`docs/decisions/0014-the-lane-pauses.md`).
const COMMITS_PER_PAUSE: u32 = 2;
/// No longer than this for each send of the batch: few of them tell that few are to come.
const PAUSE_PER_SEND: Duration = Duration::from_micros(40);
/// Shorter pauses would collect too little. Thus a batch of four is followed at once.
const PAUSE_MIN: Duration = Duration::from_micros(200);
/// What the lane may add to a send's latency.
const PAUSE_MAX: Duration = Duration::from_millis(2);
/// Sends that may wait behind all detours together.
const DETOUR_QUEUE: usize = 8_192;
/// Detours under way at once; each holds a database connection while it waits for a lock.
const DETOURS_MAX: usize = 4;
/// How long a detour may take until its last transaction begins: many conversations that are stuck
/// must not keep each other's senders waiting for minutes.
const DETOUR_WITHIN: Duration = Duration::from_secs(10);
/// Batches whose answers may wait to be given.
const COMMITTED_QUEUE: usize = 64;

/// One send and whatever its submitter needs to answer it.
#[derive(Debug)]
pub struct Ticket<R> {
    pub message: NewMessage,
    pub reply: R,
}

/// A send with its outcome.
#[derive(Debug)]
pub struct Committed<R> {
    pub ticket: Ticket<R>,
    pub result: Result<Stored, CommitError>,
}

/// Why a send was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    Refused(Refusal),
    /// Unknown outcome, or not tried: the same send may be repeated.
    Unavailable,
    /// This send fails whenever it is tried.
    Internal,
}

/// The lane's entrance. Cloning shares it.
#[derive(Debug)]
pub struct GroupCommit<R> {
    queue: mpsc::Sender<Ticket<R>>,
}

impl<R> Clone for GroupCommit<R> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<R: Send + 'static> GroupCommit<R> {
    /// Starts the lane. Outcomes arrive on the receiver, a batch at a time, in commit order within
    /// each conversation. When the node stops, what is queued is stored and the lane ends.
    pub fn start(
        store: Arc<dyn Store>,
        clock: Clock,
        tasks: &Tasks,
    ) -> (Self, mpsc::Receiver<Vec<Committed<R>>>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (committed, outcomes) = mpsc::channel(COMMITTED_QUEUE);
        let (ended, detours_ended) = mpsc::channel(DETOURS_MAX);
        let appender = Appender {
            store,
            clock,
            committed,
        };
        let lane = Lane {
            appender: Arc::new(appender),
            tasks: tasks.clone(),
            permits: Arc::new(Semaphore::new(DETOURS_MAX)),
            detours: HashMap::new(),
            behind: 0,
            ended,
        };
        metrics::capacity().detours.set(DETOUR_QUEUE as f64);
        tasks.spawn_vital("group-commit", lane.run(waiting, detours_ended));
        (Self { queue }, outcomes)
    }

    /// How many sends wait for the lane.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::of_queue(&self.queue)
    }

    /// Queues a send; waits while the queue is full. `Err` gives it back when the lane has ended.
    ///
    /// # Errors
    /// The node is stopping.
    pub async fn submit(&self, ticket: Ticket<R>) -> Result<(), Ticket<R>> {
        self.queue.send(ticket).await.map_err(|error| error.0)
    }
}

struct Lane<R> {
    appender: Arc<Appender<R>>,
    tasks: Tasks,
    permits: Arc<Semaphore>,
    /// Conversations on a detour, each with the sends that wait behind it.
    detours: HashMap<ConversationId, Vec<Ticket<R>>>,
    /// Sends in `detours`.
    behind: usize,
    ended: mpsc::Sender<ConversationId>,
}

impl<R: Send + 'static> Lane<R> {
    async fn run(
        mut self,
        mut waiting: mpsc::Receiver<Ticket<R>>,
        mut detours_ended: mpsc::Receiver<ConversationId>,
    ) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let stopping = self.tasks.stopping().clone();
        let pauses = Pauses::new();
        loop {
            tokio::select! {
                biased;
                Some(id) = detours_ended.recv() => self.detour_ended(id),
                // What is queued is still stored; nothing more is taken.
                () = stopping.cancelled(), if !waiting.is_closed() => waiting.close(),
                received = waiting.recv_many(&mut batch, BATCH_MAX) => {
                    if received == 0 {
                        break;
                    }
                    let begun = Instant::now();
                    self.store(std::mem::take(&mut batch)).await;
                    let pause = pause_after(received, begun.elapsed())
                        .filter(|_| waiting.len() < BATCH_MAX);
                    if let Some(pause) = pause {
                        pauses.make(pause).await;
                    }
                }
            }
        }
        while !self.detours.is_empty() {
            let Some(id) = detours_ended.recv().await else {
                break;
            };
            self.detour_ended(id);
        }
    }

    async fn store(&mut self, batch: Vec<Ticket<R>>) {
        let straight = if self.detours.is_empty() {
            batch
        } else {
            self.without_detours(batch).await
        };
        if straight.is_empty() {
            return;
        }
        let mut held: HashMap<ConversationId, Vec<Ticket<R>>> = HashMap::new();
        for ticket in self.appender.append(straight, Wait::No).await {
            held.entry(ticket.message.conversation_id)
                .or_default()
                .push(ticket);
        }
        for (id, tickets) in held {
            self.detours.insert(id, Vec::new());
            self.start_detour(id, tickets);
        }
    }

    /// Queues those whose conversation is on a detour behind it; returns the others.
    async fn without_detours(&mut self, batch: Vec<Ticket<R>>) -> Vec<Ticket<R>> {
        let mut straight = Vec::with_capacity(batch.len());
        let mut overflow = Vec::new();
        for ticket in batch {
            match self.detours.get_mut(&ticket.message.conversation_id) {
                None => straight.push(ticket),
                Some(_) if self.behind >= DETOUR_QUEUE => overflow.push(ticket),
                Some(behind) => {
                    behind.push(ticket);
                    self.behind += 1;
                    self.show_behind();
                }
            }
        }
        if !overflow.is_empty() {
            self.appender
                .fail(overflow, &CommitError::Unavailable)
                .await;
        }
        straight
    }

    fn show_behind(&self) {
        metrics::used().detours.set(self.behind as f64);
    }

    fn start_detour(&self, id: ConversationId, mut tickets: Vec<Ticket<R>>) {
        let appender = Arc::clone(&self.appender);
        let permits = Arc::clone(&self.permits);
        let ended = self.ended.clone();
        self.tasks.spawn("group-commit-detour", async move {
            let until = Instant::now() + DETOUR_WITHIN;
            let permit = timeout_at(until.into(), permits.acquire()).await;
            while !tickets.is_empty() {
                if permit.is_err() || Instant::now() >= until {
                    appender.fail(tickets, &CommitError::Unavailable).await;
                    break;
                }
                let rest = tickets.split_off(tickets.len().min(BATCH_MAX));
                let held = appender.append(tickets, Wait::Yes).await;
                appender.fail(held, &CommitError::Unavailable).await;
                tickets = rest;
            }
            drop(permit);
            // The lane is gone only when the node is.
            ended.send(id).await.ok();
        });
    }

    /// The conversation takes its next detour with what queued behind the last, or is free again.
    fn detour_ended(&mut self, id: ConversationId) {
        let Some(behind) = self.detours.get_mut(&id) else {
            return;
        };
        let tickets = std::mem::take(behind);
        self.behind -= tickets.len();
        self.show_behind();
        if tickets.is_empty() {
            self.detours.remove(&id);
        } else {
            self.start_detour(id, tickets);
        }
    }
}

/// How long the lane rests after a batch of so many sends, whose commit took so long.
fn pause_after(sends: usize, commit: Duration) -> Option<Duration> {
    let at_most = PAUSE_PER_SEND * u32::try_from(sends).unwrap_or(u32::MAX);
    let pause = (commit / COMMITS_PER_PAUSE).min(at_most).min(PAUSE_MAX);
    (pause >= PAUSE_MIN).then_some(pause)
}

struct Appender<R> {
    store: Arc<dyn Store>,
    clock: Clock,
    committed: mpsc::Sender<Vec<Committed<R>>>,
}

impl<R: Send + 'static> Appender<R> {
    /// Stores a batch and hands on the outcomes; returns the sends whose conversation was held.
    /// A batch that the store refuses as a whole is split until the one that it cannot take is
    /// alone, so that it spoils nobody else's.
    async fn append(&self, batch: Vec<Ticket<R>>, wait: Wait) -> Vec<Ticket<R>> {
        let mut held = Vec::new();
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let messages: Arc<[NewMessage]> = part.iter().map(|t| t.message.clone()).collect();
            let sends = messages.len();
            let started = Instant::now();
            let span = tracing::debug_span!(target: SPANS, "commit", sends);
            let appended = self.store.append_shared(messages, wait, self.clock.now());
            match appended.instrument(span).await {
                Ok(outcomes) => {
                    metrics::commit_seconds().record(started.elapsed());
                    metrics::commit_batch_size().record(sends as f64);
                    held.extend(self.hand_on(part, outcomes).await);
                }
                Err(
                    why @ (StoreError::Unavailable(_)
                    | StoreError::Collided(_)
                    | StoreError::Denied(_)),
                ) => {
                    tracing::warn!(%why, sends = part.len(), "a batch could not be stored");
                    self.fail(part, &CommitError::Unavailable).await;
                }
                Err(error) if part.len() == 1 => {
                    tracing::error!(%error, "a send cannot be stored");
                    self.fail(part, &CommitError::Internal).await;
                }
                Err(error) => {
                    tracing::warn!(%error, sends = part.len(), "splitting a batch");
                    let second = part.split_off(part.len() / 2);
                    parts.push(second);
                    parts.push(part);
                }
            }
        }
        held
    }

    async fn hand_on(&self, batch: Vec<Ticket<R>>, outcomes: Vec<Outcome>) -> Vec<Ticket<R>> {
        let mut held = Vec::new();
        let mut committed = Vec::with_capacity(batch.len());
        for (ticket, outcome) in batch.into_iter().zip(outcomes) {
            let result = match outcome {
                Outcome::Stored(stored) => Ok(stored),
                Outcome::Refused(refusal) => Err(CommitError::Refused(refusal)),
                Outcome::Held => {
                    held.push(ticket);
                    continue;
                }
            };
            committed.push(Committed { ticket, result });
        }
        self.emit(committed).await;
        held
    }

    async fn fail(&self, batch: Vec<Ticket<R>>, error: &CommitError) {
        let failed = |ticket| Committed {
            ticket,
            result: Err(error.clone()),
        };
        self.emit(batch.into_iter().map(failed).collect()).await;
    }

    async fn emit(&self, committed: Vec<Committed<R>>) {
        if !committed.is_empty() {
            // The receiver is gone only when the node is; then nobody waits for an answer.
            self.committed.send(committed).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_batches_are_rested_after() {
        let (quick, slow) = (Duration::from_millis(1), Duration::from_secs(1));
        assert_eq!([0, 1, 4].map(|sends| pause_after(sends, slow)), [None; 3]);
        assert_eq!(pause_after(5, slow), Some(Duration::from_micros(200)));
        assert_eq!(pause_after(30, quick), Some(quick / 2));
        assert_eq!(pause_after(30, quick / 3), None);
        assert_eq!(pause_after(BATCH_MAX, slow), Some(PAUSE_MAX));
    }
}
