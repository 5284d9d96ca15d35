//! Asks Redis a question every second: whether it answers tells a Redis that is down for everybody
//! from a subscriber of this node that is out of step, and what it answers tells a master from a
//! replica, on which publications reach nobody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::connection::IDENTITY_TIMEOUT;
use super::link::Link;
use crate::lifecycle::Tasks;

const INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the node stops.
pub(super) async fn run(link: Arc<Link>, tasks: Tasks) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = tasks.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        if !link.publisher.is_connected() {
            continue;
        }
        let answered = tokio::select! {
            () = tasks.stopping().cancelled() => return,
            answered = link.publisher.is_replica(IDENTITY_TIMEOUT) => answered,
        };
        let Some(is_replica) = answered else { continue };
        link.answered();
        if is_replica {
            tracing::warn!("Redis has become a replica; looking for its master");
            link.lost();
            link.subscriber.renew();
            link.publisher.renew();
        }
    }
}
