//! The bus over Redis Pub/Sub: one subscriber connection and one pipelined publisher a node.
//!
//! ```text
//! publish → queue → publisher task → pipeline of PUBLISH
//! Redis → drain task → sink                    (drains only: a slow drain loses news)
//! supervisor task: connect, resubscribe, canary (every doubt ends in a break, see `Ingress`)
//! ```
//!
//! fred answers a SUBSCRIBE before it is written and does not resubscribe reliably, so this file
//! keeps its own set of wanted channels and trusts a subscription only once a PING sent behind it
//! came back and no connection was made meanwhile. One rule keeps that simple: a connection is used
//! from its birth to the first doubt, then there is a new one.

pub(crate) mod connection;
mod publisher;
mod supervisor;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use dashmap::DashSet;
use fred::prelude::*;
use fred::types::Message;
use fred::types::config::Server;
use tokio::sync::{Mutex, broadcast, mpsc};

use super::{BreakReason, Bus, BusDown, Channel, Ingress, Sink};
use crate::clock::Clock;
use crate::lifecycle::Tasks;
use crate::metrics;

/// Publications that may wait for the publisher: two seconds of a node's best rate. Beyond it they
/// are dropped and repaired from the store.
const PUBLISH_QUEUE: usize = 65_536;
/// fred's default of 32 loses messages in any burst. It makes nine queues of this size at once, of
/// 0.8 KiB for each place: 6 MiB. The drain may pause for 100 ms at a node's best rate.
const RECEIVE_QUEUE: usize = 8_192;
/// Nothing is received here but the publisher's own errors.
const PUBLISHER_EVENTS: usize = 32;
/// Channels in one SUBSCRIBE, so that no command holds Redis for long.
const SUBSCRIBE_CHUNK: usize = 1_000;
/// A chunk whose PING takes longer means the link is not working.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// How to reach Redis, and as whom.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://` or `rediss://`.
    pub url: String,
    /// This node; names its canary's channel.
    pub node_id: String,
}

/// See the module.
pub struct RedisBus {
    link: Arc<Link>,
    queue: mpsc::Sender<(Channel, Bytes)>,
}

/// What the tasks of one bus share.
struct Link {
    subscriber: Client,
    publisher: Client,
    sink: Sink,
    own_channel: Channel,
    /// Channels this node wants to hear. Changed only with `changing` held.
    wanted: DashSet<Channel>,
    /// Serialises SUBSCRIBE, UNSUBSCRIBE and resubscription, so that none undoes another's work.
    changing: Mutex<Changing>,
    /// The subscriber hears every wanted channel, as far as is known. False from the first doubt
    /// on; only a resubscription makes it true.
    in_step: AtomicBool,
    /// When the canary came back last, in milliseconds since `started`.
    canary_heard_ms: AtomicU64,
    started: Instant,
}

/// The right to change subscriptions, and the means to tell whether it was one connection that
/// heard of a change.
struct Changing {
    /// fred announces a connection here before it writes the first command to it.
    made: broadcast::Receiver<Server>,
}

impl Changing {
    /// Whether connections were made since the last call.
    fn reconnected(&mut self) -> bool {
        let mut any = false;
        loop {
            match self.made.try_recv() {
                Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => any = true,
                Err(_) => return any,
            }
        }
    }
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
        let subscriber = connection::client(&options.url, RECEIVE_QUEUE)?;
        let publisher = connection::client(&options.url, PUBLISHER_EVENTS)?;
        let changing = Changing {
            made: subscriber.reconnect_rx(),
        };
        let link = Arc::new(Link {
            subscriber,
            publisher,
            sink,
            own_channel: Channel::Node(options.node_id.clone()),
            wanted: DashSet::new(),
            changing: Mutex::new(changing),
            in_step: AtomicBool::new(false),
            canary_heard_ms: AtomicU64::new(0),
            started: Instant::now(),
        });
        link.wanted.insert(link.own_channel.clone());
        let (queue, waiting) = mpsc::channel(PUBLISH_QUEUE);
        // Receivers are made before the connection, so that its first event is not missed.
        let messages = link.subscriber.message_rx();
        tasks.spawn_vital(
            "bus-drain",
            drain(Arc::clone(&link), messages, tasks.clone()),
        );
        let events = supervisor::Events::of(&link.subscriber);
        let watch = supervisor::run(
            Arc::clone(&link),
            events,
            queue.clone(),
            clock,
            tasks.clone(),
        );
        tasks.spawn_vital("bus-supervisor", watch);
        tasks.spawn_late(
            "bus-publisher",
            publisher::run(link.publisher.clone(), waiting, tasks.clone()),
        );
        for client in [&link.subscriber, &link.publisher] {
            tasks.spawn_vital("bus-link", connection::keep(client.clone(), tasks.clone()));
        }
        Ok(Self { link, queue })
    }
}

#[async_trait]
impl Bus for RedisBus {
    fn publish(&self, channel: Channel, payload: Bytes) {
        if self.queue.try_send((channel, payload)).is_err() {
            metrics::bus_publish_dropped_total().increment(1);
        }
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
        if !self.link.is_in_step() {
            return;
        }
        for chunk in channels.chunks(SUBSCRIBE_CHUNK) {
            let names: Vec<String> = chunk.iter().map(Channel::name).collect();
            if let Err(error) = self.link.subscriber.unsubscribe(names).await {
                tracing::debug!(%error, "unsubscribing failed; the next connection will not ask");
            }
        }
    }

    fn is_up(&self) -> bool {
        self.link.is_in_step() && self.link.publisher.is_connected()
    }

    fn is_busy(&self) -> bool {
        self.queue.capacity() < PUBLISH_QUEUE / 2
    }

    fn subscription_count(&self) -> usize {
        self.link.wanted.len()
    }
}

impl Link {
    /// Subscribes and waits until Redis has confirmed.
    async fn subscribe_confirmed(
        &self,
        changing: &mut Changing,
        channels: &[Channel],
    ) -> Result<(), BusDown> {
        changing.reconnected();
        for chunk in channels.chunks(SUBSCRIBE_CHUNK) {
            let names: Vec<String> = chunk.iter().map(Channel::name).collect();
            let confirmed = async {
                // Answered by fred, not by Redis; the PING behind it is Redis' answer.
                self.subscriber.subscribe(names).await?;
                self.subscriber.ping::<Value>(None).await
            };
            match tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a subscription was not confirmed");
                    return Err(BusDown);
                }
                Err(_) => {
                    tracing::warn!("Redis does not confirm a subscription");
                    return Err(BusDown);
                }
            }
        }
        if changing.reconnected() {
            return Err(BusDown);
        }
        Ok(())
    }

    fn is_in_step(&self) -> bool {
        self.in_step.load(Ordering::SeqCst)
    }

    fn lost(&self) {
        if self.in_step.swap(false, Ordering::SeqCst) {
            metrics::bus_connected().set(0.0);
            tracing::warn!("the bus is down; messages travel through the store until it is back");
        }
    }
}

/// Takes what Redis pushes and hands it on. Does nothing else: nothing here may wait.
async fn drain(link: Arc<Link>, mut messages: broadcast::Receiver<Message>, tasks: Tasks) {
    loop {
        let received = tokio::select! {
            received = messages.recv() => received,
            () = tasks.stopping().cancelled() => return,
        };
        match received {
            Ok(message) => {
                metrics::bus_received_total().increment(1);
                let Some(channel) = Channel::parse(&message.channel) else {
                    continue;
                };
                let Some(payload) = bytes_of(message.value) else {
                    continue;
                };
                if channel == link.own_channel {
                    supervisor::canary_heard(&link, &payload);
                } else {
                    (link.sink)(Ingress::Message { channel, payload });
                }
            }
            Err(broadcast::error::RecvError::Lagged(count)) => {
                tracing::warn!(count, "the bus overran its queue");
                (link.sink)(Ingress::Break(BreakReason::Lagged));
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn bytes_of(value: Value) -> Option<Bytes> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        // What happens to be UTF-8 comes as text.
        Value::String(text) => Some(text.into_inner()),
        _ => None,
    }
}
