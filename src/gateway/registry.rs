//! The sockets of this node, by user.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use rookery_protocol::{CloseCode, SessionId, UserId};

use super::rooms::Rooms;
use super::session::Session;
use crate::metrics;

/// Finds the sockets of a user. Sharded; no lock is held while a caller works.
#[derive(Debug, Default)]
pub struct Registry {
    users: DashMap<UserId, Vec<Arc<Session>>>,
    sockets: AtomicUsize,
    next_id: AtomicU64,
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
        // Most users have one socket: no spare room.
        sessions.reserve_exact(1);
        sessions.push(session);
        drop(sessions);
        metrics::sockets().set((self.sockets.fetch_add(1, Ordering::Relaxed) + 1) as f64);
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
            metrics::sockets().set((self.sockets.fetch_sub(1, Ordering::Relaxed) - 1) as f64);
        }
    }

    /// The sockets of one user.
    #[must_use]
    pub fn of(&self, user: UserId) -> Vec<Arc<Session>> {
        self.users
            .get(&user)
            .map(|sessions| sessions.clone())
            .unwrap_or_default()
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
