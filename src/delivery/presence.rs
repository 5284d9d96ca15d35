//! Shows sockets how the users they watch appear.
//!
//! In: news on the channels of watched users, and look-ups. Out: `presence` events. The first
//! change of a user goes out at once, later ones within the same second become one. They are
//! latest-value: a reader that is behind gets the newest when it has caught up, and is never closed
//! for them.
//!
//! News is a hint. That somebody is gone is looked up before it is shown, since a node that saw the
//! user leave may be told after one that saw them come; and because the bus may lose news, all who
//! are watched are looked up again every few seconds, as is whom of their watchers they block.

mod table;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_protocol::UserId;
use rookery_protocol::event::{PresenceState, ServerEvent};
use tokio::sync::{Notify, mpsc};

use table::Table;

use crate::bus::{BusEvent, BusPresence, Envelope};
use crate::gateway::Session;
use crate::lifecycle::Tasks;
use crate::metrics;
use crate::presence::Directory;
use crate::store::Store;

/// News that may wait; what does not fit is found by the next look.
const QUEUE: usize = 16_384;
/// News taken at once.
const BATCH: usize = 1_000;
/// How often all who are watched are looked up. With it presence is right again this long after
/// news was lost, at a cost to Redis of a few milliseconds for each 10,000 watched users.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The shortest pause between two looks, however much gives reason.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How long a look waits for the store to tell who blocks whom, or when somebody was seen last.
const STORE_WITHIN: Duration = Duration::from_secs(1);

/// Who watches whom on this node. Cloning shares it.
#[derive(Clone)]
pub struct Watchers(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    news: mpsc::Sender<Bytes>,
    /// Rung when there is something new to wait for.
    bell: Notify,
    in_doubt: AtomicBool,
}

/// How users were found.
pub struct Look {
    pub began_at: Instant,
    pub users: HashMap<UserId, BusPresence>,
    /// Whether those who are offline surely are.
    pub complete: bool,
}

/// The task that works for the watchers.
struct Task {
    watchers: Watchers,
    directory: Arc<Directory>,
    store: Arc<dyn Store>,
    looked_at: Instant,
}

impl Watchers {
    #[must_use]
    pub fn start(directory: Arc<Directory>, store: Arc<dyn Store>, tasks: &Tasks) -> Self {
        let (news, queue) = mpsc::channel(QUEUE);
        let watchers = Self(Arc::new(Shared {
            table: Mutex::default(),
            news,
            bell: Notify::new(),
            in_doubt: AtomicBool::new(false),
        }));
        let task = Task {
            watchers: watchers.clone(),
            directory,
            store,
            looked_at: Instant::now(),
        };
        let stop = tasks.stopping().clone();
        tasks.spawn_vital("watchers", async move {
            tokio::select! {
                () = task.run(queue) => {}
                () = stop.cancelled() => {}
            }
        });
        watchers
    }

    /// News from a watched user's channel. Decodes nothing.
    pub(super) fn take(&self, payload: Bytes) {
        if self.0.news.try_send(payload).is_err() {
            self.look_again();
        }
    }

    /// What is shown may be wrong: looks all of them up soon.
    pub fn look_again(&self) {
        self.0.in_doubt.store(true, Ordering::SeqCst);
        self.0.bell.notify_one();
    }

    /// A socket is about to watch these users. News of them is kept from it until [`Self::show`].
    pub fn begin(&self, session: &Arc<Session>, users: &[UserId], hidden: &HashSet<UserId>) {
        let mut table = self.lock();
        for user in users {
            table.begin(session, *user, hidden.contains(user));
        }
        metrics::presence_watched().set(table.len() as f64);
    }

    /// Answers a socket that began to watch these users, and shows it news of them from now on.
    pub fn show(
        &self,
        session: &Session,
        reference: Option<String>,
        users: &[UserId],
        look: &Look,
    ) {
        let mut table = self.lock();
        let now = Instant::now();
        let shown = users.iter().filter_map(|user| {
            if let Some(seen) = look.users.get(user)
                && !table.changed_since(*user, look.began_at)
                && (look.complete || !seen.is_offline() || !table.is_known(*user))
            {
                table.learn(*seen, now);
            }
            table.show(session.id, *user)
        });
        let users = shown.collect();
        // Queued before the lock is given up: what comes after it is newer.
        session.send(&ServerEvent::PresenceState(PresenceState {
            reference,
            users,
        }));
        drop(table);
        self.0.bell.notify_one();
    }

    /// A socket does not watch these users any more.
    pub fn end(&self, session: &Session, users: impl IntoIterator<Item = UserId>) {
        let mut table = self.lock();
        for user in users {
            table.end(session.id, user);
        }
        metrics::presence_watched().set(table.len() as f64);
    }

    /// `by` blocks `viewer` from now on, or ceased to.
    pub(super) fn blocked(&self, by: UserId, viewer: UserId, blocked: bool) {
        self.lock().hide(by, viewer, blocked);
        self.0.bell.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic between two changes leaves a table that the next look puts right.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Bytes>) {
        let watchers = self.watchers.clone();
        let mut batch = Vec::with_capacity(64);
        loop {
            let wake = self.wake_at();
            tokio::select! {
                received = queue.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    self.hear(&mut batch).await;
                }
                () = watchers.0.bell.notified() => {}
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            if self.look_at() <= Instant::now() {
                self.look().await;
            }
            watchers.lock().tell_due(Instant::now());
        }
    }

    fn look_at(&self) -> Instant {
        let in_doubt = self.watchers.0.in_doubt.load(Ordering::SeqCst);
        self.looked_at + if in_doubt { LOOK_PAUSE } else { LOOK_EVERY }
    }

    fn wake_at(&self) -> Instant {
        let due = self.watchers.lock().next_due();
        due.map_or(self.look_at(), |due| due.min(self.look_at()))
    }

    /// Takes in news.
    async fn hear(&mut self, batch: &mut Vec<Bytes>) {
        let mut newest = HashMap::new();
        for payload in batch.drain(..) {
            match Envelope::decode(&payload) {
                Ok(Envelope {
                    event: BusEvent::Presence(presence),
                    ..
                }) => {
                    newest.insert(presence.user_id, presence);
                }
                Ok(_) => {}
                Err(error) => {
                    metrics::bus_undecodable_total().increment(1);
                    tracing::debug!(%error, "skipped presence that another version published");
                }
            }
        }
        let said_gone: Vec<UserId> = {
            let table = self.watchers.lock();
            newest.retain(|user, _| table.is_watched(*user));
            let gone = newest.values().filter(|presence| presence.is_offline());
            gone.map(|presence| presence.user_id).collect()
        };
        if !said_gone.is_empty() {
            let found = self.directory.look_up(&said_gone).await;
            for (user, listing) in found.listings {
                if let Some(told) = listing.told(user)
                    && found.complete
                {
                    newest.insert(user, told);
                }
            }
        }
        let mut table = self.watchers.lock();
        let now = Instant::now();
        newest.into_values().for_each(|news| table.learn(news, now));
    }

    /// Looks up all who are watched.
    async fn look(&mut self) {
        self.looked_at = Instant::now();
        self.watchers.0.in_doubt.store(false, Ordering::SeqCst);
        let users = self.watchers.lock().users();
        for chunk in users.chunks(BATCH) {
            self.look_for_blocks(chunk).await;
            let found = self.directory.look_up(chunk).await;
            let mut seen: Vec<BusPresence> = Vec::with_capacity(chunk.len());
            let listed = found.listings.iter();
            seen.extend(listed.filter_map(|(user, listing)| listing.told(*user)));
            if found.complete {
                let online: HashSet<UserId> = seen.iter().map(|seen| seen.user_id).collect();
                let away = |user: &&UserId| !online.contains(*user);
                seen.extend(self.gone(chunk.iter().filter(away)).await);
            }
            let mut table = self.watchers.lock();
            let now = Instant::now();
            for seen in seen {
                table.learn(seen, now);
            }
        }
    }

    /// Reads whom of their watchers these users block: news of it may have been lost, or have come
    /// when a socket was only about to watch.
    async fn look_for_blocks(&self, users: &[UserId]) {
        let read_at = Instant::now();
        let viewers = self.watchers.lock().viewers(users);
        let blocks = self.store.blocks_among(users, &viewers);
        match tokio::time::timeout(STORE_WITHIN, blocks).await {
            Ok(Ok(blocks)) => {
                let blocks = blocks.into_iter().collect();
                self.watchers.lock().hide_by(users, &blocks, read_at);
            }
            Ok(Err(error)) => tracing::debug!(%error, "who blocks whom is looked up later"),
            Err(_) => tracing::debug!("the store is slow; who blocks whom is looked up later"),
        }
    }

    /// Those who are shown as online and are not.
    async fn gone(&self, away: impl Iterator<Item = &UserId>) -> Vec<BusPresence> {
        let gone: Vec<UserId> = {
            let table = self.watchers.lock();
            away.filter(|user| table.is_shown_online(**user))
                .copied()
                .collect()
        };
        if gone.is_empty() {
            return Vec::new();
        }
        let rows = tokio::time::timeout(STORE_WITHIN, self.store.users(&gone)).await;
        let rows = rows.ok().and_then(Result::ok).unwrap_or_default();
        let seen_at: HashMap<UserId, _> = rows
            .into_iter()
            .map(|row| (row.user_id, row.last_seen_at))
            .collect();
        let mut table = self.watchers.lock();
        let count = gone.len();
        let told: Vec<BusPresence> = gone
            .into_iter()
            .map(|user| (user, seen_at.get(&user).copied().flatten()))
            .filter(|(user, at)| table.is_gone(*user, *at))
            .map(|(user, at)| BusPresence::offline(user, at))
            .collect();
        drop(table);
        if told.len() < count {
            self.watchers.look_again();
        }
        told
    }
}
