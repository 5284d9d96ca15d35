//! The bus over Redis Pub/Sub: one subscriber connection and one pipelined publisher a node.
//!
//! ```text
//! publish → queue → publisher task → pipeline of PUBLISH
//! Redis → drain task → sink                    (drains only: a slow drain loses news)
//! canary task: a sign of life each second, out through the one and in through the other
//! supervisor task: connect, resubscribe, miss canaries (every doubt ends in a break, see `Ingress`)
//! probe task: does Redis answer, is it the master; sentinels task: where is the master
//! ```
//!
//! fred answers a SUBSCRIBE before it is written and does not resubscribe reliably, so the link
//! keeps its own set of wanted channels and trusts a subscription only once a PING sent behind it
//! came back and no connection was made meanwhile. One rule keeps that simple: a connection is used
//! from its birth to the first doubt, then there is a new one.

mod canary;
pub(crate) mod connection;
mod drain;
mod link;
mod probe;
mod publisher;
pub(crate) mod sentinels;
mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::prelude::*;

use self::canary::Canary;
use self::connection::Renewal;
use self::link::{Link, LinkParts};
use self::sentinels::{Follower, Sentinels};
use super::{Bus, BusDown, Channel, Neighbours, Sink};
use crate::clock::Clock;
use crate::failpoint::{self, Failpoint};
use crate::lifecycle::Tasks;
use crate::metrics::Level;
use crate::sparse;

/// fred's default of 32 loses messages in any burst. It makes nine queues of this size at once, of
/// 0.8 KiB for each place: 6 MiB. The drain may pause for 100 ms at a node's best rate.
const RECEIVE_QUEUE: usize = 8_192;
/// What fred has by default.
const SMALL_RECEIVE_QUEUE: usize = 32;
/// Channels in one SUBSCRIBE, so that no command holds Redis for long.
const SUBSCRIBE_CHUNK: usize = 1_000;
/// A chunk whose PING takes longer means the link is not working.
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
        let room = if failpoint::leaves_out(Failpoint::SmallReceiveQueue) {
            SMALL_RECEIVE_QUEUE
        } else {
            RECEIVE_QUEUE
        };
        let subscriber = connection::client(&options.url, room)?;
        let sentinels = Sentinels::of(&options.url, tasks)?.map(Arc::new);
        let (queue, waiting) = publisher::queue();
        let address = Config::from_url(&options.url)?;
        let (publisher, publishing) = publisher::publisher(address, sentinels.clone(), waiting);
        let renewal = Renewal::of(&subscriber);
        if let Some(sentinels) = sentinels {
            let followers: Vec<Box<dyn Follower>> =
                vec![Box::new(renewal.clone()), Box::new(Arc::clone(&publisher))];
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
        // Receivers are made before the connection, so that its first event is not missed.
        let messages = link.subscriber.message_rx();
        let events = supervisor::Events::of(&link);
        let drain = drain::run(Arc::clone(&link), messages, tasks.clone());
        tasks.spawn_vital("bus-drain", drain);
        let canary = canary::run(Arc::clone(&link), clock, tasks.clone());
        tasks.spawn_vital("bus-canary", canary);
        let probe = probe::run(Arc::clone(&link), renewal.clone(), tasks.clone());
        tasks.spawn_vital("bus-probe", probe);
        let supervisor = supervisor::run(Arc::clone(&link), events, renewal, tasks.clone());
        tasks.spawn_vital("bus-supervisor", supervisor);
        tasks.spawn_late("bus-publisher", publishing.run(tasks.clone()));
        let kept = connection::keep(link.subscriber.clone(), tasks.clone());
        tasks.spawn_vital("bus-link", kept);
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
        let mut changing = self.link.changing.lock().await;
        for channel in channels {
            self.link.wanted.insert(channel.clone());
        }
        if !self.link.is_in_step() {
            // The resubscription to come includes them.
            return Err(BusDown);
        }
        let confirmed = self.link.subscribe_confirmed(&mut changing, channels).await;
        if confirmed.is_err() {
            // Nobody knows what this connection hears: the supervisor makes a new one.
            self.link.lost();
        }
        confirmed
    }

    async fn unsubscribe(&self, channels: &[Channel]) {
        let _changing = self.link.changing.lock().await;
        for channel in channels {
            self.link.wanted.remove(channel);
        }
        sparse::shrink_set(&self.link.wanted);
        if self.link.is_in_step() {
            self.link.unsubscribe(channels).await;
        }
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
        self.link.wanted.len()
    }
}
