//! One task for the time-outs of all sockets: pings, silence, expired tokens, resumes that never
//! came. A timer per socket would cost memory and wake-ups.

use std::time::Duration;

use rookery_protocol::CloseCode;
use tokio::time::MissedTickBehavior;

use super::frame::Frame;
use super::session::Session;
use super::{Gateway, HEARTBEAT_SECONDS, RESUME_SECONDS, SILENCE_SECONDS};
use crate::auth::LEEWAY_SECONDS;

/// Sockets looked at before other tasks get a turn.
const CHUNK: usize = 512;

/// Looks at every socket once a second until the node stops.
pub(super) async fn run(gateway: Gateway) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gateway.tasks.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        for chunk in gateway.registry.all().chunks(CHUNK) {
            for session in chunk {
                look_at(&gateway, session);
            }
            tokio::task::yield_now().await;
        }
    }
}

fn look_at(gateway: &Gateway, session: &Session) {
    let now = gateway.now_seconds();
    let silent = now.saturating_sub(session.heard_at());
    let end = session.expires_at().plus_millis(LEEWAY_SECONDS * 1_000);
    if gateway.clock.now() > end {
        session.close(CloseCode::TokenExpired);
    } else if silent > SILENCE_SECONDS {
        // Most likely nobody is there to read it.
        session.close(CloseCode::Resynchronise);
    } else if now.saturating_sub(session.opened_at) > RESUME_SECONDS
        && !session.positions().is_based()
    {
        session.close(CloseCode::Resynchronise);
    } else if (u64::from(now) + session.id).is_multiple_of(u64::from(HEARTBEAT_SECONDS)) {
        session.outbox.push(Frame::Ping);
    }
}
