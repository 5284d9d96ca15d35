//! Reads from the store what some sockets lack: the missing entries, once for all of them, and what
//! telling of membership changes needs. Step by step: a worker passes one step on before the next
//! is read, so that a long hole costs no more memory than a short one.
//!
//! What waits is read together, many conversations in one step: when the bus was away everybody
//! lacks something of a conversation of their own.

mod read;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use rookery_protocol::conversation::{Conversation, Member};
use rookery_protocol::{ConversationId, Seq, UserId};
use tracing::Instrument;

use super::{Delivery, DeliveryParts, Path, Work};
use crate::metrics;
use crate::store::{LogEntry, Membership, StoreError};
use crate::telemetry::SPANS;

/// Conversations read together: of most the lack is an entry or two, and a page holds a hundred.
const BATCH: usize = 100;
/// Who are read for together; those of a larger conversation are read for alone.
const BATCH_USERS: usize = 1_000;
/// Batches of one node that are read at the same time. When the bus has lost much, thousands of
/// conversations have to be read: sends need the database's connections, too.
const AT_ONCE: usize = 4;
/// How long fills that failed wait before they are tried again: at first, and at the most.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What is to be read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) conversation_id: ConversationId,
    /// Of users with sockets here.
    pub(super) lacks: Vec<Lack>,
    pub(super) target: Seq,
    pub(super) path: Path,
}

/// What the sockets of one user lack of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) user: UserId,
    /// The lowest position among those that know the conversation.
    pub(super) lowest: Option<Seq>,
    /// One of them does not know it yet.
    pub(super) is_new: bool,
}

/// What was read.
pub(super) struct Filled {
    pub(super) conversation_id: ConversationId,
    pub(super) path: Path,
    /// What was asked for.
    pub(super) target: Seq,
    /// Entries after this one were read.
    pub(super) from: Seq,
    /// There is more before the target than one step reads.
    pub(super) more: bool,
    /// Windows of those asked for who are or were members.
    pub(super) memberships: HashMap<UserId, Membership>,
    pub(super) users: Vec<UserId>,
    pub(super) entries: Vec<LogEntry>,
    /// The conversation as each user sees it, where they have to be told.
    pub(super) views: HashMap<UserId, Conversation>,
    /// Members named by the entries' notices.
    pub(super) members: HashMap<UserId, Member>,
}

/// A request that waits for its turn, at most one for each conversation with sockets here.
struct Asked {
    request: Request,
    /// Something in its batch could not be read, for a reason that repeating cannot mend.
    alone: bool,
    /// Before it is tried again, if it fails.
    pause: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Asked>,
    readers: usize,
}

/// Carries out the fills of all workers, a few batches at a time. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Fills {
    queue: Arc<Mutex<Queue>>,
}

impl Fills {
    /// Reads a step of this, again and again until the store answers. What was read goes to the
    /// conversation's worker, or that nobody is left to be told.
    pub(super) fn ask(&self, parts: &DeliveryParts, delivery: &Delivery, request: Request) {
        let asked = Asked {
            request,
            alone: false,
            pause: RETRY_MIN,
        };
        self.wait(parts, delivery, asked);
    }

    fn wait(&self, parts: &DeliveryParts, delivery: &Delivery, asked: Asked) {
        let mut queue = self.lock();
        queue.waiting.push_back(asked);
        if queue.readers == AT_ONCE {
            return;
        }
        queue.readers += 1;
        drop(queue);
        let reader = self.clone().run(parts.clone(), delivery.clone());
        parts.tasks.spawn("fill", reader);
    }

    /// Reads until nothing waits.
    async fn run(self, parts: DeliveryParts, delivery: Delivery) {
        while let Some(batch) = self.next() {
            self.read(&parts, &delivery, batch).await;
        }
    }

    /// The next batch; `None` if nothing waits, which ends the reader.
    fn next(&self) -> Option<Vec<Asked>> {
        let mut queue = self.lock();
        let batch = take(&mut queue.waiting);
        queue.readers -= usize::from(batch.is_empty());
        (!batch.is_empty()).then_some(batch)
    }

    async fn read(&self, parts: &DeliveryParts, delivery: &Delivery, batch: Vec<Asked>) {
        let requests: Vec<&Request> = batch.iter().map(|asked| &asked.request).collect();
        let conversations = requests.len() as u64;
        let began = Instant::now();
        let span = tracing::debug_span!(target: SPANS, "fill", conversations);
        let read = read::read(parts.store.as_ref(), &requests).instrument(span.clone());
        let read = match caught(read).await {
            Ok(read) => read,
            Err(failure) => {
                let later = self.failed(batch, &failure);
                self.retry(parts, delivery, later);
                return;
            }
        };
        let (mut whole, mut partly, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        for (read, asked) in read.into_iter().zip(batch) {
            match read {
                Some((filled, extra)) if extra.is_empty() => whole.push(filled),
                Some((filled, extra)) => partly.push((filled, extra, asked)),
                None => unread.push(asked),
            }
        }
        self.put_back(unread);
        // All at once: a worker whose queue is full keeps none from another worker.
        let whole = whole.into_iter().map(|filled| hand_over(delivery, filled));
        let extras = async {
            self.read_extras(parts, delivery, partly).await;
            metrics::fill_seconds().record(began.elapsed());
        };
        join(join_all(whole), extras.instrument(span)).await;
    }

    /// Reads what some of a batch need beyond entries, one after the other, and hands each over.
    async fn read_extras(&self, parts: &DeliveryParts, delivery: &Delivery, partly: Vec<Partly>) {
        let mut left = partly.into_iter();
        while let Some((mut filled, extra, asked)) = left.next() {
            let read = extra.read(parts.store.as_ref(), &mut filled);
            let Err(failure) = caught(read).await else {
                hand_over(delivery, filled).await;
                continue;
            };
            let mut later = vec![asked];
            if failure.mends() {
                // It would be the same with the others.
                later.extend(left.by_ref().map(|(_, _, asked)| asked));
            }
            failure.tell(later.len());
            self.retry(parts, delivery, later);
        }
    }

    /// Has what could not be read together read one by one, if that can help. Returns what is to be
    /// tried again after a while.
    fn failed(&self, batch: Vec<Asked>, failure: &Failure) -> Vec<Asked> {
        failure.tell(batch.len());
        let apart = !failure.mends();
        let is_one = batch.len() == 1;
        let batch = batch.into_iter().map(|asked| Asked {
            alone: asked.alone || apart,
            ..asked
        });
        let batch = batch.collect();
        if is_one || !apart {
            return batch;
        }
        self.put_back(batch);
        Vec::new()
    }

    /// Puts what was not read in front of what waits.
    fn put_back(&self, unread: Vec<Asked>) {
        let mut queue = self.lock();
        for asked in unread.into_iter().rev() {
            queue.waiting.push_front(asked);
        }
    }

    /// Tries again after a while, for those of whom somebody is left.
    fn retry(&self, parts: &DeliveryParts, delivery: &Delivery, failed: Vec<Asked>) {
        let Some(first) = failed.first() else { return };
        let pause = spread(first.pause, first.request.conversation_id);
        let (fills, own) = (self.clone(), parts.clone());
        let delivery = delivery.clone();
        parts.tasks.spawn("fill-again", async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = own.tasks.stopping().cancelled() => return,
            }
            for asked in failed {
                let id = asked.request.conversation_id;
                let mut lacks = asked.request.lacks.iter();
                if lacks.any(|lack| own.registry.has(lack.user)) {
                    let pause = (asked.pause * 2).min(RETRY_MAX);
                    fills.wait(&own, &delivery, Asked { pause, ..asked });
                } else {
                    delivery
                        .put_patiently(id.as_bytes(), Work::FillOver(id))
                        .await;
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic between two assignments leaves a queue that is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what is read together from the front: at least one, if there is any.
fn take(waiting: &mut VecDeque<Asked>) -> Vec<Asked> {
    let mut batch: Vec<Asked> = Vec::new();
    let mut users = 0;
    while batch.len() < BATCH
        && let Some(next) = waiting.front()
    {
        users += next.request.lacks.len();
        let fits = users <= BATCH_USERS && !next.alone && !batch.iter().any(|asked| asked.alone);
        if !fits && !batch.is_empty() {
            break;
        }
        batch.extend(waiting.pop_front());
    }
    batch
}

/// What was read of a conversation but for what its telling needs beyond entries.
type Partly = (Filled, read::Extra, Asked);

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("reading them panicked")]
    Panicked,
}

impl Failure {
    /// The same may succeed later.
    fn mends(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable(_)))
    }

    fn tell(&self, conversations: usize) {
        metrics::fills_total()
            .failed
            .increment(conversations as u64);
        if self.mends() {
            // Of thousands at once; that the database is away is told by the reconciler.
            tracing::debug!(error = %self, "holes cannot be filled yet");
        } else {
            tracing::error!(error = %self, "holes cannot be filled");
        }
    }
}

/// A panic is a failure like others: it must not end the reader, nor leave the conversations of its
/// batch waiting for ever.
async fn caught<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Failure> {
    match AssertUnwindSafe(read).catch_unwind().await {
        Ok(read) => Ok(read?),
        Err(_) => Err(Failure::Panicked),
    }
}

/// Gives what was read to its conversation's worker.
async fn hand_over(delivery: &Delivery, filled: Filled) {
    metrics::fills_total().filled.increment(1);
    let key = *filled.conversation_id.as_bytes();
    let work = Work::Filled(Box::new(filled));
    delivery.put_patiently(&key, work).await;
}

/// Spreads the attempts of different batches, up to half as long again.
fn spread(pause: Duration, id: ConversationId) -> Duration {
    pause + pause * u32::from(id.as_bytes()[14]) / 512
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn asked(n: u128, users: usize, alone: bool) -> Asked {
        let lack = Lack {
            user: UserId::from_uuid(Uuid::nil()),
            lowest: Some(Seq(1)),
            is_new: false,
        };
        Asked {
            request: Request {
                conversation_id: ConversationId::from_uuid(Uuid::from_u128(n)),
                lacks: vec![lack; users],
                target: Seq(2),
                path: Path::Fill,
            },
            alone,
            pause: RETRY_MIN,
        }
    }

    #[test]
    fn what_waits_is_taken_together_within_bounds_and_what_failed_alone() {
        let mut waiting: VecDeque<Asked> =
            (0..BATCH as u128 + 2).map(|n| asked(n, 1, false)).collect();
        waiting.push_back(asked(1_000, 1, true));
        waiting.push_back(asked(1_001, 1, false));
        waiting.push_back(asked(1_002, BATCH_USERS, false));
        waiting.push_back(asked(1_003, BATCH_USERS + 1, false));
        let sizes: Vec<usize> = std::iter::from_fn(|| {
            let batch = take(&mut waiting).len();
            (batch > 0).then_some(batch)
        })
        .collect();
        assert_eq!(sizes, [BATCH, 2, 1, 1, 1, 1]);
    }

    #[tokio::test]
    async fn what_panics_is_read_one_by_one_and_alone_it_is_tried_again_later() {
        let fills = Fills::default();
        fills.put_back((0..3).map(|n| asked(n, 1, false)).collect());
        let read = async || {
            let row: Result<(), StoreError> = Ok(());
            assert!(row.is_err(), "a row that no code expects");
            row
        };
        let batch = fills.next().unwrap();
        assert_eq!(batch.len(), 3);
        let failure = caught(read()).await.unwrap_err();
        assert!(fills.failed(batch, &failure).is_empty());
        for _ in 0..3 {
            let one = fills.next().unwrap();
            assert_eq!(one.len(), 1);
            let failure = caught(read()).await.unwrap_err();
            assert_eq!(fills.failed(one, &failure).len(), 1);
        }
        assert!(fills.lock().waiting.is_empty());
    }
}
