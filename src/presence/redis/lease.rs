//! Keeps this node's lease, watches those of the others, and mends what Redis lost.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fred::prelude::*;
use rookery_protocol::Timestamp;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::judge::{self, Judge, Judgement};
use super::{CHUNK, Link, NODES, burial_of, lease_of, packed};
use crate::bus::Neighbours;
use crate::bus::connection::Renewal;
use crate::lifecycle::Tasks;
use crate::metrics;
use crate::presence::{Death, Notice};

/// How often the leases of the others are looked at; a dead one is noticed that much later.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Three renewals may fail before the lease is dead.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How long a stopping node's lease says that it left: long enough for every survivor to see.
const LEFT_TTL_SECONDS: i64 = 30;
/// How long a survivor has to tell of a dead node's users before another one does.
const BURIAL_TTL_SECONDS: i64 = 10;
/// A connection that answers nothing for so long, of which fred has nothing to say, will not mend.
/// A command that gets no answer takes that long.
const DOUBT: Duration = Duration::from_secs(2);
/// How Redis refuses a write because it is a replica.
const READ_ONLY: &str = "READONLY";
/// A stopping node does not wait longer for its last word.
const FAREWELL: Duration = Duration::from_secs(1);

/// All nodes that are listed, with their leases and their last signs of life.
type Listed = HashMap<String, (Option<String>, Timestamp)>;

/// See the module.
pub(super) struct Keeper {
    parts: KeeperParts,
    link: Arc<Link>,
    tasks: Tasks,
    judge: Judge,
    renewed_at: Option<Instant>,
    renewals: u64,
    answered_at: Instant,
    /// Whether this node's list was there before.
    was_listed: bool,
    /// The signs of life seen at the last look.
    signs: HashMap<String, Timestamp>,
}

/// What the lease is kept with.
pub(super) struct KeeperParts {
    pub(super) link: Arc<Link>,
    pub(super) node_id: String,
    pub(super) neighbours: Arc<Neighbours>,
    pub(super) notify: mpsc::Sender<Notice>,
    pub(super) renewal: Renewal,
    pub(super) tasks: Tasks,
}

impl Keeper {
    pub(super) fn new(parts: KeeperParts) -> Self {
        Self {
            link: Arc::clone(&parts.link),
            tasks: parts.tasks.clone(),
            parts,
            judge: Judge::default(),
            renewed_at: None,
            renewals: 0,
            answered_at: Instant::now(),
            was_listed: false,
            signs: HashMap::new(),
        }
    }

    /// Runs until the node stops, and says so then.
    pub(super) async fn run(mut self) {
        let stopping = self.tasks.stopping().clone();
        let mut connected = self.link.client.reconnect_rx();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                // Perhaps another Redis, or the same without its memory.
                _ = connected.recv() => self.renewed_at = None,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.tick() => {}
            }
        }
        if self.link.client.is_connected() {
            // If Redis does not hear it, the lease runs out by itself.
            tokio::time::timeout(FAREWELL, self.link.leave()).await.ok();
        }
    }

    async fn tick(&mut self) {
        if !self.link.client.is_connected() {
            self.link.lost();
            return;
        }
        match self.keep_and_look().await {
            Ok(()) => self.answered_at = Instant::now(),
            Err(error) => {
                tracing::debug!(%error, "presence: Redis does not answer");
                self.link.lost();
                let is_replica = error.details().starts_with(READ_ONLY);
                if is_replica || self.answered_at.elapsed() > DOUBT {
                    self.answered_at = Instant::now();
                    self.parts.renewal.begin(&self.tasks);
                }
            }
        }
    }

    async fn keep_and_look(&mut self) -> Result<(), Error> {
        self.keep().await?;
        let listed = self.link.leases().await?;
        self.show_neighbours(&listed);
        let own = &self.link.keys.node;
        let leases = listed
            .iter()
            .filter(|(node, _)| *node != own)
            .map(|(node, (lease, _))| (node.clone(), lease.clone()))
            .collect();
        let judgement = self.judge.look(Instant::now(), &leases);
        metrics::presence_nodes().set(judgement.live.len() as f64 + 1.0);
        let answered = self.link.answers.swap(true, Ordering::SeqCst);
        let dead = judgement.dead.clone();
        if self.replace_others(judgement) || !answered {
            self.tell(Notice::Changed);
        }
        for node in dead {
            let seen_at = listed.get(&node).map(|(_, seen_at)| *seen_at);
            self.undertake(node, seen_at.unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// Tells the bus which other nodes hold a lease, and which of them showed life since the last
    /// look.
    fn show_neighbours(&mut self, listed: &Listed) {
        let mut nodes: HashMap<String, bool> = HashMap::new();
        for (node, (lease, sign)) in listed {
            // An older incarnation of this node's id is none of its neighbours.
            let id = node.rsplit_once(':').map_or(node.as_str(), |(id, _)| id);
            let serves = lease.as_deref().is_some_and(judge::is_serving);
            if serves && id != self.parts.node_id {
                let showed_life = self.signs.get(node).is_some_and(|before| before != sign);
                *nodes.entry(id.to_owned()).or_default() |= showed_life;
            }
        }
        self.parts.neighbours.seen(Instant::now(), &nodes);
        let signs = listed.iter().map(|(node, (_, sign))| (node.clone(), *sign));
        self.signs = signs.collect();
    }

    /// Sees to it that this node's lease and list are there.
    async fn keep(&mut self) -> Result<(), Error> {
        let link = Arc::clone(&self.link);
        let mut written = link.written.lock().await;
        let is_due = self.renewed_at.is_none_or(|at| at.elapsed() >= RENEW_EVERY);
        if !is_due && !written.stale {
            return Ok(());
        }
        self.renewals += 1;
        if !written.stale {
            let count = link.renew(self.renewals).await;
            count
                .as_ref()
                .inspect_err(|_| metrics::presence_lease_total().failed.increment(1))
                .ok();
            if count? == Some(written.count) {
                metrics::presence_lease_total().renewed.increment(1);
                self.renewed_at = Some(Instant::now());
                return Ok(());
            }
            written.stale = true;
        }
        written.count = link.rewrite(self.renewals).await.inspect_err(|_| {
            metrics::presence_lease_total().failed.increment(1);
        })?;
        written.stale = false;
        drop(written);
        metrics::presence_lease_total().rewritten.increment(1);
        self.renewed_at = Some(Instant::now());
        if self.was_listed {
            tracing::info!("this node's presence was lost and is written again");
            self.tell(Notice::Relisted);
        }
        self.was_listed = true;
        Ok(())
    }

    /// Whether nodes came or went.
    fn replace_others(&self, judgement: Judgement) -> bool {
        let others = self.link.others.write();
        let mut others = others.unwrap_or_else(PoisonError::into_inner);
        let changed = others.live != judgement.live;
        *others = judgement;
        changed
    }

    /// Has this node tell of a dead one's users, unless another survivor does.
    async fn undertake(&self, node: String, seen_at: Timestamp) -> Result<(), Error> {
        let client = &self.link.client;
        let claimed: Option<String> = client
            .set(
                burial_of(&node),
                self.link.keys.node.as_str(),
                Some(Expiration::EX(BURIAL_TTL_SECONDS)),
                Some(SetOptions::NX),
                false,
            )
            .await?;
        if claimed.is_none() {
            return Ok(());
        }
        let users = self.link.list_of(&node).await?;
        tracing::info!(node, users = users.len(), "a node is gone");
        self.tell(Notice::Died(Death {
            node,
            seen_at,
            users,
        }));
        Ok(())
    }

    fn tell(&self, notice: Notice) {
        if self.parts.notify.try_send(notice).is_err() {
            tracing::debug!("a notice of presence did not fit; it comes again");
        }
    }
}

impl Link {
    /// Shows this node's sign of life and looks at all nodes that are listed, with their leases and
    /// their last signs.
    async fn leases(&self) -> Result<Listed, Error> {
        let pipeline = self.client.pipeline();
        pipeline
            .hset::<(), _, _>(NODES, self.sign_of_life())
            .await?;
        pipeline.hgetall::<(), _>(NODES).await?;
        let (_, nodes): (i64, HashMap<String, i64>) = pipeline.all().await?;
        let pipeline = self.client.pipeline();
        for node in nodes.keys() {
            pipeline.get::<(), _>(lease_of(node)).await?;
        }
        let leases: Vec<Option<String>> = pipeline.all().await?;
        let pairs = nodes.into_iter().zip(leases);
        let pair = |((node, at), lease)| (node, (lease, Timestamp::from_millis(at)));
        Ok(pairs.map(pair).collect())
    }

    /// Renews the lease if it is still there; returns how many fields the list has then.
    async fn renew(&self, count: u64) -> Result<Option<i64>, Error> {
        let pipeline = self.client.pipeline();
        let keep = Some(SetOptions::XX);
        let lease = judge::alive(count);
        pipeline
            .set::<(), _, _>(self.keys.lease(), lease, lease_ttl(), keep, false)
            .await?;
        pipeline
            .hset::<(), _, _>(NODES, self.sign_of_life())
            .await?;
        pipeline.hlen::<(), _>(self.keys.users()).await?;
        let answers: Vec<Value> = pipeline.all().await?;
        let renewed = answers.first().is_some_and(|answer| !answer.is_null());
        Ok(answers.last().and_then(Value::as_i64).filter(|_| renewed))
    }

    /// Writes the list as a whole and then the lease; returns how many fields it has.
    async fn rewrite(&self, count: u64) -> Result<i64, Error> {
        let (users, draft) = (self.keys.users(), self.keys.draft());
        let listings = self.roster.listings();
        let mut written = 0;
        let pipeline = self.client.pipeline();
        pipeline
            .hset::<(), _, _>(NODES, self.sign_of_life())
            .await?;
        pipeline.del::<(), _>(&draft).await?;
        for chunk in listings.chunks(CHUNK) {
            let fields = chunk.iter().map(|(user, listing)| (*user, Some(*listing)));
            let fields: Vec<_> = fields.flat_map(|field| packed::fields(&field)).collect();
            written += fields.len();
            pipeline.hset::<(), _, _>(&draft, fields).await?;
        }
        if listings.is_empty() {
            pipeline.del::<(), _>(&users).await?;
        } else {
            pipeline.rename::<(), _, _>(&draft, &users).await?;
        }
        // The lease last: whoever sees it may trust the list.
        let lease = judge::alive(count);
        pipeline
            .set::<(), _, _>(self.keys.lease(), lease, lease_ttl(), None, false)
            .await?;
        pipeline.all::<Vec<Value>>().await?;
        Ok(i64::try_from(written).unwrap_or(i64::MAX))
    }

    /// Gives the lease up. The users who are still listed have a moment to come back elsewhere.
    async fn leave(&self) -> Result<(), Error> {
        let pipeline = self.client.pipeline();
        let ttl = Some(Expiration::EX(LEFT_TTL_SECONDS));
        pipeline
            .set::<(), _, _>(self.keys.lease(), judge::left(), ttl, None, false)
            .await?;
        pipeline
            .hset::<(), _, _>(NODES, self.sign_of_life())
            .await?;
        pipeline.all::<Vec<Value>>().await.map(drop)
    }

    fn sign_of_life(&self) -> (&str, i64) {
        (&self.keys.node, self.clock.now().as_millis())
    }
}

fn lease_ttl() -> Option<Expiration> {
    let millis = i64::try_from(judge::LEASE_TTL.as_millis()).unwrap_or(i64::MAX);
    Some(Expiration::PX(millis))
}
