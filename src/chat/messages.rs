//! Sending and reading messages: the rules of the message path. What changes a message later is in
//! `changes.rs`.

use std::sync::Arc;

use quick_cache::sync::Cache;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::message::Message;
use rookery_protocol::rest::History;
use rookery_protocol::{ConversationId, MessageId, Seq, UserId, limits, validate};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tracing::Span;

use super::answers::{self, LateQueue};
use super::fanout::Fanout;
use super::mentions;
use super::receipts::set_statuses;
use crate::clock::Clock;
use crate::error::AppError;
use crate::lifecycle::Tasks;
use crate::metrics::Level;
use crate::store::{Direction, GroupCommit, HistoryPage, NewMessage, Store, Ticket};
use crate::telemetry::{MESSAGE, SPANS, of_message};

/// Direct conversations known to exist, so that only the first message to somebody looks.
const DIRECTS_MAX: usize = 200_000;

/// A wish to send, from a socket or over REST.
#[derive(Clone, Debug)]
pub struct SendRequest {
    pub message_id: MessageId,
    pub conversation_id: Option<ConversationId>,
    pub recipient_id: Option<UserId>,
    pub content: String,
    pub reply_to: Option<Seq>,
    pub metadata: Option<Map<String, Value>>,
}

/// A message that is stored for good.
#[derive(Clone, Debug)]
pub struct Sent {
    pub message: Message,
    /// An earlier attempt had stored it.
    pub duplicate: bool,
}

/// Takes the outcome of a send. Runs in the answering task, so it must be short and not block.
pub type Answer = Box<dyn FnOnce(Result<&Sent, AppError>) + Send>;

/// What travels with a send through the group commit.
pub struct Reply {
    pub(super) answer: Answer,
    /// The socket that gets its ack and need not be told again.
    pub(super) skip: Option<u64>,
    /// Ends when the send is answered.
    pub(super) span: Span,
}

#[derive(Clone, Copy, Debug)]
pub struct HistoryRange {
    pub before: Option<Seq>,
    pub after: Option<Seq>,
    pub limit: usize,
}

/// See the module.
pub struct Messages {
    pub(super) store: Arc<dyn Store>,
    pub(super) fanout: Arc<Fanout>,
    commits: GroupCommit<Reply>,
    late: LateQueue,
    pub(super) clock: Clock,
    directs: Cache<ConversationId, ()>,
}

impl Messages {
    /// Starts the group commit and the task that answers and publishes.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, fanout: Arc<Fanout>, clock: Clock, tasks: &Tasks) -> Self {
        let (commits, outcomes) = GroupCommit::start(Arc::clone(&store), clock.clone(), tasks);
        let late = answers::start(outcomes, &store, &fanout, tasks);
        Self {
            store,
            fanout,
            commits,
            late,
            clock,
            directs: Cache::new(DIRECTS_MAX),
        }
    }

    /// How many sends wait to be stored.
    #[must_use]
    pub fn level(&self) -> Level {
        self.commits.level()
    }

    /// How many batches wait until their members are read.
    #[must_use]
    pub fn late_level(&self) -> Level {
        let queue = self.late.upgrade();
        queue.as_ref().map(Level::of_queue).unwrap_or_default()
    }

    /// Checks a send and queues it; `answer` is called once it is stored or refused, after an
    /// `Ok` from here. Sends of one caller are stored in the order of the calls.
    ///
    /// # Errors
    /// The request is refused for its shape, or its recipient does not exist.
    pub async fn submit(
        &self,
        sender: UserId,
        request: SendRequest,
        skip: Option<u64>,
        answer: Answer,
    ) -> Result<(), AppError> {
        check(&request)?;
        let conversation_id = match (request.conversation_id, request.recipient_id) {
            (Some(id), None) => id,
            (None, Some(recipient)) => self.direct_with(sender, recipient).await?,
            _ => {
                let allowed = "exactly one of conversation_id and recipient_id";
                let detail = ErrorDetail::new("conversation_id", "is not clear", allowed);
                return Err(AppError::invalid(detail));
            }
        };
        let mentions =
            mentions::resolve(self.store.as_ref(), conversation_id, &request.content).await?;
        let message = NewMessage {
            conversation_id,
            message_id: request.message_id,
            sender_id: sender,
            request_hash: request_hash(conversation_id, &request),
            content: request.content,
            metadata: request.metadata,
            reply_to: request.reply_to,
            mentions,
        };
        tracing::debug!(
            target: MESSAGE,
            message_id = %message.message_id,
            conversation_id = %conversation_id,
            sender_id = %sender,
            connection = skip,
            "accepted"
        );
        let span = tracing::debug_span!(
            target: SPANS,
            "message.send",
            message_id = %message.message_id,
            connection = skip
        );
        let span = of_message(span, message.message_id);
        let ticket = Ticket {
            message,
            reply: Reply { answer, skip, span },
        };
        self.commits
            .submit(ticket)
            .await
            .map_err(|_| AppError::unavailable())
    }

    /// Sends and waits until the message is stored.
    ///
    /// # Errors
    /// As [`Self::submit`], and everything the store refuses.
    pub async fn send(&self, sender: UserId, request: SendRequest) -> Result<Sent, AppError> {
        let (give, answered) = oneshot::channel();
        let answer: Answer = Box::new(move |outcome| {
            // The request may be gone by now; its message is stored all the same.
            give.send(outcome.cloned()).ok();
        });
        self.submit(sender, request, None, answer).await?;
        answered.await.map_err(|_| AppError::unavailable())?
    }

    /// A page of a conversation's messages.
    ///
    /// # Errors
    /// Not a member, or the range is contradictory.
    pub async fn history(
        &self,
        user: UserId,
        id: ConversationId,
        range: HistoryRange,
    ) -> Result<History, AppError> {
        if range.before.is_some() && range.after.is_some() {
            let allowed = "before_seq or after_seq, not both";
            return Err(AppError::invalid(ErrorDetail::new(
                "after_seq",
                "is one too many",
                allowed,
            )));
        }
        let membership = self.store.membership(user, id).await?;
        let membership = membership
            .filter(crate::store::Membership::is_present)
            .ok_or_else(AppError::not_found)?;
        let limit = range.limit.clamp(1, limits::PAGE_MAX);
        let page = HistoryPage {
            conversation_id: id,
            after: range.after.unwrap_or_default().max(membership.visible_from),
            before: range
                .before
                .unwrap_or(Seq(i64::MAX))
                .min(membership.last_seq.next()),
            direction: if range.after.is_some() {
                Direction::Forward
            } else {
                Direction::Backward
            },
            // One more tells whether there is more.
            limit: limit as i64 + 1,
            known_head: membership.last_seq,
        };
        let mut items = self.store.history(&page).await?;
        let has_more = items.len() > limit;
        match page.direction {
            Direction::Forward => items.truncate(limit),
            Direction::Backward if has_more => {
                items.remove(0);
            }
            Direction::Backward => {}
        }
        set_statuses(self.store.as_ref(), user, id, items.iter_mut()).await?;
        let mut senders: Vec<UserId> = items.iter().map(|message| message.sender_id).collect();
        senders.sort_unstable();
        senders.dedup();
        let users = self.store.users(&senders).await?;
        let users = users
            .into_iter()
            .map(super::accounts::public_view)
            .collect();
        Ok(History {
            items,
            has_more,
            users,
        })
    }

    /// Drops what is remembered of the database: it is another one now.
    pub fn forget(&self) {
        self.directs.clear();
        self.fanout.forget();
    }

    /// The direct conversation with somebody, made if it is new.
    ///
    /// # Errors
    /// There is no such user, or it is the caller.
    pub async fn direct_with(
        &self,
        user: UserId,
        other: UserId,
    ) -> Result<ConversationId, AppError> {
        if user == other {
            let allowed = "another user's id";
            let detail = ErrorDetail::new("recipient_id", "is your own", allowed);
            return Err(AppError::invalid(detail));
        }
        let id = ConversationId::direct(user, other);
        // Also for somebody who is blocked since: the send is refused by the mark on the membership.
        if self.directs.get(&id).is_some() {
            return Ok(id);
        }
        let direct = self
            .store
            .ensure_direct(user, other, self.clock.now())
            .await?;
        let direct = direct.ok_or_else(AppError::not_found)?;
        self.directs.insert(id, ());
        if direct.created {
            self.fanout.direct_created(id, [user, other]);
        }
        Ok(id)
    }
}

/// Shape only; permission is checked behind the lock.
fn check(request: &SendRequest) -> Result<(), AppError> {
    validate::content(&request.content)?;
    if let Some(metadata) = &request.metadata {
        let size = serde_json::to_vec(metadata).map_or(usize::MAX, |bytes| bytes.len());
        if size > limits::METADATA_BYTES {
            let detail = ErrorDetail::new("metadata", "is too large", "an object of up to 4 KiB");
            return Err(AppError::invalid(detail));
        }
        if contains_nul(metadata) {
            let detail = ErrorDetail::new("metadata", "contains U+0000", "text without U+0000");
            return Err(AppError::invalid(detail));
        }
    }
    Ok(())
}

fn contains_nul(metadata: &Map<String, Value>) -> bool {
    fn in_value(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(in_value),
            Value::Object(map) => contains_nul(map),
            _ => false,
        }
    }
    metadata
        .iter()
        .any(|(key, value)| key.contains('\0') || in_value(value))
}

/// Tells a repeat from another request with the same `message_id`. Of what was asked for only: whom
/// a name mentions may be another one by the time of the repeat.
fn request_hash(id: ConversationId, request: &SendRequest) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(id.as_bytes());
    hasher.update((request.content.len() as u64).to_be_bytes());
    hasher.update(request.content.as_bytes());
    hasher.update(request.reply_to.unwrap_or_default().0.to_be_bytes());
    if let Some(metadata) = &request.metadata
        && let Ok(bytes) = serde_json::to_vec(metadata)
    {
        hasher.update(bytes);
    }
    let digest = hasher.finalize();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    hash
}
