//! Takes what Redis pushes and hands it on. Does nothing else: while it waits, fred's queue fills.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fred::prelude::*;
use fred::types::Message;
use tokio::sync::broadcast;

use super::link::Link;
use crate::bus::{BreakReason, Channel, Ingress};
use crate::failpoint::{self, Failpoint};
use crate::lifecycle::Tasks;
use crate::metrics;

/// Runs until the node stops.
pub(super) async fn run(link: Arc<Link>, mut messages: broadcast::Receiver<Message>, tasks: Tasks) {
    loop {
        let received = tokio::select! {
            received = messages.recv() => received,
            () = tasks.stopping().cancelled() => return,
        };
        failpoint::pass(Failpoint::BusDrain).await;
        match received {
            Ok(message) => take(&link, message),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                tracing::warn!(count, "the bus overran its queue");
                (link.sink)(Ingress::Break(BreakReason::Lagged));
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn take(link: &Link, message: Message) {
    metrics::bus_received_total().increment(1);
    let Some(channel) = Channel::parse(&message.channel) else {
        return;
    };
    let Some(payload) = bytes_of(message.value) else {
        return;
    };
    let Channel::Node(node) = &channel else {
        (link.sink)(Ingress::Message { channel, payload });
        return;
    };
    if channel == *link.canary.channel() {
        link.canary.heard(&payload);
    } else if super::canary::count_in(&payload).is_some() {
        link.neighbours.heard(Instant::now(), node);
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
