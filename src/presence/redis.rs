//! The lists in Redis, over a connection of their own, so that their stalls never delay messages.
//!
//! ```text
//! rookery:v1:nodes                        hash: node → its last sign of life (ms), each second
//! rookery:v1:node:{<node>}:lease          string with a time to live: alive <count>, or left
//! rookery:v1:node:{<node>}:users          hash: user → since, chosen at, chosen status; and for
//!                                         some users: user, `n` → how many sockets
//! rookery:v1:node:{<node>}:burial         string: the survivor that tells of a dead node's users
//! ```
//!
//! `<node>` is the node's id and an incarnation, so that a restarted node of the same id has a list
//! of its own and what it left behind is told of as another's.

mod judge;
mod lease;
mod packed;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use fred::prelude::*;
use rookery_protocol::UserId;
use tokio::sync::{Mutex, mpsc};

use self::judge::Judgement;
use super::{Elsewhere, Listing, Notice, Presence, Roster};
use crate::bus::Neighbours;
use crate::bus::connection::{self, Renewal};
use crate::bus::sentinels::{Follower, Sentinels};
use crate::clock::{self, Clock};
use crate::lifecycle::Tasks;
use crate::metrics;

/// Users in one command, so that none holds Redis for long.
const CHUNK: usize = 1_000;
/// Notices that may wait for the task that tells: one more than a large cluster loses at once. Of
/// those that do not fit the occasion comes again.
const NOTICES: usize = 64;

const NODES: &str = "rookery:v1:nodes";

/// How to reach Redis, and as whom.
#[derive(Clone)]
pub struct RedisPresenceOptions {
    /// `redis://` or `rediss://` of one server, `redis-sentinel://` or `rediss-sentinel://`.
    pub url: String,
    pub node_id: String,
    /// Told which other nodes show life, for the bus.
    pub neighbours: Arc<Neighbours>,
}

/// See the module.
pub struct RedisPresence {
    link: Arc<Link>,
    notices: Mutex<mpsc::Receiver<Notice>>,
}

/// What the port and the task that keeps the lease share.
struct Link {
    client: Client,
    keys: Keys,
    roster: Arc<Roster>,
    clock: Clock,
    /// What is known of the other nodes.
    others: RwLock<Judgement>,
    /// Whether Redis answered the last look: otherwise nobody waits for it.
    answers: AtomicBool,
    /// The one who changes this node's list.
    written: Mutex<Written>,
}

/// What is known of this node's list in Redis.
#[derive(Debug)]
struct Written {
    /// Its fields.
    count: i64,
    /// It has to be written as a whole: it was never, or nobody knows what became of a change.
    stale: bool,
}

/// The names of one node's keys.
struct Keys {
    node: String,
}

impl Keys {
    fn lease(&self) -> String {
        lease_of(&self.node)
    }

    fn users(&self) -> String {
        users_of(&self.node)
    }

    /// Where a whole list is written before it takes the other's place.
    fn draft(&self) -> String {
        format!("rookery:v1:node:{{{}}}:draft", self.node)
    }
}

fn lease_of(node: &str) -> String {
    format!("rookery:v1:node:{{{node}}}:lease")
}

fn users_of(node: &str) -> String {
    format!("rookery:v1:node:{{{node}}}:users")
}

fn burial_of(node: &str) -> String {
    format!("rookery:v1:node:{{{node}}}:burial")
}

impl RedisPresence {
    /// Starts keeping the lease. Redis need not be there.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn start(
        options: &RedisPresenceOptions,
        roster: Arc<Roster>,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let client = connection::client(&options.url)?;
        let node = format!("{}:{}", options.node_id, clock::new_id().as_simple());
        let link = Arc::new(Link {
            client: client.clone(),
            keys: Keys { node },
            roster,
            clock,
            others: RwLock::default(),
            answers: AtomicBool::new(false),
            written: Mutex::new(Written {
                count: 0,
                stale: true,
            }),
        });
        let (notify, notices) = mpsc::channel(NOTICES);
        let renewal = Renewal::of(&client);
        if let Some(sentinels) = Sentinels::of(&options.url, tasks)? {
            let followers: Vec<Box<dyn Follower>> = vec![Box::new(renewal.clone())];
            let follow = Arc::new(sentinels).follow(followers, tasks.clone());
            tasks.spawn_vital("presence-sentinels", follow);
        }
        let keeper = lease::Keeper::new(lease::KeeperParts {
            link: Arc::clone(&link),
            node_id: options.node_id.clone(),
            neighbours: Arc::clone(&options.neighbours),
            notify,
            renewal,
            tasks: tasks.clone(),
        });
        tasks.spawn_vital("presence-lease", keeper.run());
        tasks.spawn_vital("presence-link", connection::keep(client, tasks.clone()));
        Ok(Self {
            link,
            notices: Mutex::new(notices),
        })
    }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn write(&self, changes: &[(UserId, Option<Listing>)]) {
        let mut written = self.link.written.lock().await;
        if written.stale || !self.link.answers() {
            // The list is written as a whole, from the roster, when that is possible.
            written.stale = true;
            return;
        }
        match self.link.change(changes).await {
            Ok(grown) => written.count += grown,
            Err(error) => {
                metrics::presence_writes_failed_total().increment(1);
                tracing::debug!(%error, "presence could not be written; all of it will be");
                written.stale = true;
                self.link.lost();
            }
        }
    }

    async fn elsewhere(&self, users: &[UserId]) -> Elsewhere {
        if users.is_empty() {
            return Elsewhere {
                complete: true,
                ..Elsewhere::default()
            };
        }
        if !self.link.answers() {
            return Elsewhere::default();
        }
        match self.link.look_up(users).await {
            Ok(elsewhere) => elsewhere,
            Err(error) => {
                tracing::debug!(%error, "presence could not be looked up");
                self.link.lost();
                Elsewhere::default()
            }
        }
    }

    async fn sockets_elsewhere(&self, users: &[UserId]) -> HashMap<UserId, usize> {
        if users.is_empty() || !self.link.answers() {
            return HashMap::new();
        }
        match self.link.count_sockets(users).await {
            Ok(counts) => counts,
            Err(error) => {
                tracing::debug!(%error, "sockets on other nodes could not be counted");
                self.link.lost();
                HashMap::new()
            }
        }
    }

    fn is_reachable(&self) -> bool {
        self.link.answers()
    }

    async fn notice(&self) -> Notice {
        match self.notices.lock().await.recv().await {
            Some(notice) => notice,
            // The lease is not kept any more: the node stops.
            None => std::future::pending().await,
        }
    }

    async fn bury(&self, node: &str) {
        let buried = async {
            let pipeline = self.link.client.pipeline();
            pipeline
                .del::<(), _>(vec![users_of(node), lease_of(node)])
                .await?;
            pipeline.hdel::<(), _, _>(NODES, node).await?;
            pipeline.all::<Vec<Value>>().await
        };
        if let Err(error) = buried.await {
            tracing::debug!(%error, node, "a dead node could not be removed; somebody will");
        }
    }
}

impl Link {
    fn answers(&self) -> bool {
        self.answers.load(Ordering::SeqCst) && self.client.is_connected()
    }

    fn lost(&self) {
        self.answers.store(false, Ordering::SeqCst);
    }

    /// Writes changes of this node's list; returns by how many fields it has grown.
    async fn change(&self, changes: &[(UserId, Option<Listing>)]) -> Result<i64, Error> {
        let users = self.keys.users();
        let listed: Vec<_> = changes.iter().flat_map(packed::fields).collect();
        let gone = changes.iter().filter(|(_, listing)| listing.is_none());
        let keys = |(user, _): &(UserId, _)| [packed::key(*user), packed::sockets_key(*user)];
        let gone: Vec<Key> = gone.flat_map(keys).collect();
        let pipeline = self.client.pipeline();
        for chunk in listed.chunks(CHUNK) {
            pipeline.hset::<(), _, _>(&users, chunk.to_vec()).await?;
        }
        let additions = listed.len().div_ceil(CHUNK);
        for chunk in gone.chunks(CHUNK) {
            pipeline.hdel::<(), _, _>(&users, chunk.to_vec()).await?;
        }
        if listed.is_empty() && gone.is_empty() {
            return Ok(0);
        }
        let counts: Vec<i64> = pipeline.all().await?;
        let (added, removed) = counts.split_at(additions.min(counts.len()));
        Ok(added.iter().sum::<i64>() - removed.iter().sum::<i64>())
    }

    /// Asks the lists of all live nodes, all at once.
    async fn look_up(&self, users: &[UserId]) -> Result<Elsewhere, Error> {
        let (live, dead) = {
            let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
            (others.live.clone(), others.dead.clone())
        };
        let mut elsewhere = Elsewhere {
            complete: true,
            ..Elsewhere::default()
        };
        let listed = self.ask(live.iter(), users, &mut elsewhere, true).await?;
        // Nodes that started since the last look count as soon as they have a lease.
        let is_new = |node: &&String| {
            !live.contains(*node) && !dead.contains(*node) && **node != self.keys.node
        };
        let mut new = listed.iter().filter(is_new).peekable();
        if new.peek().is_some() {
            self.ask(new, users, &mut elsewhere, false).await?;
        }
        Ok(elsewhere)
    }

    /// Adds what these nodes list of `users`; returns the names of all nodes. A live node without a
    /// lease makes the answer incomplete: its list was lost, or it is about to be judged.
    async fn ask(
        &self,
        nodes: impl Iterator<Item = &String> + Clone,
        users: &[UserId],
        elsewhere: &mut Elsewhere,
        are_live: bool,
    ) -> Result<Vec<String>, Error> {
        let keys: Vec<Key> = users.iter().map(|user| packed::key(*user)).collect();
        let pipeline = self.client.pipeline();
        pipeline.hkeys::<(), _>(NODES).await?;
        for node in nodes.clone() {
            pipeline.exists::<(), _>(lease_of(node)).await?;
            for chunk in keys.chunks(CHUNK) {
                pipeline
                    .hmget::<(), _, _>(users_of(node), chunk.to_vec())
                    .await?;
            }
        }
        let mut answers = pipeline.all::<Vec<Value>>().await?.into_iter();
        let listed = answers.next().map(Value::convert).transpose()?;
        for _ in nodes {
            let has_lease = answers.next().and_then(|value| value.as_i64()) == Some(1);
            elsewhere.complete &= has_lease || !are_live;
            for chunk in users.chunks(CHUNK) {
                let found = answers.next().map(Value::into_array).unwrap_or_default();
                let found = chunk.iter().zip(found).filter(|_| has_lease || are_live);
                for (user, value) in found {
                    if let Some(there) = packed::listing(&value) {
                        let known = elsewhere.listings.get(user);
                        let both = known.map_or(there, |known| known.and(there));
                        elsewhere.listings.insert(*user, both);
                    }
                }
            }
        }
        Ok(listed.unwrap_or_default())
    }

    /// How many sockets the lists of live nodes say these users have.
    async fn count_sockets(&self, users: &[UserId]) -> Result<HashMap<UserId, usize>, Error> {
        let live = {
            let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
            others.live.clone()
        };
        if live.is_empty() {
            return Ok(HashMap::new());
        }
        let keys = |user: &UserId| [packed::key(*user), packed::sockets_key(*user)];
        let pipeline = self.client.pipeline();
        for node in &live {
            for chunk in users.chunks(CHUNK / 2) {
                let keys: Vec<Key> = chunk.iter().flat_map(keys).collect();
                pipeline.hmget::<(), _, _>(users_of(node), keys).await?;
            }
        }
        let mut answers = pipeline.all::<Vec<Value>>().await?.into_iter();
        let mut counts = HashMap::new();
        for _ in &live {
            for chunk in users.chunks(CHUNK / 2) {
                let found = answers.next().map(Value::into_array).unwrap_or_default();
                for (user, pair) in chunk.iter().zip(found.chunks(2)) {
                    if let [listing, sockets] = pair
                        && !listing.is_null()
                    {
                        *counts.entry(*user).or_default() += packed::sockets(sockets);
                    }
                }
            }
        }
        Ok(counts)
    }

    /// The list of another node.
    async fn list_of(&self, node: &str) -> Result<Vec<(UserId, Listing)>, Error> {
        let list: HashMap<Key, Value> =
            match self.client.hgetall::<Value, _>(users_of(node)).await? {
                Value::Map(map) => map.inner(),
                _ => HashMap::new(),
            };
        let pair =
            |(key, value): (Key, Value)| Some((packed::user(&key)?, packed::listing(&value)?));
        Ok(list.into_iter().filter_map(pair).collect())
    }
}
