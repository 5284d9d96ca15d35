//! Watches the connections: resubscribes after every new one, and has one replaced that is in
//! doubt, because a link can be dead without saying so.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::prelude::*;
use fred::types::config::Server;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;

use super::connection::{self, Renewal};
use super::link::Link;
use crate::bus::{BreakReason, Channel, Ingress};
use crate::lifecycle::Tasks;
use crate::metrics;

/// Often enough that a canary is missed soon after it is due.
const TICK: Duration = Duration::from_millis(250);
/// A connection out of step for so long, of which fred has nothing to say, will not mend.
const DOUBT: Duration = Duration::from_secs(1);
/// How often at the most dropped publications are a reason to look into the journal.
const UNPUBLISHED_EVERY: Duration = Duration::from_secs(1);

/// What happens to the connections.
pub(super) struct Events {
    made: broadcast::Receiver<Server>,
    errors: broadcast::Receiver<(Error, Option<Server>)>,
}

impl Events {
    pub(super) fn of(link: &Link) -> Self {
        Self {
            made: link.subscriber.reconnect_rx(),
            errors: link.subscriber.error_rx(),
        }
    }
}

struct Supervisor {
    link: Arc<Link>,
    tasks: Tasks,
    renewal: Renewal,
    /// The subscriber's connection was closed by the other side since it was in step.
    is_closed: bool,
    /// The run of the Redis that the subscriber was connected to last.
    run_id: Option<String>,
    /// When the subscriber was in step last.
    in_step_at: Instant,
    /// The neighbours whose canaries are listened to.
    listening_to: HashSet<String>,
    unpublished_at: Instant,
}

/// Runs until the node stops.
pub(super) async fn run(link: Arc<Link>, events: Events, renewal: Renewal, tasks: Tasks) {
    let stopping = tasks.stopping().clone();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Events {
        mut made,
        mut errors,
    } = events;
    let mut supervisor = Supervisor {
        link,
        tasks,
        renewal,
        is_closed: false,
        run_id: None,
        in_step_at: Instant::now(),
        listening_to: HashSet::new(),
        unpublished_at: Instant::now(),
    };
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            error = errors.recv() => supervisor.failed(error.ok()),
            _ = made.recv() => {
                supervisor.link.lost();
                supervisor.resubscribe().await;
            }
            _ = ticks.tick() => supervisor.tick().await,
        }
    }
}

impl Supervisor {
    /// fred reports an error; none if it reported more than fitted.
    fn failed(&mut self, error: Option<(Error, Option<Server>)>) {
        // Attempts to connect that fail name no server.
        let of_connection = error.is_none_or(|(_, server)| server.is_some());
        self.is_closed |= of_connection && self.link.is_in_step();
        self.link.lost();
    }

    async fn tick(&mut self) {
        let link = Arc::clone(&self.link);
        metrics::bus_publish_queue().set(link.queue.count() as f64);
        metrics::bus_publish_queue_bytes().set(link.queue.bytes() as f64);
        metrics::bus_neighbours_silent().set(link.neighbours.silent_count() as f64);
        if self.unpublished_at.elapsed() >= UNPUBLISHED_EVERY && link.queue.take_dropped() {
            self.unpublished_at = Instant::now();
            (link.sink)(Ingress::Break(BreakReason::Unpublished));
        }
        if link.canary.is_standstill() {
            // The canary's task has the first word: nothing is known against the links.
            return;
        }
        if !link.is_in_step() {
            if self.in_step_at.elapsed() > DOUBT {
                self.renewal.begin(&self.tasks);
            }
            return;
        }
        self.in_step_at = Instant::now();
        self.judge();
        if link.is_in_step() {
            self.listen().await;
        }
    }

    /// Whether the canaries that should have come did.
    fn judge(&self) {
        let link = &self.link;
        if link.publisher.is_down() {
            // Our own cannot leave; why it does not come back is known.
            link.canary.rearm();
        } else if link.canary.is_missed() {
            tracing::warn!("the bus does not carry our own sign of life; connecting anew");
            self.doubt(BreakReason::Canary);
            // Which of the two links is dead does not show.
            link.publisher.renew();
            return;
        }
        let missed = link.neighbours.missed(Instant::now());
        if !missed.is_empty() {
            tracing::warn!(
                ?missed,
                "neighbours live and are not heard; connecting anew"
            );
            self.doubt(BreakReason::Neighbour);
        }
    }

    fn doubt(&self, reason: BreakReason) {
        self.link.lost();
        (self.link.sink)(Ingress::Break(reason));
        self.renewal.begin(&self.tasks);
    }

    /// Listens to the neighbours there are, and to no others.
    async fn listen(&mut self) {
        let nodes = self.link.neighbours.nodes();
        if nodes == self.listening_to {
            return;
        }
        let channels = |nodes: &mut dyn Iterator<Item = &String>| -> Vec<Channel> {
            nodes.map(|node| Channel::Node(node.clone())).collect()
        };
        let gone = channels(&mut self.listening_to.difference(&nodes));
        let new = channels(&mut nodes.difference(&self.listening_to));
        let mut changing = self.link.changing.lock().await;
        for channel in gone.iter().filter(|it| *it != self.link.canary.channel()) {
            self.link.wanted.remove(channel);
        }
        for channel in &new {
            self.link.wanted.insert(channel.clone());
        }
        self.link.unsubscribe(&gone).await;
        if self
            .link
            .subscribe_confirmed(&mut changing, &new)
            .await
            .is_err()
        {
            self.link.lost();
        }
        drop(changing);
        let added = nodes.difference(&self.listening_to).cloned().collect();
        self.link.neighbours.listening(Instant::now(), &added);
        self.listening_to = nodes;
    }

    /// Subscribes to everything wanted on the present connection and reports the break.
    async fn resubscribe(&mut self) {
        let began = Instant::now();
        let link = Arc::clone(&self.link);
        let identity = connection::identity(&link.subscriber).await;
        if identity.is_some() {
            link.answered();
        }
        if identity.as_ref().is_some_and(|redis| redis.is_replica) {
            // What is published here reaches nobody else; in time there is a master to connect to.
            tracing::warn!("this Redis is a replica; looking for its master");
            self.in_step_at = Instant::now();
            return;
        }
        let mut changing = link.changing.lock().await;
        let wanted: Vec<Channel> = link.wanted.iter().map(|channel| channel.clone()).collect();
        let confirmed = link.subscribe_confirmed(&mut changing, &wanted).await;
        // Gives fred the time to notice, if it is the connection that failed.
        self.in_step_at = Instant::now();
        if confirmed.is_err() {
            metrics::bus_resubscriptions_total().failed.increment(1);
            tracing::debug!(channels = wanted.len(), "resubscribing failed");
            return;
        }
        link.canary.rearm();
        link.neighbours.rearm(Instant::now());
        link.found();
        drop(changing);
        metrics::bus_resubscriptions_total().confirmed.increment(1);
        metrics::bus_resubscribe_seconds().record(began.elapsed().as_secs_f64());
        tracing::info!(channels = wanted.len(), took = ?began.elapsed(), "the bus is up");
        let reason = self.reason(identity.and_then(|redis| redis.run_id));
        (link.sink)(Ingress::Break(reason));
    }

    /// Why there is a new connection: if it is to the same run of Redis, that was there all the time.
    fn reason(&mut self, run_id: Option<String>) -> BreakReason {
        let is_same = run_id.is_some() && run_id == self.run_id;
        self.run_id = run_id;
        if std::mem::take(&mut self.is_closed) && is_same {
            BreakReason::CutOff
        } else {
            BreakReason::Reconnected
        }
    }
}
