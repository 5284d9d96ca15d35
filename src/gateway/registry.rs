//! The sockets of this node, by user.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use rookery_protocol::{CloseCode, SessionId, UserId};

use super::backlog::Backlog;
use super::rooms::Rooms;
use super::session::Session;
use crate::metrics::{self, Level};
use crate::sparse;

/// Steps in which a second's share of [`Registry::resume_all`] is closed.
const RESUME_BATCHES: usize = 10;

/// Finds the sockets of a user. Sharded; no lock is held while a caller works.
#[derive(Debug, Default)]
pub struct Registry {
    users: DashMap<UserId, Vec<Arc<Session>>>,
    sockets: AtomicUsize,
    next_id: AtomicU64,
    /// Sockets that the heartbeat has yet to look at for the first time, or again.
    newcomers: Mutex<Vec<(UserId, u64)>>,
    /// What waits for all of them together.
    pub(super) backlog: Arc<Backlog>,
    /// The sockets by large conversation.
    pub rooms: Rooms,
}

impl Registry {
    /// A number for a new socket, unique on this node.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a socket. If its user now has more than `max`, the longest silent one is told to go.
    pub fn join(&self, session: Arc<Session>, max: usize) {
        let mut sessions = self.users.entry(session.user_id).or_default();
        let open = sessions.iter().filter(|other| !other.outbox.is_closing());
        if sessions
            .iter()
            .filter(|other| !other.outbox.is_closing())
            .count()
            >= max
            && let Some(silent) = open.min_by_key(|other| (other.heard_at(), other.id))
        {
            silent.close(CloseCode::TooManySockets);
        }
        self.announce(&session);
        // Most users have one socket: no spare room.
        sessions.reserve_exact(1);
        sessions.push(session);
        drop(sessions);
        self.sockets.fetch_add(1, Ordering::Relaxed);
        metrics::sockets().increment(1.0);
    }

    /// Closes those of a user's sockets after which `max` others were heard, here or as
    /// `later_elsewhere` counts them for a socket that was heard at this second.
    pub fn thin(&self, user: UserId, max: usize, later_elsewhere: impl Fn(&Session, u32) -> usize) {
        let Some(sessions) = self.users.get(&user) else {
            return;
        };
        let open = sessions.iter().filter(|other| !other.outbox.is_closing());
        let mut open: Vec<_> = open.map(|other| (other.heard_at(), other)).collect();
        open.sort_unstable_by_key(|(heard, session)| (*heard, session.id));
        for (later_here, (heard, session)) in open.iter().rev().enumerate() {
            if later_here + later_elsewhere(session, *heard) >= max {
                session.close(CloseCode::TooManySockets);
            }
        }
    }

    /// Removes a socket.
    pub fn leave(&self, session: &Session) {
        let mut removed = false;
        self.users.remove_if_mut(&session.user_id, |_, sessions| {
            let before = sessions.len();
            sessions.retain(|other| other.id != session.id);
            removed = sessions.len() < before;
            sessions.is_empty()
        });
        if removed {
            self.sockets.fetch_sub(1, Ordering::Relaxed);
            metrics::sockets().decrement(1.0);
        }
    }

    /// The bytes that wait for readers, where more than a few wait for one.
    #[must_use]
    pub fn backlog_level(&self) -> Level {
        self.backlog.level()
    }

    /// Has the heartbeat look at the socket within a second.
    pub fn announce(&self, session: &Session) {
        if session.announce() {
            self.newcomers().push((session.user_id, session.id));
        }
    }

    /// The sockets that were announced since this was asked.
    pub(super) fn take_newcomers(&self) -> impl Iterator<Item = (UserId, u64)> + use<> {
        std::mem::take(&mut *self.newcomers()).into_iter()
    }

    fn newcomers(&self) -> MutexGuard<'_, Vec<(UserId, u64)>> {
        self.newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn newcomers_len(&self) -> usize {
        self.newcomers().len()
    }

    /// One socket, by its user and its number.
    #[must_use]
    pub(super) fn find(&self, user: UserId, id: u64) -> Option<Arc<Session>> {
        let sessions = self.users.get(&user)?;
        sessions.iter().find(|session| session.id == id).cloned()
    }

    /// The sockets of one user.
    #[must_use]
    pub fn of(&self, user: UserId) -> Vec<Arc<Session>> {
        self.users
            .get(&user)
            .map(|sessions| sessions.clone())
            .unwrap_or_default()
    }

    /// How many sockets a user has here, those among them that are being closed.
    #[must_use]
    pub fn count_of(&self, user: UserId) -> usize {
        self.users.get(&user).map_or(0, |sessions| sessions.len())
    }

    #[must_use]
    pub fn has(&self, user: UserId) -> bool {
        self.users.contains_key(&user)
    }

    /// All sockets, for looks that pass over the whole node.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all = Vec::with_capacity(self.socket_count());
        for sessions in &self.users {
            all.extend(sessions.iter().cloned());
        }
        all
    }

    /// Gives back the room of sockets that have gone.
    pub fn shrink(&self) {
        sparse::shrink_shared(&self.users);
        self.rooms.shrink();
    }

    /// Has every socket come back and resume, `per_second` of them: what they were told is void, for
    /// instance since the database was set back (its epoch changed). None of them is passed
    /// anything of a conversation from this moment on, however late its own close comes. Sockets
    /// that open meanwhile are not concerned. Run it in a task of its own.
    pub async fn resume_all(&self, per_second: usize) {
        let mut waiting = self.all();
        waiting.retain(|session| session.suspend());
        let batch = per_second.div_ceil(RESUME_BATCHES).max(1);
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RESUME_BATCHES as u32);
        for chunk in waiting.chunks(batch) {
            ticks.tick().await;
            for session in chunk {
                session.close(CloseCode::Resynchronise);
            }
        }
    }

    /// Closes the sockets of ended sessions.
    pub fn revoke(&self, user: UserId, ended: &[SessionId]) {
        for session in self.of(user) {
            if ended.contains(&session.session_id) {
                session.close(CloseCode::Unauthenticated);
            }
        }
    }

    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn user_count(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::user::UserRole;
    use rookery_protocol::{ConversationId, Format, Seq, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::auth::Access;
    use crate::gateway::Verdict;

    const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));

    /// A socket that is live in a conversation.
    fn live(registry: &Registry, user: u128) -> Arc<Session> {
        let access = Access {
            user_id: UserId::from_uuid(Uuid::from_u128(user)),
            session_id: SessionId::from_uuid(Uuid::nil()),
            username: "ann".into(),
            role: UserRole::User,
            auth_version: 1,
            expires_at: Timestamp::default(),
        };
        let id = registry.next_id();
        let session = Arc::new(Session::new(id, &access, Format::Json, 0, Arc::default()));
        session.positions().set_base(&[(ROOM, Seq(4))]);
        registry.join(Arc::clone(&session), 5);
        session
    }

    #[test]
    fn the_room_of_sockets_that_have_gone_is_given_back() {
        let registry = Registry::default();
        let sessions: Vec<_> = (0..5_000).map(|user| live(&registry, user)).collect();
        let (rest, gone) = sessions.split_at(100);
        for session in gone {
            registry.leave(session);
        }
        assert!(registry.users.capacity() >= 5_000);
        registry.shrink();
        assert!(registry.users.capacity() < 500);
        assert!(rest.iter().all(|session| registry.has(session.user_id)));
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_silent_at_once_and_closed_at_the_rate() {
        let registry = Registry::default();
        let sessions: Vec<_> = (0..40).map(|user| live(&registry, user)).collect();
        assert!(sessions[7].begin_sync(), "this one is being told");
        let closing = || sessions.iter().filter(|s| s.outbox.is_closing()).count();
        let begun = tokio::time::Instant::now();
        let all = registry.resume_all(20);
        tokio::pin!(all);
        tokio::select! {
            biased;
            () = &mut all => panic!("two seconds' worth"),
            () = std::future::ready(()) => {}
        }
        for session in &sessions {
            let verdict = session.positions().advance(ROOM, Seq(5));
            assert_eq!(verdict, Verdict::Old, "nothing is passed on");
        }
        assert!(sessions[7].outbox.is_closing(), "not left half told");
        assert_eq!(closing(), 3, "and one batch");
        all.await;
        assert_eq!(closing(), 40);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(1_900), "{took:?}");
    }
}
