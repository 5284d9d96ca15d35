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
//! on the same connection came back while the connection's generation stayed the same.

mod publisher;
mod supervisor;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dashmap::DashSet;
use fred::prelude::*;
use fred::types::config::{TcpConfig, UnresponsiveConfig};
use fred::types::{Message, RespVersion};
use tokio::sync::{Mutex, broadcast, mpsc};

use super::{BreakReason, Bus, BusDown, Channel, Ingress, Sink};
use crate::clock::Clock;
use crate::lifecycle::Tasks;
use crate::metrics;

/// Publications that may wait for the publisher: two seconds of a node's best rate. Beyond it they
/// are dropped and repaired from the store.
const PUBLISH_QUEUE: usize = 65_536;
/// fred's default of 32 loses messages in any burst; at 32,768 the drain may pause for a second.
const RECEIVE_QUEUE: usize = 32_768;
/// Channels in one SUBSCRIBE, so that no command holds Redis for long.
const SUBSCRIBE_CHUNK: usize = 1_000;
/// A PING that takes longer means the link is not working.
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
    changing: Mutex<()>,
    /// Counts connections lost and made; a confirmation is good only within one generation.
    generation: AtomicU64,
    /// Connected, subscribed and confirmed.
    up: AtomicBool,
    /// The canary that came back last.
    canary_heard: AtomicU64,
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
        let subscriber = client(&options.url, "subscriber")?;
        let publisher = client(&options.url, "publisher")?;
        let link = Arc::new(Link {
            subscriber,
            publisher,
            sink,
            own_channel: Channel::Node(options.node_id.clone()),
            wanted: DashSet::new(),
            changing: Mutex::new(()),
            generation: AtomicU64::new(0),
            up: AtomicBool::new(false),
            canary_heard: AtomicU64::new(0),
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
        tasks.spawn_vital(
            "bus-publisher",
            publisher::run(link.publisher.clone(), waiting, tasks.clone()),
        );
        link.subscriber.connect();
        link.publisher.connect();
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
        let _changing = self.link.changing.lock().await;
        for channel in channels {
            self.link.wanted.insert(channel.clone());
        }
        if !self.is_up() {
            return Err(BusDown);
        }
        let confirmed = self.link.subscribe_confirmed(channels).await;
        if confirmed.is_err() {
            // Nobody knows what this connection hears: the supervisor subscribes to all anew.
            self.link.lost();
        }
        confirmed
    }

    async fn unsubscribe(&self, channels: &[Channel]) {
        let _changing = self.link.changing.lock().await;
        for channel in channels {
            self.link.wanted.remove(channel);
        }
        if !channels.is_empty() && self.is_up() {
            let names: Vec<String> = channels.iter().map(Channel::name).collect();
            if let Err(error) = self.link.subscriber.unsubscribe(names).await {
                tracing::debug!(%error, "unsubscribing failed; the next connection will not ask");
            }
        }
    }

    fn is_up(&self) -> bool {
        self.link.up.load(Ordering::SeqCst)
    }

    fn subscription_count(&self) -> usize {
        self.link.wanted.len()
    }
}

impl Link {
    /// Subscribes and waits until Redis has confirmed. Call with `changing` held.
    async fn subscribe_confirmed(&self, channels: &[Channel]) -> Result<(), BusDown> {
        let generation = self.generation.load(Ordering::SeqCst);
        for chunk in channels.chunks(SUBSCRIBE_CHUNK) {
            let names: Vec<String> = chunk.iter().map(Channel::name).collect();
            if let Err(error) = self.subscriber.subscribe(names).await {
                tracing::warn!(%error, "subscribing failed");
                return Err(BusDown);
            }
        }
        let pong = self.subscriber.ping::<Value>(None);
        match tokio::time::timeout(CONFIRM_TIMEOUT, pong).await {
            Ok(Ok(_)) if self.generation.load(Ordering::SeqCst) == generation => Ok(()),
            Ok(Ok(_)) => Err(BusDown),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a subscription was not confirmed");
                Err(BusDown)
            }
            Err(_) => Err(BusDown),
        }
    }

    fn lost(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        if self.up.swap(false, Ordering::SeqCst) {
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
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        _ => None,
    }
}

fn client(url: &str, role: &str) -> Result<Client, Error> {
    let mut config = Config::from_url(url)?;
    config.version = RespVersion::RESP3;
    config.fail_fast = false;
    let mut builder = Builder::from_config(config);
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = CONFIRM_TIMEOUT;
        performance.broadcast_channel_capacity = RECEIVE_QUEUE;
    });
    builder.with_connection_config(|connection| {
        connection.connection_timeout = Duration::from_secs(2);
        connection.internal_command_timeout = Duration::from_secs(2);
        // A repeated PUBLISH is harmless but late; a repeated SUBSCRIBE would be confirmed on
        // the wrong connection.
        connection.max_command_attempts = 1;
        connection.unresponsive = UnresponsiveConfig {
            max_timeout: Some(Duration::from_secs(3)),
            interval: Duration::from_millis(500),
        };
        connection.tcp = TcpConfig {
            nodelay: Some(true),
            ..TcpConfig::default()
        };
    });
    builder.set_policy(ReconnectPolicy::new_exponential(0, 50, 1_000, 2));
    let client = builder.build()?;
    tracing::debug!(role, "bus client made");
    Ok(client)
}
