//! The conversations, and who is in them as far as the workload knows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use futures_util::future::try_join_all;
use rookery_protocol::{ConversationId, UserId};

use crate::measure::lock;
use crate::people::Account;

/// Whom each person writes to directly: those so many places further on.
const NEIGHBOURS: [usize; 3] = [1, 2, 5];
/// Members of groups, in turn; the first group has everybody, and so a channel of its own.
const SIZES: [usize; 4] = [4, 6, 9, 12];
/// Of a hundred sends so many go to groups; the larger a group, the more copies a send makes.
const TO_GROUPS: usize = 30;

pub(crate) struct Rooms {
    accounts: Vec<Arc<Account>>,
    /// By the number of a person.
    direct: Vec<Vec<ConversationId>>,
    groups: Vec<Group>,
}

/// A group whose owner never leaves.
pub(crate) struct Group {
    pub(crate) id: ConversationId,
    owner: usize,
    /// Numbers of those who can be in it.
    pool: Vec<usize>,
    present: Mutex<BTreeSet<usize>>,
}

impl Rooms {
    pub(crate) async fn make(accounts: &[Arc<Account>]) -> Result<Self> {
        let count = accounts.len();
        let mut direct = vec![Vec::new(); count];
        for (number, account) in accounts.iter().enumerate() {
            for distance in NEIGHBOURS {
                let other = (number + distance) % count;
                if other != number {
                    let room = ConversationId::direct(account.id(), accounts[other].id());
                    direct[number].push(room);
                    direct[other].push(room);
                }
            }
        }
        // Sent to by its id, a direct conversation must be there.
        for (number, account) in accounts.iter().enumerate() {
            for distance in NEIGHBOURS {
                account
                    .meet(accounts[(number + distance) % count].id())
                    .await?;
            }
        }
        let everybody = (0, (0..count).collect());
        let others = (1..=count / 2).map(|number| {
            let size = SIZES[number % SIZES.len()].min(count);
            let first = number * 5 % count;
            let pool: Vec<usize> = (0..size).map(|place| (first + place) % count).collect();
            (first, pool)
        });
        let groups = std::iter::once(everybody).chain(others);
        let groups = try_join_all(groups.enumerate().map(async |(number, (owner, pool))| {
            Group::make(accounts, &format!("group {number}"), owner, pool).await
        }))
        .await?;
        Ok(Self {
            accounts: accounts.to_vec(),
            direct,
            groups,
        })
    }

    /// Where this person writes next.
    pub(crate) fn choose(&self, person: usize, pick: u32) -> Option<ConversationId> {
        let pick = pick as usize;
        let (kind, place) = (pick % 100, pick / 100);
        let of = |rooms: &[ConversationId]| rooms.get(place % rooms.len().max(1)).copied();
        if kind < TO_GROUPS {
            let here = |group: &&Group| lock(&group.present).contains(&person);
            let rooms: Vec<ConversationId> = self
                .groups
                .iter()
                .filter(here)
                .map(|group| group.id)
                .collect();
            if let Some(room) = of(&rooms) {
                return Some(room);
            }
        }
        of(&self.direct[person])
    }

    /// Somebody comes or goes; whether the server took it.
    pub(crate) async fn change(&self, pick: u32) -> Result<()> {
        let pick = pick as usize;
        let group = &self.groups[pick % self.groups.len()];
        let place = (pick / self.groups.len()) % group.pool.len();
        let person = group.pool[place];
        if person == group.owner {
            return Ok(());
        }
        let (owner, user) = (&self.accounts[group.owner], self.accounts[person].id());
        let present = lock(&group.present).contains(&person);
        if present {
            // First, so that fewer sends are refused.
            lock(&group.present).remove(&person);
            owner.remove(group.id, user).await?;
        } else {
            owner.add(group.id, user).await?;
            lock(&group.present).insert(person);
        }
        Ok(())
    }

    /// A direct conversation of this person.
    pub(crate) fn direct_of(&self, person: usize, pick: u32) -> Option<ConversationId> {
        let rooms = &self.direct[person];
        rooms.get(pick as usize % rooms.len().max(1)).copied()
    }

    /// One of them.
    pub(crate) fn any(&self, pick: u32) -> ConversationId {
        self.groups[pick as usize % self.groups.len()].id
    }

    /// Everything in which somebody was ever a member.
    pub(crate) fn all(&self) -> BTreeSet<ConversationId> {
        let direct = self.direct.iter().flatten().copied();
        direct
            .chain(self.groups.iter().map(|group| group.id))
            .collect()
    }
}

impl Group {
    async fn make(
        accounts: &[Arc<Account>],
        title: &str,
        owner: usize,
        pool: Vec<usize>,
    ) -> Result<Self> {
        let others: Vec<UserId> = pool
            .iter()
            .filter(|person| **person != owner)
            .map(|person| accounts[*person].id())
            .collect();
        let id = accounts[owner].group(title, &others).await?;
        let present = Mutex::new(pool.iter().copied().collect());
        Ok(Self {
            id,
            owner,
            pool,
            present,
        })
    }
}
