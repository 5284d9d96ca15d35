//! The bus of a single node: what is published arrives at once, on the same road as over Redis.

use async_trait::async_trait;
use bytes::Bytes;
use dashmap::DashSet;

use super::{BreakReason, Bus, BusDown, Channel, Ingress, Sink};
use crate::metrics;
use crate::sparse;

/// Hands publications straight to this node's sink, if it subscribed to their channel.
pub struct MemoryBus {
    wanted: DashSet<Channel>,
    sink: Sink,
}

impl MemoryBus {
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        Self {
            wanted: DashSet::new(),
            sink,
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn publish(&self, channel: Channel, payload: Bytes) {
        metrics::bus_published_total().increment(1);
        if self.wanted.contains(&channel) {
            metrics::bus_received_total().increment(1);
            (self.sink)(Ingress::Message { channel, payload });
        }
    }

    fn unpublished(&self, count: usize) {
        let dropped = metrics::bus_publish_dropped_total();
        dropped.failed.increment(count as u64);
        (self.sink)(Ingress::Break(BreakReason::Unpublished));
    }

    async fn subscribe(&self, channels: &[Channel]) -> Result<(), BusDown> {
        for channel in channels {
            self.wanted.insert(channel.clone());
        }
        Ok(())
    }

    async fn unsubscribe(&self, channels: &[Channel]) {
        for channel in channels {
            self.wanted.remove(channel);
        }
        sparse::shrink_set(&self.wanted);
    }

    fn is_up(&self) -> bool {
        true
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn subscription_count(&self) -> usize {
        self.wanted.len()
    }
}
