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
    let mut before = gateway.now_seconds();
    loop {
        tokio::select! {
            () = gateway.tasks.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = gateway.now_seconds();
        for chunk in gateway.registry.all().chunks(CHUNK) {
            for session in chunk {
                look_at(&gateway, session, (before, now));
            }
            tokio::task::yield_now().await;
        }
        gateway.registry.shrink();
        before = now;
    }
}

fn look_at(gateway: &Gateway, session: &Session, (before, now): (u32, u32)) {
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
    } else if is_pinged(session.id, before, now) {
        session.outbox.push(Frame::Ping);
    }
}

/// Whether a ping was due behind the second `before` and until `now`: a busy node looks late, and
/// whoever was due in a second that it did not look in would be silent for too long.
fn is_pinged(id: u64, before: u32, now: u32) -> bool {
    let turn = |second: u32| (u64::from(second) + id) / u64::from(HEARTBEAT_SECONDS);
    turn(now) > turn(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_is_pinged_once_in_a_heartbeat_however_late_the_looks_are() {
        for looks in [
            (1..=200).collect::<Vec<u32>>(),
            (7..=200).step_by(7).collect(),
            vec![3, 3, 24, 49, 50, 50, 75, 99, 120, 145, 170, 195, 200],
        ] {
            for id in 0..50 {
                let mut before = 0;
                let mut pings = 0;
                for &now in &looks {
                    pings += u32::from(is_pinged(id, before, now));
                    before = now;
                }
                let due = (u64::from(before) + id) / 25 - id / 25;
                assert_eq!(u64::from(pings), due, "socket {id}, {looks:?}");
            }
        }
    }
}
