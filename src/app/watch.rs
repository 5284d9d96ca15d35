//! Keeps what the probes tell up to date.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::bus::Bus;
use crate::gateway::Gateway;
use crate::metrics;
use crate::ops::NodeStatus;

/// Probes are asked every few seconds.
const INTERVAL: Duration = Duration::from_millis(500);
/// A database that takes longer counts as away.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks around until the node stops.
pub(super) async fn run(gateway: Gateway, bus: Arc<dyn Bus>, status: Arc<NodeStatus>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
        status.redis_up.set(bus.is_up());
        status.in_step.set(bus.is_up());
        let ping = tokio::time::timeout(PING_TIMEOUT, gateway.store.ping()).await;
        status.database_up.set(matches!(ping, Ok(Ok(()))));
    }
}
