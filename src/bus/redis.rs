//! The bus over Redis Pub/Sub: one subscriber connection and one pipelined publisher a node.
//!
//! ```text
//! publish → queue → publisher task → pipeline of PUBLISH
//! Redis → subscriber task → sink               (where the sink is slow, Redis waits, and then hangs up)
//! canary task: a sign of life each second, out through the one and in through the other
//! supervisor task: miss canaries (every doubt ends in a break, see `Ingress`), listen to neighbours
//! probe task: does Redis answer, is it the master; sentinels task: where is the master
//! ```
//!
//! One rule keeps that simple: a connection is used from its birth to the first doubt, then there is
//! a new one. `socket.rs` is how one is made, `wire.rs` what is said on it.

mod canary;
pub(crate) mod connection;
mod link;
mod probe;
mod publisher;
pub(crate) mod sentinels;
mod socket;
mod subscriber;
mod supervisor;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::prelude::*;

use self::canary::Canary;
use self::link::{Link, LinkParts};
use self::sentinels::{Follower, Sentinels};
use self::socket::Address;
use super::{Bus, BusDown, Channel, Neighbours, Sink};
use crate::clock::Clock;
use crate::lifecycle::Tasks;
use crate::metrics::Level;

/// An answer that takes longer means the link is not working.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// How to reach Redis, and as whom.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://` or `rediss://` of one server, `redis-sentinel://` or `rediss-sentinel://`.
    pub url: String,
    /// This node; names its canary's channel.
    pub node_id: String,
    /// What presence knows of the other nodes.
    pub neighbours: Arc<Neighbours>,
}

/// See the module.
pub struct RedisBus {
    link: Arc<Link>,
}

impl RedisBus {
    /// Starts the bus. Redis need not be there: the bus is down until it is.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn start(
        options: &RedisOptions,
        sink: Sink,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let sentinels = Sentinels::of(&options.url, tasks)?.map(Arc::new);
        let address = Address {
            config: Config::from_url(&options.url)?,
            sentinels: sentinels.clone(),
        };
        let (queue, waiting) = publisher::queue();
        let (publisher, publishing) = publisher::publisher(address.clone(), waiting);
        let (subscriber, orders) = subscriber::subscriber();
        if let Some(sentinels) = sentinels {
            let followers: Vec<Box<dyn Follower>> = vec![
                Box::new(Arc::clone(&subscriber)),
                Box::new(Arc::clone(&publisher)),
            ];
            tasks.spawn_vital("bus-sentinels", sentinels.follow(followers, tasks.clone()));
        }
        let link = Arc::new(Link::new(LinkParts {
            subscriber,
            publisher,
            queue,
            sink,
            canary: Canary::of(&options.node_id),
            neighbours: Arc::clone(&options.neighbours),
        }));
        let hearing = subscriber::Task::new(Arc::clone(&link), address, orders);
        tasks.spawn_vital("bus-subscriber", hearing.run(tasks.clone()));
        let canary = canary::run(Arc::clone(&link), clock, tasks.clone());
        tasks.spawn_vital("bus-canary", canary);
        let probe = probe::run(Arc::clone(&link), tasks.clone());
        tasks.spawn_vital("bus-probe", probe);
        let supervisor = supervisor::run(Arc::clone(&link), tasks.clone());
        tasks.spawn_vital("bus-supervisor", supervisor);
        tasks.spawn_late("bus-publisher", publishing.run(tasks.clone()));
        Ok(Self { link })
    }
}

#[async_trait]
impl Bus for RedisBus {
    fn publish(&self, channel: Channel, payload: Bytes) {
        self.link.queue.push(channel, payload);
    }

    fn unpublished(&self, count: usize) {
        self.link.queue.note_unpublished(count);
    }

    async fn subscribe(&self, channels: &[Channel]) -> Result<(), BusDown> {
        self.link.subscriber.subscribe(channels.to_vec()).await
    }

    async fn unsubscribe(&self, channels: &[Channel]) {
        self.link.subscriber.unsubscribe(channels.to_vec()).await;
    }

    fn is_up(&self) -> bool {
        self.link.is_in_step() && self.link.publisher.is_connected()
    }

    fn is_in_step(&self) -> bool {
        self.link.is_in_step()
    }

    fn is_reachable(&self) -> bool {
        self.link.is_reachable()
    }

    fn is_busy(&self) -> bool {
        self.link.queue.is_busy()
    }

    fn waiting(&self) -> Option<(Level, Level)> {
        Some(self.link.queue.levels())
    }

    fn subscription_count(&self) -> usize {
        self.link.subscriber.wanted()
    }
}
