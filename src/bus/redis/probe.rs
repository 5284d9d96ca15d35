//! Asks Redis a question every second: whether it answers tells a Redis that is down for everybody
//! from a subscriber of this node that is out of step, and what it answers tells a master from a
//! replica, on which publications reach nobody else.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::time::MissedTickBehavior;

use super::Renewals;
use super::connection;
use super::link::Link;
use crate::lifecycle::Tasks;

const INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the node stops.
pub(super) async fn run(link: Arc<Link>, renewals: Renewals, tasks: Tasks) {
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
        let identity = tokio::select! {
            () = tasks.stopping().cancelled() => return,
            identity = connection::identity(&link.publisher) => identity,
        };
        let Some(identity) = identity else { continue };
        link.answered();
        if identity.is_replica {
            tracing::warn!("Redis has become a replica; looking for its master");
            link.lost();
            renewals.subscriber.begin(&tasks);
            renewals.publisher.begin(&tasks);
        }
    }
}
