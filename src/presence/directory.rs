//! Who of some users is online, as far as this node can know.

use std::collections::HashMap;
use std::sync::Arc;

use quick_cache::sync::Cache;
use rookery_protocol::UserId;

use super::{Elsewhere, Listing, Presence, Roster};
use crate::metrics;

/// Users of whom is remembered how they were seen last, about 100 bytes each, for as long as
/// nobody can be asked.
const LAST_KNOWN_MAX: usize = 50_000;

/// The answer to a look-up.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Those who are listed, or were when they could be looked up last.
    pub listings: HashMap<UserId, Listing>,
    /// Whether this is how it is now; otherwise some node could not be asked.
    pub complete: bool,
}

/// See the module.
pub struct Directory {
    roster: Arc<Roster>,
    others: Arc<dyn Presence>,
    last_known: Cache<UserId, Option<Listing>>,
}

impl Directory {
    #[must_use]
    pub fn new(roster: Arc<Roster>, others: Arc<dyn Presence>) -> Self {
        Self {
            roster,
            others,
            last_known: Cache::new(LAST_KNOWN_MAX),
        }
    }

    /// What live nodes list of these users, this one included.
    pub async fn look_up(&self, users: &[UserId]) -> Found {
        let Elsewhere {
            mut listings,
            complete,
        } = self.others.elsewhere(users).await;
        if complete {
            metrics::presence_lookups_total().complete.increment(1);
        } else {
            metrics::presence_lookups_total().incomplete.increment(1);
        }
        for user in users {
            if complete {
                self.last_known.insert(*user, listings.get(user).copied());
            } else if !listings.contains_key(user)
                && let Some(Some(known)) = self.last_known.get(user)
            {
                listings.insert(*user, known);
            }
            if let Some(here) = self.roster.get(*user) {
                let merged = listings.get(user).map_or(here, |there| here.and(*there));
                listings.insert(*user, merged);
            }
        }
        Found { listings, complete }
    }

    /// How many of these users (up to the members of the largest group) appear online.
    pub async fn online_among(&self, users: &[UserId]) -> usize {
        let elsewhere = self.others.elsewhere(users).await.listings;
        let appears = |user: &&UserId| {
            let (here, there) = (self.roster.get(**user), elsewhere.get(*user).copied());
            let listing = match (here, there) {
                (Some(here), Some(there)) => Some(here.and(there)),
                (here, there) => here.or(there),
            };
            listing.is_some_and(|listing| listing.is_visible())
        };
        users.iter().filter(appears).count()
    }
}
