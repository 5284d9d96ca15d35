//! How people appear, and to whom: to those they share a conversation with, unless they block them.
//! Who is invisible, or blocks the one who asks, looks offline.

mod announce;
mod last_seen;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rookery_protocol::event::{ErrorDetail, Presence};
use rookery_protocol::user::ChosenStatus;
use rookery_protocol::{UserId, limits};

pub use announce::{Announcer, AnnouncerParts};

use crate::bus::BusPresence;
use crate::chat::fanout::Fanout;
use crate::clock::Clock;
use crate::error::AppError;
use crate::presence::{Directory, Found, Roster, shown};
use crate::store::Store;

/// Acquaintances looked through for one page of those online: the page ends there, whether it is
/// full or not.
const SCAN_MAX: usize = 5_000;
/// Acquaintances looked up at once.
const SCAN_CHUNK: i64 = 1_000;

/// See the module.
pub struct Appearances {
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    roster: Arc<Roster>,
    fanout: Arc<Fanout>,
    clock: Clock,
}

/// What somebody may see of the users they ask about; strangers are in neither.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// In the order asked, without repeats.
    pub known: Vec<UserId>,
    /// Those of `known` who look offline to the one who asks, whatever they are.
    pub hidden: HashSet<UserId>,
}

/// How some users appear.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub users: HashMap<UserId, BusPresence>,
    /// Whether this is how it is now; otherwise those who are offline may not be.
    pub complete: bool,
}

/// Some of those online, and where to go on.
#[derive(Clone, Debug)]
pub struct OnlinePage {
    pub items: Vec<Presence>,
    /// The last one looked at, if there may be more.
    pub next: Option<UserId>,
}

impl Appearances {
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        directory: Arc<Directory>,
        roster: Arc<Roster>,
        fanout: Arc<Fanout>,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            directory,
            roster,
            fanout,
            clock,
        }
    }

    /// Whom of these users `viewer` may see. One may see oneself.
    ///
    /// # Errors
    /// `INVALID`: too many at once; or the store does not answer.
    pub async fn sight(&self, viewer: UserId, asked: &[UserId]) -> Result<Sight, AppError> {
        if asked.len() > limits::USERS_PER_CALL {
            let detail = ErrorDetail::new("user_ids", "names too many", "at most 200 users");
            return Err(detail.into());
        }
        let others: Vec<UserId> = asked.iter().filter(|id| **id != viewer).copied().collect();
        let shared = self.store.shares_conversation_with(viewer, &others).await?;
        let shared: HashSet<UserId> = shared.into_iter().chain([viewer]).collect();
        let mut named = HashSet::new();
        let is_known = |id: &&UserId| shared.contains(id) && named.insert(**id);
        let known: Vec<UserId> = asked.iter().filter(is_known).copied().collect();
        let hidden = self.store.blockers_among(viewer, &known).await?;
        Ok(Sight {
            known,
            hidden: hidden.into_iter().collect(),
        })
    }

    /// How these users appear to everybody who may know.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn look(&self, users: &[UserId]) -> Result<Seen, AppError> {
        let Found { listings, complete } = self.directory.look_up(users).await;
        let mut seen: HashMap<UserId, BusPresence> = users
            .iter()
            .filter_map(|user| Some((*user, listings.get(user)?.told(*user)?)))
            .collect();
        let is_away = |user: &&UserId| !seen.contains_key(user);
        let away: Vec<UserId> = users.iter().filter(is_away).copied().collect();
        if !away.is_empty() {
            let rows = self.store.users(&away).await?;
            let offline = rows.into_iter().map(|row| {
                (
                    row.user_id,
                    BusPresence::offline(row.user_id, row.last_seen_at),
                )
            });
            seen.extend(offline);
        }
        Ok(Seen {
            users: seen,
            complete,
        })
    }

    /// How these users appear to `viewer`, in the order asked; strangers are left out.
    ///
    /// # Errors
    /// `INVALID`: too many at once; or the store does not answer.
    pub async fn of(&self, viewer: UserId, asked: &[UserId]) -> Result<Vec<Presence>, AppError> {
        let sight = self.sight(viewer, asked).await?;
        let seen = self.look(&sight.known).await?.users;
        let shown = |id: &UserId| {
            let seen = seen.get(id)?;
            Some(shown(seen, sight.hidden.contains(id)))
        };
        Ok(sight.known.iter().filter_map(shown).collect())
    }

    /// How one user appears to `viewer`.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is no such user, or they share no conversation.
    pub async fn of_one(&self, viewer: UserId, id: UserId) -> Result<Presence, AppError> {
        let mut found = self.of(viewer, &[id]).await?;
        found.pop().ok_or_else(AppError::not_found)
    }

    /// Up to `limit` of those online with whom `viewer` shares a conversation, by id, after `after`.
    /// A page may hold fewer although more follow.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn online(
        &self,
        viewer: UserId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<OnlinePage, AppError> {
        let (mut items, mut last, mut looked_at) = (Vec::new(), after, 0);
        while looked_at < SCAN_MAX {
            let others = self.store.acquaintances(viewer, last, SCAN_CHUNK).await?;
            let is_end = others.len() < SCAN_CHUNK as usize;
            looked_at += others.len();
            let found = self.directory.look_up(&others).await.listings;
            let hidden = self.store.blockers_among(viewer, &others).await?;
            let hidden: HashSet<UserId> = hidden.into_iter().collect();
            for other in &others {
                let listing = found.get(other).filter(|_| !hidden.contains(other));
                let Some(told) = listing.and_then(|listing| listing.told(*other)) else {
                    continue;
                };
                items.push(shown(&told, false));
                if items.len() == limit {
                    let is_last = is_end && others.last() == Some(other);
                    let next = (!is_last).then_some(*other);
                    return Ok(OnlinePage { items, next });
                }
            }
            if is_end {
                return Ok(OnlinePage { items, next: None });
            }
            last = others.last().copied();
        }
        Ok(OnlinePage { items, next: last })
    }

    /// How many of these users, up to the members of the largest group, appear online to most.
    pub async fn online_among(&self, users: &[UserId]) -> usize {
        self.directory.online_among(users).await
    }

    /// How a user wants to appear from now on. `skip`: the socket that asked.
    ///
    /// # Errors
    /// `NOT_FOUND` if the account was deleted; or the store does not answer.
    pub async fn choose(
        &self,
        user: UserId,
        status: ChosenStatus,
        skip: u64,
    ) -> Result<(), AppError> {
        let stored = self.store.choose_status(user, status, self.clock.now());
        let chosen = stored.await?.ok_or_else(AppError::not_found)?;
        self.roster.chose(user, chosen, true);
        self.fanout.chosen(user, chosen, skip);
        Ok(())
    }
}
