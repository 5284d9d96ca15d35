//! Who is on a socket, and what the rest of the node may do to it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rookery_protocol::event::ServerEvent;
use rookery_protocol::{CloseCode, ConversationId, Format, SessionId, Timestamp, UserId, limits};
use tokio::sync::Notify;

use super::backlog::Backlog;
use super::frame::Frame;
use super::outbox::{Outbox, Push};
use super::positions::Positions;
use crate::auth::Access;

/// One authenticated socket. Shared between its task, delivery, and answers that arrive later.
#[derive(Debug)]
pub struct Session {
    /// Names the socket on this node.
    pub id: u64,
    pub user_id: UserId,
    pub session_id: SessionId,
    pub format: Format,
    pub outbox: Outbox,
    /// When it was opened, in seconds of the node's life.
    pub opened_at: u32,
    positions: Mutex<Positions>,
    /// End of the access token, in milliseconds.
    expires_at: AtomicI64,
    /// When the client was last heard, in seconds of the node's life.
    heard_at: AtomicU32,
    /// When the heartbeat looks next, in seconds of the node's life.
    next_look: AtomicU32,
    /// The heartbeat will look within a second.
    announced: AtomicBool,
    /// Sends that are not answered, and the command that is being carried out.
    in_flight: AtomicUsize,
    /// Woken when a send was answered.
    answered: Notify,
    /// Sent away by a node that drains: nothing more is read, and what is in flight is answered.
    retiring: AtomicBool,
    syncing: AtomicBool,
    seats: Mutex<Seats>,
    /// Made by the first `presence.subscribe`: most of a node's sockets are idle.
    watching: OnceLock<Box<Watching>>,
}

/// The users whose presence a socket watches.
#[derive(Debug, Default)]
pub struct Watching {
    /// Held while a subscription is changed, so that changes happen one after the other.
    pub held: tokio::sync::Mutex<Held>,
    /// Changes that wait or are under way.
    pub changes: AtomicUsize,
}

#[derive(Debug, Default)]
pub struct Held {
    pub users: HashSet<UserId>,
    /// The socket is gone: nothing is to be held for it.
    pub is_closed: bool,
}

/// The large conversations that a socket is offered the entries of, and those it watches.
#[derive(Debug, Default)]
struct Seats {
    taken: Vec<ConversationId>,
    watched: Vec<ConversationId>,
    /// The socket is closed: it takes no seat any more.
    over: bool,
}

impl Session {
    /// A socket of a node whose outboxes share this backlog.
    #[must_use]
    pub fn new(
        id: u64,
        access: &Access,
        format: Format,
        now_seconds: u32,
        backlog: Arc<Backlog>,
    ) -> Self {
        Self {
            id,
            user_id: access.user_id,
            session_id: access.session_id,
            format,
            outbox: Outbox::new(backlog),
            opened_at: now_seconds,
            positions: Mutex::new(Positions::pending()),
            expires_at: AtomicI64::new(access.expires_at.as_millis()),
            heard_at: AtomicU32::new(now_seconds),
            next_look: AtomicU32::new(u32::MAX),
            announced: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            answered: Notify::new(),
            retiring: AtomicBool::new(false),
            syncing: AtomicBool::new(false),
            seats: Mutex::default(),
            watching: OnceLock::new(),
        }
    }

    /// Encodes and queues an event. A socket that has no room for it is closed.
    pub fn send(&self, event: &ServerEvent) -> Push {
        match Frame::encode(self.format, event) {
            Some(frame) => self.outbox.push(frame),
            None => Push::Queued,
        }
    }

    pub fn close(&self, code: CloseCode) {
        self.outbox.close(code);
    }

    /// The socket's positions. Held for moments only, never across an await.
    pub fn positions(&self) -> MutexGuard<'_, Positions> {
        // A panic while it was held leaves positions that are still positions.
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        Timestamp::from_millis(self.expires_at.load(Ordering::Relaxed))
    }

    /// Its token ends then instead. True if that is earlier than before: then [`Registry::announce`] has a look
    /// taken in time.
    ///
    /// [`Registry::announce`]: super::Registry::announce
    #[must_use]
    pub fn renew(&self, expires_at: Timestamp) -> bool {
        let end = expires_at.as_millis();
        self.expires_at.swap(end, Ordering::Relaxed) > end
    }

    /// True for the first who announces it since the heartbeat asked.
    pub(super) fn announce(&self) -> bool {
        !self.announced.swap(true, Ordering::AcqRel)
    }

    /// What is announced from here on is for another look.
    pub(super) fn looked(&self) {
        self.announced.store(false, Ordering::Release);
    }

    /// Whether the heartbeat has looked at it before.
    pub(super) fn is_on_wheel(&self) -> bool {
        self.next_look() < u32::MAX
    }

    pub(super) fn next_look(&self) -> u32 {
        self.next_look.load(Ordering::Relaxed)
    }

    pub(super) fn look_at(&self, second: u32) {
        self.next_look.store(second, Ordering::Relaxed);
    }

    pub fn heard(&self, now_seconds: u32) {
        self.heard_at.store(now_seconds, Ordering::Relaxed);
    }

    #[must_use]
    pub fn heard_at(&self) -> u32 {
        self.heard_at.load(Ordering::Relaxed)
    }

    /// Counts a command that is being carried out, or a send that is not answered yet.
    pub fn began(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    /// The answer, if there is one, is queued.
    pub fn done(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == limits::SENDS_IN_FLIGHT {
            self.answered.notify_one();
        }
        if before == 1 && self.retiring.load(Ordering::SeqCst) {
            self.close(CloseCode::ServiceRestart);
        }
    }

    /// Sends the client to another node: reads nothing more from it, answers what is in flight, then
    /// closes. Whatever it sends behind that is not answered, and so repeated elsewhere.
    pub fn retire(&self) {
        self.retiring.store(true, Ordering::SeqCst);
        if self.in_flight.load(Ordering::SeqCst) == 0 {
            self.close(CloseCode::ServiceRestart);
        }
    }

    /// Whether the socket may be read: beyond its sends in flight it has to wait for answers.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) < limits::SENDS_IN_FLIGHT
            && !self.retiring.load(Ordering::Relaxed)
    }

    /// Resolves when a send was answered while the socket could not be read.
    pub async fn answered(&self) {
        self.answered.notified().await;
    }

    /// Whose presence the socket watches.
    pub fn watching(&self) -> &Watching {
        self.watching.get_or_init(Box::default)
    }

    /// As [`Self::watching`]; `None` if it never watched anybody.
    #[must_use]
    pub fn ever_watching(&self) -> Option<&Watching> {
        self.watching.get().map(Box::as_ref)
    }

    /// Passes nothing of any conversation on any more and begins no sync: what the socket was told
    /// so far is void. False if a sync was under way, or has yet to be asked for: such a socket is
    /// in the middle of being told, and is closed at once.
    pub(super) fn suspend(&self) -> bool {
        let mut positions = self.positions();
        positions.end();
        let is_idle = self.begin_sync() && positions.is_based();
        drop(positions);
        if !is_idle {
            self.close(CloseCode::Resynchronise);
        }
        is_idle
    }

    /// Claims the socket's one sync; false if one is under way.
    pub fn begin_sync(&self) -> bool {
        !self.syncing.swap(true, Ordering::AcqRel)
    }

    pub fn end_sync(&self) {
        self.syncing.store(false, Ordering::Release);
    }

    /// Notes a seat in a large conversation; false if it is noted already, or the socket is closed.
    pub(super) fn take_seat(&self, id: ConversationId) -> bool {
        let mut seats = self.seats();
        let is_new = !seats.over && !seats.taken.contains(&id);
        if is_new {
            seats.taken.push(id);
        }
        is_new
    }

    /// Forgets a seat; false if there was none.
    pub(super) fn give_up_seat(&self, id: ConversationId) -> bool {
        let mut seats = self.seats();
        seats.watched.retain(|other| *other != id);
        let before = seats.taken.len();
        seats.taken.retain(|other| *other != id);
        seats.taken.len() < before
    }

    /// Takes no seat any more; returns those that it has.
    #[must_use]
    pub(super) fn end_seats(&self) -> Vec<ConversationId> {
        let mut seats = self.seats();
        seats.over = true;
        seats.taken.clone()
    }

    /// Whether this socket watches the conversation.
    #[must_use]
    pub fn watches(&self, id: ConversationId) -> bool {
        self.seats().watched.contains(&id)
    }

    /// Notes a watch; false if there are as many as one socket may have.
    pub fn begin_watch(&self, id: ConversationId) -> bool {
        let watched = &mut self.seats().watched;
        if watched.contains(&id) {
            return true;
        }
        let fits = watched.len() < limits::CONVERSATION_WATCH;
        if fits {
            watched.push(id);
        }
        fits
    }

    pub fn end_watch(&self, id: ConversationId) {
        self.seats().watched.retain(|other| *other != id);
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
