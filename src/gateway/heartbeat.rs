//! One task for the time-outs of all sockets: pings, silence, expired tokens, resumes that never
//! came. A timer per socket would cost memory and wake-ups, a look at every socket each second the processor's
//! caches: a socket is looked at when something may be due.

use std::time::Duration;

use rookery_protocol::{CloseCode, Timestamp};
use tokio::time::MissedTickBehavior;

use super::frame::Frame;
use super::session::Session;
use super::wheel::{Due, Wheel};
use super::{Gateway, RESUME_SECONDS, SILENCE_SECONDS};
use crate::auth::LEEWAY_SECONDS;

/// Sockets looked at before other tasks get a turn.
const CHUNK: usize = 512;

/// Looks once a second at those sockets whose time has come, until the node stops.
pub(super) async fn run(gateway: Gateway) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut wheel = Wheel::new(gateway.now_seconds());
    loop {
        tokio::select! {
            () = gateway.tasks.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = gateway.now_seconds();
        let due = wheel.take(now);
        let newcomers = gateway.registry.take_newcomers();
        let newcomers = newcomers.map(|(user_id, id)| Due::first(user_id, id, now));
        looks(&gateway, &mut wheel, newcomers.collect(), now, |_| true).await;
        // Whoever was announced again has been looked at, or will be, apart from its old place.
        let is_due = |session: &Session| session.next_look() <= now;
        looks(&gateway, &mut wheel, due, now, is_due).await;
        gateway.registry.shrink();
    }
}

/// Looks at those that are still here, and puts them back on the wheel.
async fn looks(
    gateway: &Gateway,
    wheel: &mut Wheel,
    mut due: Vec<Due>,
    now: u32,
    is_due: impl Fn(&Session) -> bool,
) {
    for chunk in due.chunks_mut(CHUNK) {
        for due in chunk {
            let session = gateway.registry.find(due.user_id, due.id);
            if let Some(session) = session.filter(|session| is_due(session)) {
                let at = look_at(&session, due, now, gateway.clock.now());
                session.look_at(at);
                wheel.put(at, *due);
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Does what is due in this second of the node's life, at this time; returns the second of the next look.
fn look_at(session: &Session, due: &mut Due, now: u32, time: Timestamp) -> u32 {
    let silent_at = session.heard_at() + SILENCE_SECONDS + 1;
    let resume_at = session.opened_at + RESUME_SECONDS + 1;
    let is_based = session.positions().is_based();
    let end = session.expires_at().plus_millis(LEEWAY_SECONDS * 1_000);
    let left_millis = end.as_millis().saturating_sub(time.as_millis());
    if left_millis < 0 {
        session.close(CloseCode::TokenExpired);
    } else if now >= silent_at {
        // Most likely nobody is there to read it.
        session.close(CloseCode::Resynchronise);
    } else if now >= resume_at && !is_based {
        session.close(CloseCode::Resynchronise);
    } else if due.takes_ping(now) {
        session.outbox.push(Frame::Ping);
    }
    let expires_at = i64::from(now) + left_millis / 1_000 + 1;
    let expires_at = u32::try_from(expires_at).unwrap_or(u32::MAX);
    let resume_at = if is_based { u32::MAX } else { resume_at };
    let at = due.ping_at.min(silent_at).min(resume_at).min(expires_at);
    // Behind a close nothing is due any more; it leaves the wheel when it has left the registry.
    at.max(now + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rookery_protocol::user::UserRole;
    use rookery_protocol::{Format, SessionId, UserId};
    use uuid::Uuid;

    use super::*;
    use crate::auth::Access;
    use crate::gateway::HEARTBEAT_SECONDS;

    /// The wall clock at second 0 of the node's life.
    const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    /// A socket that opened in second 0 with a token of so many seconds, and its place on the wheel.
    fn socket(token_seconds: i64) -> (Session, Due) {
        let access = Access {
            user_id: UserId::from_uuid(Uuid::nil()),
            session_id: SessionId::from_uuid(Uuid::nil()),
            username: "ann".into(),
            role: UserRole::User,
            auth_version: 1,
            expires_at: START.plus_millis(token_seconds * 1_000),
        };
        let session = Session::new(1, &access, Format::Json, 0, Arc::default());
        let due = Due::first(session.user_id, session.id, 0);
        (session, due)
    }

    /// Looks whenever it is asked to, until the socket is closed: the seconds of the pings, and of the end.
    /// The client says something in the seconds `heard`.
    fn life((session, mut due): (Session, Due), heard: &[u32]) -> (Vec<u32>, u32) {
        let (mut pings, mut now) = (Vec::new(), 0);
        while now < 1_000 {
            let before = due.ping_at;
            let time = START.plus_millis(i64::from(now) * 1_000);
            let last = heard.iter().filter(|second| **second <= now).max();
            session.heard(last.copied().unwrap_or_default());
            let next = look_at(&session, &mut due, now, time);
            assert!(
                next > now && next <= now + HEARTBEAT_SECONDS,
                "{now} {next}"
            );
            if session.outbox.is_closing() {
                return (pings, now);
            }
            if due.ping_at > before {
                pings.push(now);
            }
            now = next;
        }
        (pings, now)
    }

    fn based(socket: (Session, Due)) -> (Session, Due) {
        socket.0.positions().set_base(&[]);
        socket
    }

    #[test]
    fn a_socket_that_answers_pings_stays_until_its_token_ends() {
        let heard: Vec<u32> = (0..1_000).step_by(25).collect();
        let (pings, end) = life(based(socket(300)), &heard);
        let leeway = u32::try_from(LEEWAY_SECONDS).unwrap();
        assert_eq!(end, 300 + leeway + 1, "the leeway has passed");
        assert_eq!(pings, (24..end).step_by(25).collect::<Vec<_>>());
    }

    #[test]
    fn silence_is_found_in_its_second() {
        assert_eq!(life(based(socket(900)), &[]).1, SILENCE_SECONDS + 1);
        assert_eq!(life(based(socket(900)), &[7]).1, 7 + SILENCE_SECONDS + 1);
    }

    #[test]
    fn a_resume_that_never_comes_is_not_waited_for() {
        assert_eq!(life(socket(900), &[]).1, RESUME_SECONDS + 1);
    }
}
