//! Watches the connections: resubscribes after every new one, and sends this node's sign of life
//! (the canary) around through Redis, because a link can be dead without saying so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::prelude::*;
use fred::types::config::Server;
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;

use super::Link;
use super::connection::Renewal;
use crate::bus::{BreakReason, BusEvent, Channel, Envelope, Ingress, VERSION};
use crate::clock::Clock;
use crate::lifecycle::Tasks;
use crate::metrics;

/// Often enough that a silent link is found soon after [`CANARY_SILENCE`].
const TICK: Duration = Duration::from_millis(250);
/// Ticks from one canary to the next: a second.
const CANARY_TICKS: u64 = 4;
/// A canary that has not come back for this long means the link is dead in one direction.
const CANARY_SILENCE: Duration = Duration::from_secs(3);
/// A connection out of step for so long, of which fred has nothing to say, will not mend.
const DOUBT: Duration = Duration::from_secs(1);

/// The subscriber's connection events.
pub(super) struct Events {
    made: broadcast::Receiver<Server>,
    errors: broadcast::Receiver<(Error, Option<Server>)>,
}

impl Events {
    pub(super) fn of(client: &Client) -> Self {
        Self {
            made: client.reconnect_rx(),
            errors: client.error_rx(),
        }
    }
}

/// Notes that the canary came back.
pub(super) fn canary_heard(link: &Link, payload: &[u8]) {
    if let Ok(Envelope {
        event: BusEvent::Canary { .. },
        ..
    }) = Envelope::decode(payload)
    {
        link.note_canary();
    }
}

impl Link {
    fn note_canary(&self) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.canary_heard_ms.store(since, Ordering::SeqCst);
    }

    fn canary_silence(&self) -> Duration {
        let heard = Duration::from_millis(self.canary_heard_ms.load(Ordering::SeqCst));
        self.started.elapsed().saturating_sub(heard)
    }
}

struct Supervisor {
    link: Arc<Link>,
    queue: mpsc::Sender<(Channel, Bytes)>,
    clock: Clock,
    tasks: Tasks,
    subscriber: Renewal,
    publisher: Renewal,
    ticks: u64,
    /// When the subscriber was in step last.
    in_step_at: Instant,
}

/// Runs until the node stops.
pub(super) async fn run(
    link: Arc<Link>,
    mut events: Events,
    queue: mpsc::Sender<(Channel, Bytes)>,
    clock: Clock,
    tasks: Tasks,
) {
    let stopping = tasks.stopping().clone();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut supervisor = Supervisor {
        subscriber: Renewal::of(&link.subscriber),
        publisher: Renewal::of(&link.publisher),
        link,
        queue,
        clock,
        tasks,
        ticks: 0,
        in_step_at: Instant::now(),
    };
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            // A lagged receiver also means that something happened to the connection.
            _ = events.errors.recv() => supervisor.link.lost(),
            _ = events.made.recv() => {
                supervisor.link.lost();
                supervisor.resubscribe().await;
            }
            _ = ticks.tick() => supervisor.tick(),
        }
    }
}

impl Supervisor {
    fn tick(&mut self) {
        if self.ticks.is_multiple_of(CANARY_TICKS) {
            self.send_canary();
        }
        self.ticks += 1;
        if !self.link.is_in_step() {
            if self.in_step_at.elapsed() > DOUBT {
                self.subscriber.begin(&self.tasks);
            }
            return;
        }
        self.in_step_at = Instant::now();
        if !self.link.publisher.is_connected() {
            // The canary cannot leave; why it does not come back is known.
            self.link.note_canary();
        } else if self.link.canary_silence() > CANARY_SILENCE {
            tracing::warn!("the bus does not carry our own sign of life; connecting anew");
            self.link.lost();
            (self.link.sink)(Ingress::Break(BreakReason::Canary));
            // Which of the two links is dead does not show.
            self.subscriber.begin(&self.tasks);
            self.publisher.begin(&self.tasks);
        }
    }

    fn send_canary(&self) {
        let envelope = Envelope {
            key: [0; 16],
            v: VERSION,
            origin: String::new(),
            skip: None,
            at: self.clock.now(),
            members: 0,
            event: BusEvent::Canary {
                count: self.ticks / CANARY_TICKS,
            },
        };
        if let Some(payload) = envelope.encode() {
            // A full queue keeps the canary back, which is what it is there to tell.
            self.queue
                .try_send((self.link.own_channel.clone(), payload))
                .ok();
        }
    }

    /// Subscribes to everything wanted on the present connection and reports the break.
    async fn resubscribe(&mut self) {
        let link = &self.link;
        let mut changing = link.changing.lock().await;
        let wanted: Vec<Channel> = link.wanted.iter().map(|channel| channel.clone()).collect();
        let confirmed = link.subscribe_confirmed(&mut changing, &wanted).await;
        // Gives fred the time to notice, if it is the connection that failed.
        self.in_step_at = Instant::now();
        if confirmed.is_err() {
            tracing::debug!(channels = wanted.len(), "resubscribing failed");
            return;
        }
        link.note_canary();
        link.in_step.store(true, Ordering::SeqCst);
        metrics::bus_connected().set(1.0);
        tracing::info!(channels = wanted.len(), "the bus is up");
        (link.sink)(Ingress::Break(BreakReason::Reconnected));
    }
}
