//! Marks: how far each member of a conversation is, delivered and read. They only grow.
//!
//! ```text
//! mark → known to be within the log? → table, merged by member ─┐
//!                                                               ├ 50 ms ─→ flush → store → tell
//! marks that come meanwhile ────────────────────────────────────┘
//! ```
//!
//! A mark must cost a fraction of a message, since there may be one for each. So what a socket was
//! passed is accepted without a look at the store, marks of one member that wait become one, and
//! many are written at once; the flush tells only of what grew (`tell`). A mark that has no
//! answer may be lost with its node, and is set again by the next one.

mod flush;
mod status;
mod table;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::event::ErrorDetail;
use rookery_protocol::rest::{BulkMark, MessageReceipt};
use rookery_protocol::{ConversationId, Seq, UserId, limits};
use tokio::sync::oneshot;

use self::flush::Flusher;
pub use self::status::set_statuses;
use self::table::{Put, Table};
use super::fanout::Fanout;
use crate::clock::Clock;
use crate::error::AppError;
use crate::lifecycle::Tasks;
use crate::metrics;
use crate::store::{MarkKind, Membership, Store};

/// How long a mark waits for room before its sender hears that the store does not keep up.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// Who sets a mark.
#[derive(Clone, Copy, Debug)]
pub struct Marker {
    pub user_id: UserId,
    /// The socket (of this node) that need not be told of its own mark.
    pub socket: Option<u64>,
}

/// A mark as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub conversation_id: ConversationId,
    pub kind: MarkKind,
    pub seq: Seq,
}

/// See the module.
pub struct Receipts {
    store: Arc<dyn Store>,
    table: Arc<Table>,
}

impl Receipts {
    /// Starts the task that writes marks. In groups of more than `fanout_max` members, receipts go
    /// to authors and watchers only.
    #[must_use]
    pub fn start(
        store: Arc<dyn Store>,
        fanout: Arc<Fanout>,
        clock: Clock,
        fanout_max: i64,
        tasks: &Tasks,
    ) -> Self {
        let table = Arc::new(Table::default());
        let flusher = Flusher {
            store: Arc::clone(&store),
            fanout,
            clock,
            fanout_max,
            table: Arc::clone(&table),
        };
        tasks.spawn_vital("receipts", flusher.run(tasks.stopping().clone()));
        Self { store, table }
    }

    /// Takes a mark from a socket; it is stored soon. `known` is how far the socket was passed the
    /// conversation's log: up to there nothing has to be looked up. Backwards is ignored.
    ///
    /// # Errors
    /// `NOT_FOUND` for who is not (and never was) a member, `INVALID` beyond the log's or the
    /// membership's end, `UNAVAILABLE` while the store does not keep up.
    pub async fn mark(
        &self,
        marker: Marker,
        mark: Mark,
        known: Option<Seq>,
    ) -> Result<(), AppError> {
        let within = known.is_some_and(|known| mark.seq >= Seq::ZERO && mark.seq <= known);
        if !within {
            let id = mark.conversation_id;
            let membership = self.store.membership(marker.user_id, id).await?;
            check(membership.as_ref(), mark.seq, "seq")?;
        }
        self.put(marker, &[mark], None).await
    }

    /// Sets marks and waits until they are stored: all of them, or none if one is refused.
    ///
    /// # Errors
    /// As [`Self::mark`], with `marks.<n>.seq` for the mark that is beyond the end.
    pub async fn mark_all(
        &self,
        user_id: UserId,
        kind: MarkKind,
        marks: &[BulkMark],
    ) -> Result<(), AppError> {
        if marks.len() > limits::MARKS_PER_CALL {
            let detail = ErrorDetail::new("marks", "is too long", "at most 1,000 marks a call");
            return Err(detail.into());
        }
        let ids: Vec<ConversationId> = marks.iter().map(|mark| mark.conversation_id).collect();
        let memberships = self.store.memberships_among(user_id, &ids).await?;
        let of = |mark: &BulkMark| {
            let id = mark.conversation_id;
            memberships.iter().find(|m| m.conversation_id == id)
        };
        for (place, mark) in marks.iter().enumerate() {
            check(of(mark), mark.seq, &format!("marks.{place}.seq"))?;
        }
        let wanted = |mark: &BulkMark| Mark {
            conversation_id: mark.conversation_id,
            kind,
            seq: mark.seq,
        };
        let wanted: Vec<Mark> = marks.iter().map(wanted).collect();
        self.put_and_wait(user_id, &wanted).await
    }

    /// Sets one mark and waits until it is stored.
    ///
    /// # Errors
    /// As [`Self::mark`].
    pub async fn mark_one(&self, user_id: UserId, mark: Mark) -> Result<(), AppError> {
        let membership = self.store.membership(user_id, mark.conversation_id).await?;
        check(membership.as_ref(), mark.seq, "seq")?;
        self.put_and_wait(user_id, &[mark]).await
    }

    /// How far the members who can see it are with a message, by user id, after `after`; its sender
    /// is left out.
    ///
    /// # Errors
    /// `NOT_FOUND` unless one is a member who sees such a message.
    pub async fn of_message(
        &self,
        viewer: UserId,
        (id, seq): (ConversationId, Seq),
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<MessageReceipt>, AppError> {
        let membership = self.store.membership(viewer, id).await?;
        let sees = |m: &Membership| m.is_present() && seq > m.visible_from && seq <= m.last_seq;
        membership.filter(sees).ok_or_else(AppError::not_found)?;
        let sender = self.store.sender_of(id, seq).await?;
        let sender = sender.ok_or_else(AppError::not_found)?;
        let of = (seq, sender);
        Ok(self.store.message_receipts(id, of, after, limit).await?)
    }

    async fn put_and_wait(&self, user_id: UserId, marks: &[Mark]) -> Result<(), AppError> {
        if marks.is_empty() {
            return Ok(());
        }
        let marker = Marker {
            user_id,
            socket: None,
        };
        let (tell, stored) = oneshot::channel();
        self.put(marker, marks, Some(tell)).await?;
        match stored.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(AppError::unavailable()),
        }
    }

    async fn put(
        &self,
        marker: Marker,
        marks: &[Mark],
        stored: Option<oneshot::Sender<bool>>,
    ) -> Result<(), AppError> {
        let put = self.table.put(marker, marks, stored);
        let put = match tokio::time::timeout(ROOM_WITHIN, put).await {
            Ok(put) => put,
            Err(_) => return Err(AppError::unavailable()),
        };
        match put {
            Put::Taken { merged } => {
                let counted = metrics::marks_total();
                counted.taken.increment(marks.len() as u64);
                counted.merged.increment(merged);
                Ok(())
            }
            Put::Closed => Err(AppError::unavailable()),
        }
    }
}

/// Whether a mark is within what its member may see; `field` is its name in an error.
fn check(membership: Option<&Membership>, seq: Seq, field: &str) -> Result<(), AppError> {
    let membership = membership.ok_or_else(AppError::not_found)?;
    let end = membership.visible_to();
    if seq >= Seq::ZERO && seq <= end {
        return Ok(());
    }
    let reason = if seq < Seq::ZERO {
        "is negative"
    } else {
        "is beyond the end"
    };
    Err(ErrorDetail::new(field, reason, &format!("0 to {end}")).into())
}
