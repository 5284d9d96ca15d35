//! Tells who comes and goes. One task a node: it writes what changed of this node's list, asks
//! whether others list the same users, and publishes what that means, in batches. Of those who are
//! listed twice it counts the sockets.
//!
//! Telling twice is harmless, and a lost telling is found by those who watch, who look the lists
//! up every few seconds (`delivery::presence`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::{Timestamp, UserId};

use super::last_seen::LastSeen;
use crate::bus::BusPresence;
use crate::chat::fanout::Fanout;
use crate::gateway::{Registry, Surplus};
use crate::lifecycle::Tasks;
use crate::metrics;
use crate::presence::{Change, Death, Elsewhere, Listing, Notice, Presence, Roster};
use crate::store::Store;

/// Users told of at once: a pipeline that Redis answers within a few milliseconds.
const BATCH: usize = 1_000;
/// When those who left while nobody could be asked are asked for again.
const RETRY: Duration = Duration::from_secs(1);
/// Those of whom is remembered that they left meanwhile; of those beyond it, whoever watches finds
/// out alone.
const UNSETTLED_MAX: usize = 50_000;
/// Choices of one's own users read at once when news of them may have been lost.
const CHOICES: usize = 200;
/// The shortest pause between two such readings.
const REREAD_PAUSE: Duration = Duration::from_secs(10);
/// What a stopping node takes to note when its users were seen last.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What the task works with.
pub struct AnnouncerParts {
    pub store: Arc<dyn Store>,
    pub fanout: Arc<Fanout>,
    pub roster: Arc<Roster>,
    pub presence: Arc<dyn Presence>,
    pub registry: Arc<Registry>,
    pub clock: crate::clock::Clock,
    pub tasks: Tasks,
    pub surplus: Surplus,
    pub sockets_per_user: usize,
    /// Has those who watch look again.
    pub look_again: Box<dyn Fn() + Send + Sync>,
}

/// See the module.
pub struct Announcer {
    parts: AnnouncerParts,
    last_seen: LastSeen,
    /// Left while some node could not be asked whether it lists them, and when they were seen last.
    unsettled: HashMap<UserId, Timestamp>,
    reread_at: Option<Instant>,
}

impl Announcer {
    /// Starts the task.
    pub fn start(parts: AnnouncerParts) {
        let tasks = parts.tasks.clone();
        let announcer = Self {
            last_seen: LastSeen::new(Arc::clone(&parts.store)),
            parts,
            unsettled: HashMap::new(),
            reread_at: None,
        };
        tasks.spawn_vital("presence", announcer.run());
    }

    async fn run(mut self) {
        let stopping = self.parts.tasks.stopping().clone();
        let (roster, presence) = (
            Arc::clone(&self.parts.roster),
            Arc::clone(&self.parts.presence),
        );
        loop {
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                notice = presence.notice() => self.heed(notice).await,
                () = roster.changed() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            self.reread_choices().await;
            let registry = &self.parts.registry;
            roster.settle(Instant::now(), |user| registry.has(user));
            let changes = roster.take_changes(BATCH);
            if !changes.is_empty() {
                self.tell(&changes).await;
            }
            self.settle().await;
            if self.last_seen.is_waiting() {
                self.last_seen.write().await;
            }
        }
        self.say_last_word().await;
    }

    fn wake_at(&self) -> Instant {
        let retry = if self.unsettled.is_empty() && !self.last_seen.is_waiting() {
            REREAD_PAUSE
        } else {
            RETRY
        };
        let retry = Instant::now() + retry;
        let settling = self.parts.roster.next_settling();
        settling.map_or(retry, |at| at.min(retry))
    }

    /// Writes changes and publishes those that show.
    async fn tell(&mut self, changes: &[Change]) {
        let differ = changes
            .iter()
            .filter(|change| change.before != change.after);
        let written: Vec<(UserId, Option<Listing>)> =
            differ.map(|change| (change.user, change.after)).collect();
        self.parts.presence.write(&written).await;
        let users: Vec<UserId> = changes.iter().map(|change| change.user).collect();
        let elsewhere = self.parts.presence.elsewhere(&users).await;
        let mut told = Vec::new();
        for change in changes {
            told.extend(self.judge(change, &elsewhere));
        }
        // First noted, then told: whoever hears of it may ask at once.
        if self.last_seen.is_waiting() {
            self.last_seen.write().await;
        }
        told.into_iter().for_each(|presence| self.publish(presence));
        self.count_sockets(changes, &elsewhere).await;
    }

    /// Has everybody asked about users who may have too many sockets on all nodes together.
    async fn count_sockets(&self, changes: &[Change], elsewhere: &Elsewhere) {
        let is_both = |change: &&Change| {
            change.after.is_some() && elsewhere.listings.contains_key(&change.user)
        };
        let users = changes.iter().filter(is_both).map(|change| change.user);
        let users: Vec<UserId> = users.collect();
        let counts = self.parts.presence.sockets_elsewhere(&users).await;
        for (user, there) in counts {
            let here = self.parts.registry.count_of(user);
            if here + there > self.parts.sockets_per_user {
                self.parts.surplus.ask(user);
            }
        }
    }

    /// What others are to be told of a change.
    fn judge(&mut self, change: &Change, elsewhere: &Elsewhere) -> Option<BusPresence> {
        let user = change.user;
        let there = elsewhere.listings.get(&user).copied();
        match (change.before, change.after) {
            (None, None) => None,
            (Some(before), None) => {
                let seen_at = change.seen_at.unwrap_or_else(|| self.parts.clock.now());
                if there.is_some() || !before.is_visible() {
                    return None;
                }
                if !elsewhere.complete {
                    self.leave_unsettled(user, seen_at);
                    return None;
                }
                self.last_seen.note(user, seen_at);
                Some(BusPresence::offline(user, Some(seen_at)))
            }
            (before, Some(after)) => {
                self.unsettled.remove(&user);
                if let Some(there) = there
                    && there.chosen.at == after.chosen.at
                {
                    self.parts.roster.adopt(user, there.since);
                }
                let now = there.map_or(after, |there| there.and(after));
                let was_known = before.is_some() || there.is_some();
                if was_known && !change.announce && !began_anew(before, after) {
                    return None;
                }
                let told = now.told(user);
                let hides = before.is_some_and(|before| before.is_visible()) && told.is_none();
                if hides {
                    self.last_seen.note(user, after.chosen.at);
                    return Some(BusPresence::offline(user, Some(after.chosen.at)));
                }
                told
            }
        }
    }

    fn publish(&self, presence: BusPresence) {
        let announced = metrics::presence_announced_total();
        if presence.is_offline() {
            announced.offline.increment(1);
        } else {
            announced.online.increment(1);
        }
        self.parts.fanout.presence(presence);
    }

    fn leave_unsettled(&mut self, user: UserId, seen_at: Timestamp) {
        if self.unsettled.len() < UNSETTLED_MAX {
            self.unsettled.insert(user, seen_at);
        }
    }

    /// Asks again for those who left while nobody could be asked.
    async fn settle(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        let left = std::mem::take(&mut self.unsettled);
        let left: Vec<(UserId, Timestamp)> = left.into_iter().collect();
        for chunk in left.chunks(BATCH) {
            self.tell_gone(chunk).await;
        }
    }

    /// Publishes that these users are gone, unless some node lists them.
    async fn tell_gone(&mut self, left: &[(UserId, Timestamp)]) {
        let users: Vec<UserId> = left.iter().map(|(user, _)| *user).collect();
        let elsewhere = self.parts.presence.elsewhere(&users).await;
        let mut gone = Vec::new();
        for (user, seen_at) in left {
            let is_here = self.parts.roster.get(*user).is_some();
            if is_here || elsewhere.listings.contains_key(user) {
                continue;
            }
            if elsewhere.complete {
                self.last_seen.note(*user, *seen_at);
                gone.push(BusPresence::offline(*user, Some(*seen_at)));
            } else {
                self.leave_unsettled(*user, *seen_at);
            }
        }
        if self.last_seen.is_waiting() {
            self.last_seen.write().await;
        }
        gone.into_iter().for_each(|presence| self.publish(presence));
    }

    async fn heed(&mut self, notice: Notice) {
        match notice {
            Notice::Died(death) => self.undertake(death).await,
            Notice::Relisted => self.parts.roster.announce_all(),
            Notice::Changed => {}
        }
        (self.parts.look_again)();
    }

    /// Tells of a dead node's users. Its list stays until they are told of.
    async fn undertake(&mut self, death: Death) {
        metrics::presence_deaths_total().increment(1);
        let visible = death.users.iter().filter(|(_, there)| there.is_visible());
        let left: Vec<_> = visible.map(|(user, _)| (*user, death.seen_at)).collect();
        for chunk in left.chunks(BATCH) {
            self.tell_gone(chunk).await;
        }
        self.parts.presence.bury(&death.node).await;
    }

    /// Reads how this node's users chose to appear, after news of it may have been lost.
    async fn reread_choices(&mut self) {
        let is_early = self.reread_at.is_some_and(|at| at.elapsed() < REREAD_PAUSE);
        if is_early || !self.parts.roster.take_doubt() {
            return;
        }
        self.reread_at = Some(Instant::now());
        let users: Vec<UserId> = self
            .parts
            .roster
            .listings()
            .iter()
            .map(|(u, _)| *u)
            .collect();
        for chunk in users.chunks(CHOICES) {
            match self.parts.store.users(chunk).await {
                Ok(rows) => {
                    for row in rows {
                        self.parts.roster.chose(row.user_id, row.chosen, true);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "choices cannot be read; trying again later");
                    self.parts.roster.doubt();
                    return;
                }
            }
        }
    }

    /// Notes that everybody still here was seen until now. Survivors tell, if there are any.
    async fn say_last_word(mut self) {
        let now = self.parts.clock.now();
        for (user, listing) in self.parts.roster.listings() {
            if listing.is_visible() {
                self.last_seen.note(user, now);
            }
        }
        let written = async {
            self.last_seen.write().await;
            while self.last_seen.is_waiting() {
                tokio::time::sleep(LAST_WORD / 10).await;
                self.last_seen.write().await;
            }
        };
        tokio::time::timeout(LAST_WORD, written).await.ok();
    }
}

/// Whether somebody who was told of the user may know a beginning that does not hold any more.
fn began_anew(before: Option<Listing>, after: Listing) -> bool {
    before.is_some_and(|before| before.since < after.since && before.chosen == after.chosen)
}
