//! Keeps what the probes tell up to date.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::fullness;
use crate::bus::Bus;
use crate::gateway::{Gateway, Places};
use crate::metrics;
use crate::ops::NodeStatus;

/// Probes are asked every few seconds.
const INTERVAL: Duration = Duration::from_millis(500);
/// A database that takes longer counts as away.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// For so long a node may be out of step with a Redis that answers before it counts as not ready:
/// when Redis comes back every node is, and all of them would leave the load balancer at once.
const CATCHING_UP: Duration = Duration::from_secs(5);

/// Looks around until the node stops.
pub(super) async fn run(
    gateway: Gateway,
    bus: Arc<dyn Bus>,
    places: Places,
    status: Arc<NodeStatus>,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // When the bus was in step, or nobody could be, last.
    let mut excused_at = Instant::now();
    loop {
        tokio::select! {
            () = gateway.tasks.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        let users = gateway.registry.user_count();
        status.sockets.set(gateway.registry.socket_count() as u64);
        status.users.set(users as u64);
        metrics::users().set(users as f64);
        status.full.set(gateway.admission.is_full());
        status.subscriptions.set(bus.subscription_count() as u64);
        fullness::show(&gateway, bus.as_ref(), &places);
        let reachable = bus.is_reachable();
        if bus.is_in_step() || !reachable {
            excused_at = Instant::now();
        }
        status.redis_up.set(reachable);
        status.in_step.set(bus.is_in_step());
        status.behind.set(excused_at.elapsed() >= CATCHING_UP);
        let ping = tokio::time::timeout(PING_TIMEOUT, gateway.store.ping()).await;
        status.database_up.set(matches!(ping, Ok(Ok(()))));
    }
}
