//! Sends the sockets of a node away without losing anything: a hint when to come back, spread so
//! that they do not all arrive at once, then a close in small batches.

use std::time::Duration;

use rookery_protocol::CloseCode;
use rookery_protocol::event::{ServerDraining, ServerEvent};

use super::Gateway;

/// Batches the window is divided into at most.
const BATCHES: usize = 100;
/// How long a closing socket may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

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
    for (index, chunk) in sessions.chunks(batch).enumerate() {
        if index > 0 {
            tokio::time::sleep(pause).await;
        }
        for session in chunk {
            session.close(CloseCode::ServiceRestart);
        }
    }
    let goodbye = tokio::time::Instant::now() + GOODBYE;
    while gateway.registry.socket_count() > 0 && tokio::time::Instant::now() < goodbye {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
