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
use crate::sparse;

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
    /// Gives a socket its seat; false if it has it already, or is closed.
    pub fn join(&self, id: ConversationId, session: &Arc<Session>) -> bool {
        // Noted in the session while the room is held: whoever closes the session meanwhile either
        // finds the seat, or prevents it.
        let mut room = self.rooms.entry(id).or_default();
        let taken = session.take_seat(id);
        if taken {
            room.seats.push(Arc::clone(session));
        }
        drop(room);
        if !taken {
            self.rooms.remove_if(&id, |_, room| room.seats.is_empty());
        }
        taken
    }

    /// Takes a socket's seat, and its watch; false if it has none.
    pub fn leave(&self, id: ConversationId, session: &Session) -> bool {
        let mut left = false;
        self.rooms.remove_if_mut(&id, |_, room| {
            left = session.give_up_seat(id);
            remove(&mut room.seats, session);
            remove(&mut room.watchers, session);
            room.seats.is_empty()
        });
        left
    }

    /// Gives back the room of conversations that nobody here is seated in any more.
    pub fn shrink(&self) {
        sparse::shrink_shared(&self.rooms);
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

#[cfg(test)]
mod tests {
    use rookery_protocol::user::UserRole;
    use rookery_protocol::{Format, SessionId, Timestamp, UserId};
    use uuid::Uuid;

    use super::*;
    use crate::auth::Access;

    const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));

    fn session(id: u64) -> Arc<Session> {
        let access = Access {
            user_id: UserId::from_uuid(Uuid::nil()),
            session_id: SessionId::from_uuid(Uuid::nil()),
            username: "ann".into(),
            role: UserRole::User,
            auth_version: 1,
            expires_at: Timestamp::default(),
        };
        Arc::new(Session::new(id, &access, Format::Json, 0, Arc::default()))
    }

    fn seated(rooms: &Rooms) -> Vec<u64> {
        let ids = |seats: &[Arc<Session>]| seats.iter().map(|session| session.id).collect();
        rooms.seats(ROOM, ids).unwrap_or_default()
    }

    #[test]
    fn a_socket_has_one_seat_and_none_once_it_is_closed() {
        let rooms = Rooms::default();
        let (one, other) = (session(1), session(2));
        assert!(rooms.join(ROOM, &one) && rooms.join(ROOM, &other));
        assert!(!rooms.join(ROOM, &one), "it has its seat");
        rooms.watch(ROOM, &one, true);
        assert_eq!((seated(&rooms), rooms.watched()), (vec![1, 2], vec![ROOM]));
        assert_eq!(one.end_seats(), [ROOM]);
        assert!(rooms.leave(ROOM, &one) && !rooms.leave(ROOM, &one));
        assert!(!rooms.join(ROOM, &one), "it is closed");
        assert_eq!((seated(&rooms), rooms.watched()), (vec![2], vec![]));
        assert!(rooms.leave(ROOM, &other));
        assert!(rooms.rooms.is_empty(), "nobody is left");
    }

    #[test]
    fn who_joins_finds_what_was_offered_before() {
        let rooms = Rooms::default();
        let (one, other) = (session(1), session(2));
        rooms.join(ROOM, &one);
        let before = Instant::now();
        assert!(!rooms.heard_since(&[ROOM], before));
        rooms.heard(&[ROOM]);
        assert!(rooms.heard_since(&[ROOM], Instant::now()));
        rooms.offer(ROOM, Seq(7), |seats| assert_eq!(seats.len(), 1));
        rooms.offer(ROOM, Seq(6), |_| {});
        rooms.join(ROOM, &other);
        assert_eq!(rooms.newest(ROOM), Seq(7));
    }
}
