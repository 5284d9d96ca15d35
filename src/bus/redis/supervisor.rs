//! Watches the connections and has them replaced when they are in doubt, because a link can be dead
//! without saying so.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::link::Link;
use crate::bus::{BreakReason, Channel, Ingress};
use crate::lifecycle::Tasks;
use crate::metrics;

/// Often enough that a canary is missed soon after it is due.
const TICK: Duration = Duration::from_millis(250);
/// How often at the most dropped publications are a reason to look into the journal.
const UNPUBLISHED_EVERY: Duration = Duration::from_secs(1);

struct Supervisor {
    link: Arc<Link>,
    /// The neighbours whose canaries are listened to.
    listening_to: HashSet<String>,
    unpublished_at: Instant,
}

/// Runs until the node stops.
pub(super) async fn run(link: Arc<Link>, tasks: Tasks) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut supervisor = Supervisor {
        link,
        listening_to: HashSet::new(),
        unpublished_at: Instant::now(),
    };
    loop {
        tokio::select! {
            () = tasks.stopping().cancelled() => return,
            _ = ticks.tick() => supervisor.tick().await,
        }
    }
}

impl Supervisor {
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
            return;
        }
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
        self.link.subscriber.renew();
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
        let subscriber = &self.link.subscriber;
        let mut gone = channels(&mut self.listening_to.difference(&nodes));
        gone.retain(|channel| channel != self.link.canary.channel());
        subscriber.unsubscribe(gone).await;
        let new = channels(&mut nodes.difference(&self.listening_to));
        // One that fails is made good by the next connection.
        subscriber.subscribe(new).await.ok();
        let added = nodes.difference(&self.listening_to).cloned().collect();
        self.link.neighbours.listening(Instant::now(), &added);
        self.listening_to = nodes;
    }
}
