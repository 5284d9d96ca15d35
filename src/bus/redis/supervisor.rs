//! Watches the subscriber: resubscribes after every new connection, and sends this node's sign of
//! life (the canary) around through Redis, because a link can be dead without saying so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::prelude::*;
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;

use super::Link;
use crate::bus::{BreakReason, BusEvent, Channel, Envelope, Ingress, VERSION};
use crate::clock::Clock;
use crate::lifecycle::Tasks;
use crate::metrics;

/// Often enough that a silent link is found within [`CANARY_SILENCE`].
const CANARY_INTERVAL: Duration = Duration::from_secs(1);
/// A canary that has not come back for this long means the link is dead in one direction.
const CANARY_SILENCE: Duration = Duration::from_secs(3);

/// The subscriber's connection events.
pub(super) struct Events {
    connected: broadcast::Receiver<fred::types::config::Server>,
    errors: broadcast::Receiver<(Error, Option<fred::types::config::Server>)>,
}

impl Events {
    pub(super) fn of(client: &Client) -> Self {
        Self {
            connected: client.reconnect_rx(),
            errors: client.error_rx(),
        }
    }
}

/// Notes the canary in `payload` as heard.
pub(super) fn canary_heard(link: &Link, payload: &[u8]) {
    if let Ok(Envelope {
        event: BusEvent::Canary { count },
        ..
    }) = Envelope::decode(payload)
    {
        link.canary_heard.fetch_max(count, Ordering::SeqCst);
    }
}

/// Runs until the node stops.
pub(super) async fn run(
    link: Arc<Link>,
    mut events: Events,
    queue: mpsc::Sender<(Channel, Bytes)>,
    clock: Clock,
    tasks: Tasks,
) {
    let mut ticks = tokio::time::interval(CANARY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut canary = Canary {
        sent: 0,
        heard: 0,
        heard_at: Instant::now(),
    };
    loop {
        tokio::select! {
            biased;
            () = tasks.stopping().cancelled() => return,
            // A lagged receiver also means that something happened to the connection.
            _ = events.errors.recv() => link.lost(),
            _ = events.connected.recv() => {
                link.lost();
                if resubscribe(&link).await {
                    canary.heard_at = Instant::now();
                }
            }
            _ = ticks.tick() => {
                tick(&link, &mut canary, &queue, &clock).await;
            }
        }
    }
}

struct Canary {
    sent: u64,
    heard: u64,
    heard_at: Instant,
}

async fn tick(
    link: &Link,
    canary: &mut Canary,
    queue: &mpsc::Sender<(Channel, Bytes)>,
    clock: &Clock,
) {
    let heard = link.canary_heard.load(Ordering::SeqCst);
    if heard > canary.heard {
        canary.heard = heard;
        canary.heard_at = Instant::now();
    }
    if !link.up.load(Ordering::SeqCst) {
        // The connection may be there while its first resubscription failed.
        if link.subscriber.is_connected() && resubscribe(link).await {
            canary.heard_at = Instant::now();
        }
    } else if canary.heard_at.elapsed() > CANARY_SILENCE {
        tracing::warn!("the bus does not carry our own sign of life; connecting anew");
        link.lost();
        (link.sink)(Ingress::Break(BreakReason::Canary));
        if let Err(error) = link.subscriber.force_reconnection().await {
            tracing::debug!(%error, "the subscriber is connecting already");
        }
        canary.heard_at = Instant::now();
    }
    canary.sent += 1;
    let envelope = Envelope {
        key: [0; 16],
        v: VERSION,
        origin: String::new(),
        skip: None,
        at: clock.now(),
        members: 0,
        event: BusEvent::Canary { count: canary.sent },
    };
    if let Some(payload) = envelope.encode() {
        // A full queue keeps the canary back, which is what it is there to tell.
        queue.try_send((link.own_channel.clone(), payload)).ok();
    }
}

/// Subscribes to everything wanted on the present connection and reports the break.
async fn resubscribe(link: &Link) -> bool {
    let _changing = link.changing.lock().await;
    let wanted: Vec<Channel> = link.wanted.iter().map(|channel| channel.clone()).collect();
    if link.subscribe_confirmed(&wanted).await.is_err() {
        tracing::debug!(
            channels = wanted.len(),
            "resubscribing failed; trying again"
        );
        return false;
    }
    link.up.store(true, Ordering::SeqCst);
    metrics::bus_connected().set(1.0);
    tracing::info!(channels = wanted.len(), "the bus is up");
    (link.sink)(Ingress::Break(BreakReason::Reconnected));
    true
}
