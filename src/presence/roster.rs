//! The users of this node, and what changed of them. A user is on the roster from the first socket
//! on, until [`GRACE`] after the last.
//!
//! Written to by sockets that open and close, which never wait here; read in batches by the task
//! that tells (`chat::presence`). Changes of one user that were not read yet become one, so that
//! what waits is bounded by the users.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rookery_protocol::{Timestamp, UserId};
use tokio::sync::Notify;

use super::Listing;
use crate::sparse;
use crate::store::Chosen;

/// How long a user stays listed after the last socket: whoever reconnects meanwhile, here or on
/// another node, was never gone.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub struct Roster {
    users: DashMap<UserId, Here>,
    pending: Mutex<Pending>,
    bell: Notify,
    /// News of choices may have been lost.
    in_doubt: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Here {
    listing: Listing,
    /// Set while the user has no socket here.
    left: Option<Left>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    until: Instant,
    /// When the last socket closed.
    seen_at: Timestamp,
}

#[derive(Debug, Default)]
struct Pending {
    changes: HashMap<UserId, Unread>,
    /// By the end of their grace, which is the order of their leaving.
    leaving: VecDeque<(Instant, UserId)>,
}

#[derive(Clone, Copy, Debug)]
struct Unread {
    before: Option<Listing>,
    announce: bool,
    seen_at: Option<Timestamp>,
}

/// What became of a user since the last look.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub user: UserId,
    pub before: Option<Listing>,
    pub after: Option<Listing>,
    /// To be told even if it changes nothing: somebody may know otherwise.
    pub announce: bool,
    /// When the last socket of a user who left was closed.
    pub seen_at: Option<Timestamp>,
}

impl Roster {
    /// A user has a socket here, one of `sockets`, who wants to appear as `chosen`.
    pub fn came(&self, user: UserId, chosen: Chosen, sockets: usize, now: Timestamp) {
        match self.users.entry(user) {
            Entry::Vacant(vacant) => {
                let listing = Listing {
                    since: now,
                    chosen,
                    sockets,
                };
                vacant.insert(Here {
                    listing,
                    left: None,
                });
                self.note(user, None, false, None);
            }
            Entry::Occupied(mut occupied) => {
                let here = occupied.get_mut();
                here.left = None;
                let before = here.listing;
                // Two that open at once come here in either order.
                here.listing.sockets = before.sockets.max(sockets);
                // One more may be too many with those elsewhere.
                self.note(user, Some(before), false, None);
                // News of the choice was lost, or is still on its way.
                self.choose(user, here, chosen, true);
            }
        }
    }

    /// A user's last socket here was closed.
    pub fn gone(&self, user: UserId, seen_at: Timestamp, now: Instant) {
        let Some(mut here) = self.users.get_mut(&user) else {
            return;
        };
        let until = now + GRACE;
        here.left = Some(Left { until, seen_at });
        drop(here);
        self.lock().leaving.push_back((until, user));
        self.bell.notify_one();
    }

    /// A user of this node chose how to appear. `announce`: on this node.
    pub fn chose(&self, user: UserId, chosen: Chosen, announce: bool) {
        if let Some(mut here) = self.users.get_mut(&user) {
            self.choose(user, &mut here, chosen, announce);
        }
    }

    fn choose(&self, user: UserId, here: &mut Here, chosen: Chosen, announce: bool) {
        let before = here.listing;
        if chosen.at <= before.chosen.at {
            return;
        }
        here.listing.chosen = chosen;
        if !before.is_visible() && here.listing.is_visible() {
            // Who was invisible was offline to everybody: it begins now.
            here.listing.since = chosen.at;
        }
        self.note(user, Some(before), announce, None);
    }

    /// Another node has listed this user for longer.
    pub fn adopt(&self, user: UserId, since: Timestamp) {
        if let Some(mut here) = self.users.get_mut(&user)
            && since < here.listing.since
        {
            let before = here.listing;
            here.listing.since = since;
            self.note(user, Some(before), false, None);
        }
    }

    /// Has everybody told again.
    pub fn announce_all(&self) {
        let all: Vec<(UserId, Listing)> = self.listings();
        for (user, listing) in all {
            self.note(user, Some(listing), true, None);
        }
    }

    /// Takes off the roster who left long enough ago and, as `has_socket` says, did not come back.
    pub fn settle(&self, now: Instant, has_socket: impl Fn(UserId) -> bool) {
        let mut removed = false;
        while let Some(user) = self.pop_due(now) {
            let Entry::Occupied(mut occupied) = self.users.entry(user) else {
                continue;
            };
            // Came back meanwhile, or left once more, which has a place of its own in the queue.
            let Some(left) = occupied.get().left.filter(|left| left.until <= now) else {
                continue;
            };
            if has_socket(user) {
                occupied.get_mut().left = None;
                continue;
            }
            let listing = occupied.remove().listing;
            removed = true;
            self.note(user, Some(listing), false, Some(left.seen_at));
        }
        if removed {
            sparse::shrink_shared(&self.users);
        }
    }

    fn pop_due(&self, now: Instant) -> Option<UserId> {
        let mut pending = self.lock();
        pending
            .leaving
            .pop_front_if(|(until, _)| *until <= now)
            .map(|(_, user)| user)
    }

    /// When the next grace ends.
    #[must_use]
    pub fn next_settling(&self) -> Option<Instant> {
        self.lock().leaving.front().map(|(until, _)| *until)
    }

    /// Waits until there is something to read, or a new grace to wait for.
    pub async fn changed(&self) {
        self.bell.notified().await;
    }

    /// Reads up to `max` changes.
    #[must_use]
    pub fn take_changes(&self, max: usize) -> Vec<Change> {
        let mut pending = self.lock();
        let users: Vec<UserId> = pending.changes.keys().take(max).copied().collect();
        let mut taken = Vec::with_capacity(users.len());
        for user in users {
            taken.extend(pending.changes.remove(&user).map(|unread| (user, unread)));
        }
        if !pending.changes.is_empty() {
            self.bell.notify_one();
        }
        sparse::shrink(&mut pending.changes);
        drop(pending);
        let change = |(user, unread): (UserId, Unread)| Change {
            user,
            before: unread.before,
            after: self.get(user),
            announce: unread.announce,
            seen_at: unread.seen_at,
        };
        taken.into_iter().map(change).collect()
    }

    /// News of what users of this node chose may have been lost.
    pub fn doubt(&self) {
        self.in_doubt.store(true, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Whether choices are to be read again; asked once.
    #[must_use]
    pub fn take_doubt(&self) -> bool {
        self.in_doubt.swap(false, Ordering::SeqCst)
    }

    /// What this node lists of a user.
    #[must_use]
    pub fn get(&self, user: UserId) -> Option<Listing> {
        self.users.get(&user).map(|here| here.listing)
    }

    /// All of the list.
    #[must_use]
    pub fn listings(&self) -> Vec<(UserId, Listing)> {
        let pair = |entry: dashmap::mapref::multiple::RefMulti<'_, UserId, Here>| {
            (*entry.key(), entry.value().listing)
        };
        self.users.iter().map(pair).collect()
    }

    fn note(
        &self,
        user: UserId,
        before: Option<Listing>,
        announce: bool,
        seen_at: Option<Timestamp>,
    ) {
        let mut pending = self.lock();
        let unread = pending.changes.entry(user).or_insert(Unread {
            before,
            announce,
            seen_at,
        });
        unread.announce |= announce;
        unread.seen_at = seen_at.or(unread.seen_at);
        drop(pending);
        self.bell.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic between two changes leaves pending work that is still pending work.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
