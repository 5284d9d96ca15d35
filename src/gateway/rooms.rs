//! The sockets of this node by large conversation: who hears what is published once for all
//! members, and who of them watches.
//!
//! A socket has a seat in each conversation whose members are told on the conversation's channel,
//! and in those that it watches. Having a seat only means that the entry is offered: whether it is
//! passed on is for the socket's position to say, and one who was removed has none any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use rookery_protocol::{ConversationId, Seq};

use super::session::Session;

/// See the module. Sharded by conversation.
#[derive(Debug, Default)]
pub struct Rooms {
    rooms: DashMap<ConversationId, Room>,
}

#[derive(Debug, Default)]
struct Room {
    seats: Vec<Arc<Session>>,
    watchers: Vec<Arc<Session>>,
    /// Since when this node is known to hear the conversation's channel.
    heard_since: Option<Instant>,
    /// The newest entry that arrived on it.
    newest: AtomicI64,
}

impl Rooms {
    /// Gives a socket its seat; false if it has it already.
    pub fn join(&self, id: ConversationId, session: &Arc<Session>) -> bool {
        // Only a session's own opening and the worker of the conversation ask, each once.
        if !session.take_seat(id) {
            return false;
        }
        let mut room = self.rooms.entry(id).or_default();
        room.seats.push(Arc::clone(session));
        true
    }

    /// Takes a socket's seat, and its watch; false if it has none.
    pub fn leave(&self, id: ConversationId, session: &Session) -> bool {
        if !session.give_up_seat(id) {
            return false;
        }
        self.rooms.remove_if_mut(&id, |_, room| {
            remove(&mut room.seats, session);
            remove(&mut room.watchers, session);
            room.seats.is_empty()
        });
        true
    }

    /// Begins or ends a seated socket's watch.
    pub fn watch(&self, id: ConversationId, session: &Arc<Session>, on: bool) {
        if let Some(mut room) = self.rooms.get_mut(&id) {
            remove(&mut room.watchers, session);
            if on {
                room.watchers.push(Arc::clone(session));
            }
        }
    }

    /// Offers the entry `newest` to every seat. No seat is taken meanwhile: a socket that joins is
    /// either among those offered to, or finds the entry by [`Self::newest`].
    pub fn offer(&self, id: ConversationId, newest: Seq, offer: impl FnOnce(&[Arc<Session>])) {
        if let Some(room) = self.rooms.get(&id) {
            room.newest.fetch_max(newest.0, Ordering::AcqRel);
            offer(&room.seats);
        }
    }

    /// Shows all seats.
    pub fn seats<T>(
        &self,
        id: ConversationId,
        look: impl FnOnce(&[Arc<Session>]) -> T,
    ) -> Option<T> {
        self.rooms.get(&id).map(|room| look(&room.seats))
    }

    /// Shows those who watch.
    pub fn watchers(&self, id: ConversationId, look: impl FnOnce(&[Arc<Session>])) {
        if let Some(room) = self.rooms.get(&id) {
            look(&room.watchers);
        }
    }

    /// The conversations that somebody here watches.
    #[must_use]
    pub fn watched(&self) -> Vec<ConversationId> {
        let watched = self.rooms.iter().filter(|room| !room.watchers.is_empty());
        watched.map(|room| *room.key()).collect()
    }

    /// Notes that the channels of these conversations are confirmed.
    pub fn heard(&self, ids: &[ConversationId]) {
        for id in ids {
            if let Some(mut room) = self.rooms.get_mut(id) {
                room.heard_since.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Whether everything published on these conversations' channels since `at` has been offered
    /// here, as far as the bus carried it.
    #[must_use]
    pub fn heard_since(&self, ids: &[ConversationId], at: Instant) -> bool {
        ids.iter().all(|id| {
            let room = self.rooms.get(id);
            room.is_some_and(|room| room.heard_since.is_some_and(|since| since <= at))
        })
    }

    /// The newest entry that arrived on a conversation's channel; zero if none.
    #[must_use]
    pub fn newest(&self, id: ConversationId) -> Seq {
        let room = self.rooms.get(&id);
        room.map_or(Seq::ZERO, |room| Seq(room.newest.load(Ordering::Acquire)))
    }
}

fn remove(sessions: &mut Vec<Arc<Session>>, session: &Session) {
    if let Some(at) = sessions.iter().position(|other| other.id == session.id) {
        sessions.swap_remove(at);
    }
}
