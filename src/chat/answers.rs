//! Answers committed sends, then has their members told. Answering waits for nothing: neither for
//! the bus nor for what telling has to read first.
//!
//! ```text
//! committed ─┬→ acks ─┬─ members known, none wait there ───→ bus
//!            │        └─ else ─→ late: reads the lists ───────→ bus
//!            └→ repeats ─→ how far did they get? ────────────→ acks
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use rookery_protocol::message::{Message, MessageKind, MessageStatus};
use rookery_protocol::{ConversationId, Seq};
use tokio::sync::mpsc;

use super::fanout::{Fanout, Outgoing};
use super::messages::{Reply, Sent};
use crate::error::AppError;
use crate::failpoint::{self, Failpoint};
use crate::lifecycle::Tasks;
use crate::metrics;
use crate::store::{CommitError, Committed, NewMessage, Store, Stored, Ticket};
use crate::telemetry::MESSAGE;

/// Batches whose lists may wait to be read, as many as may wait to be answered; what is beyond is
/// left to reconciliation.
const LATE_QUEUE: usize = 64;
/// Batches of repeats that may wait to be looked up.
const REPEATS_QUEUE: usize = 64;
/// Repeats looked up at once: they come in swarms, and others need the database, too.
const LOOKS_AT_ONCE: usize = 8;

/// Messages that wait until their members are read, batch by batch.
pub(super) type LateQueue = mpsc::WeakSender<Vec<Outgoing>>;

/// Starts the tasks; they end when the group commit does.
pub(super) fn start(
    outcomes: mpsc::Receiver<Vec<Committed<Reply>>>,
    store: &Arc<dyn Store>,
    fanout: &Arc<Fanout>,
    tasks: &Tasks,
) -> LateQueue {
    let (queue, waiting) = mpsc::channel(LATE_QUEUE);
    let late_queue = queue.downgrade();
    let (repeats, repeated) = mpsc::channel(REPEATS_QUEUE);
    let late = Late {
        fanout: Arc::clone(fanout),
        queue,
        pending: Pending::default(),
    };
    let telling = tell_late(waiting, Arc::clone(fanout), late.pending.clone());
    tasks.spawn("answers", answers(outcomes, late, repeats));
    tasks.spawn("late-fanout", telling);
    tasks.spawn("repeats", answer_repeats(repeated, Arc::clone(store)));
    late_queue
}

async fn answers(
    mut outcomes: mpsc::Receiver<Vec<Committed<Reply>>>,
    late: Late,
    repeats: mpsc::Sender<Vec<Committed<Reply>>>,
) {
    let is_repeat = |one: &Committed<Reply>| one.result.as_ref().is_ok_and(|r| r.duplicate);
    while let Some(batch) = outcomes.recv().await {
        let mut outgoing = Vec::with_capacity(batch.len());
        let mut repeated = Vec::new();
        for one in batch {
            if is_repeat(&one) {
                repeated.push(one);
            } else {
                outgoing.extend(answer(one, MessageStatus::Sent));
            }
        }
        if !outgoing.is_empty() {
            failpoint::pass(Failpoint::BeforePublish).await;
            late.tell(outgoing);
        }
        if !repeated.is_empty()
            && let Err(refused) = repeats.try_send(repeated)
        {
            // They are stored, which is what their senders wait to hear.
            for repeat in refused.into_inner() {
                answer(repeat, MessageStatus::Sent);
            }
        }
    }
}

/// Conversations with messages that wait for a list, and how many.
#[derive(Clone, Default)]
struct Pending(Arc<Mutex<HashMap<ConversationId, usize>>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, ids: impl Iterator<Item = ConversationId>) {
        let mut pending = self.lock();
        for id in ids {
            if let Entry::Occupied(mut count) = pending.entry(id) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

/// Tells at once what can be told at once, and has the rest told once its lists are read.
struct Late {
    fanout: Arc<Fanout>,
    queue: mpsc::Sender<Vec<Outgoing>>,
    pending: Pending,
}

impl Late {
    fn tell(&self, outgoing: Vec<Outgoing>) {
        let (now, later) = self.split(outgoing);
        self.fanout.messages(now);
        if later.is_empty() {
            return;
        }
        if let Err(refused) = self.queue.try_send(later) {
            let refused = refused.into_inner();
            self.pending.told(refused.iter().map(conversation));
            let messages = refused.len();
            self.fanout.leave_to_reconciliation(messages);
            tracing::warn!(
                messages,
                "left to reconciliation: too many members wait to be read"
            );
        }
    }

    /// What can be told now, and what has to wait: for its list, or behind others of its
    /// conversation.
    fn split(&self, outgoing: Vec<Outgoing>) -> (Vec<Outgoing>, Vec<Outgoing>) {
        let mut pending = self.pending.lock();
        let known = |o: &Outgoing| self.fanout.knows_list(o);
        if pending.is_empty() && outgoing.iter().all(known) {
            return (outgoing, Vec::new());
        }
        outgoing.into_iter().partition(|one| {
            let is_free = !pending.contains_key(&conversation(one)) && known(one);
            if !is_free {
                *pending.entry(conversation(one)).or_default() += 1;
            }
            is_free
        })
    }
}

fn conversation(outgoing: &Outgoing) -> ConversationId {
    outgoing.message.conversation_id
}

async fn tell_late(
    mut waiting: mpsc::Receiver<Vec<Outgoing>>,
    fanout: Arc<Fanout>,
    pending: Pending,
) {
    // Batch by batch: the lists of many large groups at once would take more than a statement may.
    while let Some(outgoing) = waiting.recv().await {
        failpoint::pass(Failpoint::BeforeLists).await;
        fanout.load_lists(&outgoing).await;
        let told: Vec<ConversationId> = outgoing.iter().map(conversation).collect();
        fanout.messages(outgoing);
        pending.told(told.into_iter());
    }
}

/// Answers repeats with how far their messages got by now.
async fn answer_repeats(
    mut repeated: mpsc::Receiver<Vec<Committed<Reply>>>,
    store: Arc<dyn Store>,
) {
    while let Some(repeats) = repeated.recv().await {
        let looks: Vec<_> = repeats
            .iter()
            .map(|repeat| status_of(store.as_ref(), repeat))
            .collect();
        let looks = futures_util::stream::iter(looks).buffered(LOOKS_AT_ONCE);
        let statuses: Vec<MessageStatus> = looks.collect().await;
        for (repeat, status) in repeats.into_iter().zip(statuses) {
            answer(repeat, status);
        }
    }
}

/// Looks up how far a message that had been stored before got by now.
fn status_of<'a>(
    store: &'a dyn Store,
    repeat: &Committed<Reply>,
) -> impl Future<Output = MessageStatus> + Send + use<'a> {
    let message = &repeat.ticket.message;
    let (id, sender) = (message.conversation_id, message.sender_id);
    let seq = repeat
        .result
        .as_ref()
        .map_or(Seq::ZERO, |stored| stored.seq);
    async move {
        match store.furthest_marks(id, sender, seq).await {
            Ok(furthest) => furthest.status(seq),
            // It is stored, which is what its sender waits to hear.
            Err(_) => MessageStatus::Sent,
        }
    }
}

fn answer(committed: Committed<Reply>, status: MessageStatus) -> Option<Outgoing> {
    let Committed {
        ticket: Ticket { message, reply },
        result,
    } = committed;
    let Reply { answer, skip, span } = reply;
    match result {
        Ok(stored) => {
            let results = metrics::messages_total();
            if stored.duplicate {
                &results.duplicate
            } else {
                &results.stored
            }
            .increment(1);
            let sent = Sent {
                message: stored_message(message, &stored, status),
                duplicate: stored.duplicate,
            };
            tracing::debug!(
                target: MESSAGE,
                message_id = %sent.message.message_id,
                conversation_id = %sent.message.conversation_id,
                seq = %sent.message.seq,
                duplicate = sent.duplicate,
                connection = skip,
                "stored and acknowledged"
            );
            span.in_scope(|| answer(Ok(&sent)));
            let mut message = sent.message;
            message.status = None;
            let member_version = stored.member_version;
            (!stored.duplicate).then_some(Outgoing {
                message,
                member_version,
                skip,
            })
        }
        Err(error) => {
            let results = metrics::messages_total();
            let (result, error) = match error {
                CommitError::Refused(refusal) => (&results.refused, refusal.into()),
                CommitError::Unavailable => (&results.unavailable, AppError::unavailable()),
                CommitError::Internal => (&results.refused, AppError::internal()),
            };
            result.increment(1);
            tracing::debug!(
                target: MESSAGE,
                message_id = %message.message_id,
                conversation_id = %message.conversation_id,
                code = error.code.as_str(),
                connection = skip,
                "not stored"
            );
            span.in_scope(|| answer(Err(error)));
            None
        }
    }
}

/// The message as its sender sees it.
fn stored_message(message: NewMessage, stored: &Stored, status: MessageStatus) -> Message {
    Message {
        message_id: message.message_id,
        conversation_id: message.conversation_id,
        seq: stored.seq,
        sender_id: message.sender_id,
        kind: MessageKind::Text,
        content: message.content,
        metadata: message.metadata,
        created_at: stored.created_at,
        edited_at: None,
        deleted_at: None,
        reply_to: message.reply_to,
        mentions: message.mentions,
        reactions: Vec::new(),
        status: Some(status),
    }
}
