//! The two connections of a node's bus, and which channels the subscriber is known to hear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashSet;
use fred::prelude::*;
use fred::types::config::Server;
use tokio::sync::{Mutex, broadcast};

use super::canary::Canary;
use super::publisher::{Publisher, Queue};
use super::{CONFIRM_TIMEOUT, SUBSCRIBE_CHUNK};
use crate::bus::{BusDown, Channel, Neighbours, Sink};
use crate::metrics;

/// Redis counts as reachable for so long after it answered: three looks of the probe.
const REACHABLE_FOR: Duration = Duration::from_secs(3);

/// What the tasks of one bus share.
pub(super) struct Link {
    pub(super) subscriber: Client,
    pub(super) publisher: Arc<Publisher>,
    pub(super) queue: Queue,
    pub(super) sink: Sink,
    pub(super) canary: Canary,
    pub(super) neighbours: Arc<Neighbours>,
    /// Channels this node wants to hear. Changed only with `changing` held.
    pub(super) wanted: DashSet<Channel>,
    /// Serialises SUBSCRIBE, UNSUBSCRIBE and resubscription, so that none undoes another's work.
    pub(super) changing: Mutex<Changing>,
    /// The subscriber hears every wanted channel, as far as is known. False from the first doubt
    /// on; only a resubscription makes it true.
    in_step: AtomicBool,
    /// When Redis answered the probe last, in milliseconds since `started`; 0: never.
    answered_ms: AtomicU64,
    started: Instant,
}

/// What a link is made of.
pub(super) struct LinkParts {
    pub(super) subscriber: Client,
    pub(super) publisher: Arc<Publisher>,
    pub(super) queue: Queue,
    pub(super) sink: Sink,
    pub(super) canary: Canary,
    pub(super) neighbours: Arc<Neighbours>,
}

/// The right to change subscriptions, and the means to tell whether it was one connection that
/// heard of a change.
pub(super) struct Changing {
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

impl Link {
    pub(super) fn new(parts: LinkParts) -> Self {
        let changing = Changing {
            made: parts.subscriber.reconnect_rx(),
        };
        let wanted = DashSet::new();
        wanted.insert(parts.canary.channel().clone());
        Self {
            subscriber: parts.subscriber,
            publisher: parts.publisher,
            queue: parts.queue,
            sink: parts.sink,
            canary: parts.canary,
            neighbours: parts.neighbours,
            wanted,
            changing: Mutex::new(changing),
            in_step: AtomicBool::new(false),
            answered_ms: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// Subscribes and waits until Redis has confirmed.
    pub(super) async fn subscribe_confirmed(
        &self,
        changing: &mut Changing,
        channels: &[Channel],
    ) -> Result<(), BusDown> {
        changing.reconnected();
        for chunk in channels.chunks(SUBSCRIBE_CHUNK) {
            let names: Vec<String> = chunk.iter().map(Channel::name).collect();
            let confirmed = async {
                // fred takes a SUBSCRIBE for answered once it is written. The PING behind it is
                // Redis' answer, and is written before anything is read: a refusal then comes to
                // its place, instead of to nobody.
                let pipeline = self.subscriber.pipeline();
                pipeline.subscribe(names).await?;
                pipeline.ping::<()>(None).await?;
                pipeline.last::<Value>().await
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

    /// Unsubscribes from what the subscriber hears. What fails is not asked for on the next
    /// connection.
    pub(super) async fn unsubscribe(&self, channels: &[Channel]) {
        for chunk in channels.chunks(SUBSCRIBE_CHUNK) {
            let names: Vec<String> = chunk.iter().map(Channel::name).collect();
            if let Err(error) = self.subscriber.unsubscribe(names).await {
                tracing::debug!(%error, "unsubscribing failed; the next connection will not ask");
            }
        }
    }

    pub(super) fn is_in_step(&self) -> bool {
        self.in_step.load(Ordering::SeqCst)
    }

    pub(super) fn found(&self) {
        self.in_step.store(true, Ordering::SeqCst);
        metrics::bus_connected().set(1.0);
    }

    pub(super) fn lost(&self) {
        if self.in_step.swap(false, Ordering::SeqCst) {
            metrics::bus_connected().set(0.0);
            tracing::warn!("the bus is down; messages travel through the store until it is back");
        }
    }

    /// Redis answered something.
    pub(super) fn answered(&self) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered_ms.store(since.max(1), Ordering::SeqCst);
    }

    /// Whether Redis answers this node at all.
    pub(super) fn is_reachable(&self) -> bool {
        let answered = self.answered_ms.load(Ordering::SeqCst);
        let since = self
            .started
            .elapsed()
            .saturating_sub(Duration::from_millis(answered));
        self.is_in_step() || (answered > 0 && since <= REACHABLE_FOR)
    }
}
