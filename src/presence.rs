//! Who is online. Each node lists its own users ([`Roster`]) and shows the list to the others
//! under a lease ([`Presence`]); a user is online if a live node lists them.
//!
//! Staying online costs per node, not per user: the lease is renewed, the list only changes when
//! somebody comes or goes. In: users who come, go and choose how to appear. Out: who of some users
//! is listed ([`Directory`]), and notices of what befell the lists. What it must never do: delay a
//! message, or take a Redis that does not answer for users who went offline.
//!
//! What is told about it, and to whom, is decided by `chat::presence`.

mod directory;
mod memory;
mod redis;
mod roster;

use std::collections::HashMap;

use async_trait::async_trait;
use rookery_protocol::event;
use rookery_protocol::user::PresenceStatus;
use rookery_protocol::{Timestamp, UserId};

pub use directory::{Directory, Found};
pub use memory::MemoryPresence;
pub use redis::{RedisPresence, RedisPresenceOptions};
pub use roster::{Change, Roster};

use crate::bus::BusPresence;
use crate::store::Chosen;

/// What a node lists of one of its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Online since then, without a break of more than the grace.
    pub since: Timestamp,
    pub chosen: Chosen,
    /// The most sockets of the user that were there when one opened; fewer may be left. So the number
    /// may be too high, but too low only of a node of the version before, whose sockets count as one.
    pub sockets: usize,
}

impl Listing {
    /// How the user appears to others.
    #[must_use]
    pub fn appears(&self) -> PresenceStatus {
        self.chosen.status.appears()
    }

    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.appears() != PresenceStatus::Offline
    }

    /// How others are told of the user; `None`: as of one who is offline.
    #[must_use]
    pub fn told(&self, user_id: UserId) -> Option<BusPresence> {
        self.is_visible().then(|| BusPresence {
            user_id,
            status: self.appears(),
            online_since: Some(self.since),
            last_seen_at: None,
            chosen_at: self.chosen.at,
        })
    }

    /// What two nodes say together: the later choice counts, and of those who know it the earlier
    /// begin.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self.chosen.at.cmp(&other.chosen.at) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal => Self {
                since: self.since.min(other.since),
                ..self
            },
        }
    }
}

/// What other nodes list of the users asked for.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    pub listings: HashMap<UserId, Listing>,
    /// Whether whoever is not among them is listed nowhere; otherwise some node could not be asked.
    pub complete: bool,
}

/// What befell the lists of the nodes.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A node is gone, and this one is to tell of its users.
    Died(Death),
    /// This node's list was lost and is there again; others may have told that its users are gone.
    Relisted,
    /// Nodes came or went, or can be asked again: what was known of users may be wrong.
    Changed,
}

/// A node that is gone.
#[derive(Clone, Debug)]
pub struct Death {
    pub node: String,
    /// Its last sign of life, by its own clock.
    pub seen_at: Timestamp,
    /// Its list.
    pub users: Vec<(UserId, Listing)>,
}

/// The lists of all nodes. Nothing here fails: a node that cannot reach the others says so in
/// [`Elsewhere::complete`], and its own list is written whole when it can.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Shows others what changed in this node's list. When it returns, look-ups of other nodes find
    /// it, unless they cannot be reached.
    async fn write(&self, changes: &[(UserId, Option<Listing>)]);

    /// What live nodes other than this one list of `users`.
    async fn elsewhere(&self, users: &[UserId]) -> Elsewhere;

    /// How many sockets live nodes other than this one list of `users`; those with none, and those of
    /// nodes that cannot be asked, are left out. May be too many, see [`Listing::sockets`].
    async fn sockets_elsewhere(&self, users: &[UserId]) -> HashMap<UserId, usize>;

    /// Whether the other nodes can be asked right now.
    fn is_reachable(&self) -> bool;

    /// Waits for the next notice. For one caller at a time.
    async fn notice(&self) -> Notice;

    /// Removes what a dead node left, once its users were told of. Until then it is announced again
    /// and again, by one node or another.
    async fn bury(&self, node: &str);
}

/// How a user is shown to somebody; `hidden`: who looks offline to them.
#[must_use]
pub fn shown(seen: &BusPresence, hidden: bool) -> event::Presence {
    let user_id = seen.user_id;
    if hidden {
        return event::Presence {
            user_id,
            status: PresenceStatus::Offline,
            online_since: None,
            last_seen_at: None,
        };
    }
    event::Presence {
        user_id,
        status: seen.status,
        online_since: seen.online_since,
        last_seen_at: seen.last_seen_at,
    }
}
