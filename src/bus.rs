//! Stage 5: news. Tells other nodes, and this one, what the store has committed.
//!
//! In: a channel and an encoded [`Envelope`]. Out: [`Ingress`] on every node that subscribed. The
//! bus promises speed, not delivery: anything may be lost, doubled or late, and `delivery` repairs
//! it from the store. What it must never do is wait: publishing is a push into a bounded queue.
//!
//! There is one road. The sender's other devices and neighbours on the same node are reached over
//! the bus too, and [`MemoryBus`] takes the same road as [`RedisBus`].

mod channel;
mod envelope;
mod memory;
mod neighbours;
mod redis;
mod subscriptions;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::metrics::Level;

pub use channel::Channel;
pub use envelope::{
    BusEvent, BusPresence, BusReceipt, BusSocket, Envelope, EnvelopeError, OwnRead, VERSION,
};
pub use memory::MemoryBus;
pub use neighbours::Neighbours;
pub use redis::{RedisBus, RedisOptions};
pub(crate) use redis::{connection, sentinels};
pub use subscriptions::{Joined, Subscriptions};

/// What arrives from the bus.
#[derive(Clone, Debug)]
pub enum Ingress {
    Message {
        channel: Channel,
        payload: Bytes,
    },
    /// Something may have been lost: reconcile at once.
    Break(BreakReason),
}

/// Why news may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakReason {
    /// The connection was lost, or given up, and came back.
    Reconnected,
    /// The subscriber's connection was closed by a Redis that went on: so it does with one that is
    /// too far behind (`client-output-buffer-limit pubsub`).
    CutOff,
    /// A worker's queue overflowed.
    Overflow,
    /// This node's own sign of life did not come back.
    Canary,
    /// A neighbour's did not come, though the neighbour lives.
    Neighbour,
    /// This process stood still, and whoever sends to it may have given up meanwhile.
    Standstill,
    /// Publications of this node were dropped: its own sockets lack them too.
    Unpublished,
    /// Something arrived that this version cannot read.
    Undecodable,
}

/// Takes what arrives. Called by the one task that drains a connection, so it must not block: it
/// puts the item into a queue or counts it as lost.
pub type Sink = Arc<dyn Fn(Ingress) + Send + Sync>;

/// The bus is not connected; it subscribes by itself when it is back, then reports a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bus is down")]
pub struct BusDown;

/// Publish and subscribe, at most once.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Queues a publication. Never waits; what does not fit is dropped and counted. Publications
    /// of one caller to one channel leave in their order.
    fn publish(&self, channel: Channel, payload: Bytes);

    /// So many pieces of news could not be published at all: counted, and this node looks at once
    /// for what its own sockets lack.
    fn unpublished(&self, count: usize);

    /// Subscribes; resolves once the other side has confirmed, so that whatever is published from
    /// now on arrives (unless it is lost). The channels stay wanted even if this fails: a bus that
    /// comes back subscribes to them before it reports [`BreakReason::Reconnected`].
    ///
    /// # Errors
    /// The bus is down.
    async fn subscribe(&self, channels: &[Channel]) -> Result<(), BusDown>;

    /// Unsubscribes. Messages may still arrive for a moment.
    async fn unsubscribe(&self, channels: &[Channel]);

    /// Whether publications are likely to arrive right now.
    fn is_up(&self) -> bool;

    /// Whether this node hears all it wants to, as far as is known.
    fn is_in_step(&self) -> bool {
        self.is_up()
    }

    /// Whether what carries the bus answers this node at all. If so and the node is not in step,
    /// others are better off.
    fn is_reachable(&self) -> bool {
        self.is_up()
    }

    /// Whether so much waits to be published that what may be left out should be.
    fn is_busy(&self) -> bool;

    /// How many publications wait, and their bytes; `None` if none ever waits.
    fn waiting(&self) -> Option<(Level, Level)> {
        None
    }

    /// Channels this node wants to hear.
    fn subscription_count(&self) -> usize;
}
