//! Sends the sockets of a node away without losing anything: a hint when to come back, spread so
//! that they do not all arrive at once, then a close in small batches. A socket that has sends in
//! flight is read no more and closed when the last of them is answered.

use std::time::Duration;

use rookery_protocol::CloseCode;
use rookery_protocol::event::{ServerDraining, ServerEvent};
use tokio::time::Instant;

use super::Gateway;
use crate::metrics;

/// Batches the window is divided into at most.
const BATCHES: usize = 100;
/// How long a socket may wait for its last answers: as long as the database may keep a send waiting
/// for a conversation that somebody holds. What is not answered then is repeated elsewhere.
const LAST_ANSWERS: Duration = Duration::from_secs(8);
/// How long sockets may take to notice that they are closed.
const LEAVING: Duration = Duration::from_secs(3);
/// Between two looks at how many are left.
const LOOK: Duration = Duration::from_millis(20);

/// Closes all sockets within `window`. New ones are refused from the start.
pub async fn drain(gateway: &Gateway, window: Duration) {
    gateway.begin_draining();
    let sessions = gateway.registry.all();
    let count = sessions.len();
    if count == 0 {
        return;
    }
    tracing::info!(
        sockets = count,
        seconds = window.as_secs(),
        "sending sockets away"
    );
    let batch = count.div_ceil(BATCHES);
    let batches = count.div_ceil(batch);
    let pause = window / u32::try_from(batches).unwrap_or(u32::MAX);
    for (index, session) in sessions.iter().enumerate() {
        // Spread evenly over a second beyond its own batch: nobody is there before it is closed.
        let own_batch = pause * u32::try_from(index / batch).unwrap_or(0);
        let spread = Duration::from_millis((index as u64 * 7_919) % 1_000);
        let after = u64::try_from((own_batch + spread).as_millis()).unwrap_or(u64::MAX);
        session.send(&ServerEvent::ServerDraining(ServerDraining {
            reconnect_after_ms: after,
        }));
    }
    let begun = Instant::now();
    for (chunk, at) in sessions.chunks(batch).zip(0..) {
        // By the clock: batches that take their time must not add up.
        tokio::time::sleep_until(begun + pause * at).await;
        for session in chunk {
            session.retire();
        }
        metrics::drain_sockets().set(gateway.registry.socket_count() as f64);
    }
    if !gone(gateway, LAST_ANSWERS).await {
        let late = gateway.registry.all();
        tracing::warn!(
            sockets = late.len(),
            "closing sockets before their last answers"
        );
        for session in late {
            session.close(CloseCode::ServiceRestart);
        }
        gone(gateway, LEAVING).await;
    }
}

/// Waits until no socket is left; false if some are after this time.
async fn gone(gateway: &Gateway, within: Duration) -> bool {
    let end = Instant::now() + within;
    loop {
        let left = gateway.registry.socket_count();
        metrics::drain_sockets().set(left as f64);
        if left == 0 || Instant::now() >= end {
            return left == 0;
        }
        tokio::time::sleep(LOOK).await;
    }
}
