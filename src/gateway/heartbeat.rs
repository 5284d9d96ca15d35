//! One task for the time-outs of all sockets: pings, silence, expired tokens, resumes that never
//! came. A timer per socket would cost memory and wake-ups, a look at every socket each second the processor's
//! caches: a socket is looked at when something may be due.

use std::time::Duration;

use rookery_protocol::{CloseCode, Timestamp};
use tokio::time::MissedTickBehavior;

use super::frame::Frame;
use super::session::Session;
use super::wheel::{Due, Wheel};
use super::{Gateway, RESUME_SECONDS, Registry, SILENCE_SECONDS};
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
        let (now, time) = (gateway.now_seconds(), gateway.clock.now());
        tick(&gateway.registry, &mut wheel, now, time).await;
        gateway.registry.shrink();
    }
}

/// Looks at those whose time has come in this second of the node's life, at this time, and at those who were
/// announced.
async fn tick(registry: &Registry, wheel: &mut Wheel, now: u32, time: Timestamp) {
    let before = wheel.now();
    for chunk in wheel.take(now).chunks_mut(CHUNK) {
        for due in chunk {
            // One that was put elsewhere since is looked at there.
            let session = registry.find(due.user_id, due.id);
            if let Some(session) = session.filter(|session| session.next_look() <= now) {
                let at = look_at(&session, due, now, time);
                session.look_at(at);
                wheel.put(at, *due);
            }
        }
        tokio::task::yield_now().await;
    }
    let newcomers: Vec<_> = registry.take_newcomers().collect();
    for chunk in newcomers.chunks(CHUNK) {
        for (user_id, id) in chunk {
            let Some(session) = registry.find(*user_id, *id) else {
                continue;
            };
            session.looked();
            // Of one that is on the wheel the place there knows of a ping that is due.
            let since = if session.is_on_wheel() { now } else { before };
            let mut due = Due::first(*user_id, *id, since);
            let at = look_at(&session, &mut due, now, time);
            // Otherwise its place on the wheel is early enough.
            if at < session.next_look() {
                session.look_at(at);
                wheel.put(at, due);
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

    /// A node with one socket in it, and its wheel.
    struct Node {
        registry: Registry,
        wheel: Wheel,
        session: Arc<Session>,
    }

    impl Node {
        /// The socket's token lasts so many seconds.
        fn with(token_seconds: i64) -> Self {
            let (session, _) = based(socket(token_seconds));
            let session = Arc::new(session);
            let registry = Registry::default();
            registry.join(Arc::clone(&session), 5);
            Self {
                registry,
                wheel: Wheel::new(0),
                session,
            }
        }

        /// Looks in a second in which the client is heard; how many pings it was sent.
        async fn tick(&mut self, now: u32) -> usize {
            self.session.heard(now);
            let time = START.plus_millis(i64::from(now) * 1_000);
            tick(&self.registry, &mut self.wheel, now, time).await;
            self.session.outbox.queued().len()
        }

        fn renew(&self, token_seconds: i64) {
            let end = START.plus_millis(token_seconds * 1_000);
            if self.session.renew(end) {
                self.registry.announce(&self.session);
            }
        }
    }

    #[tokio::test]
    async fn a_token_that_ends_earlier_than_the_one_before_is_not_overlooked() {
        let mut node = Node::with(900);
        node.tick(1).await;
        node.renew(3 - LEEWAY_SECONDS);
        node.tick(2).await;
        node.tick(3).await;
        assert!(
            !node.session.outbox.is_closing(),
            "it ends with that second"
        );
        node.tick(4).await;
        assert!(node.session.outbox.is_closing());
    }

    #[tokio::test]
    async fn whoever_changes_tokens_all_the_time_is_pinged_as_others_and_takes_little_room() {
        let (mut calm, mut restless) = (Node::with(9_000), Node::with(9_000));
        for now in 1..200 {
            for _ in 0..3 {
                restless.renew(8_000);
                restless.renew(i64::from(now) + 5);
                restless.renew(9_000);
            }
            if now % 7 == 0 {
                // Looked at early, in two seconds, and put off again.
                restless.renew(i64::from(now) + 2 - LEEWAY_SECONDS);
            }
            assert!(restless.registry.newcomers_len() <= 1);
            assert_eq!(restless.tick(now).await, calm.tick(now).await, "{now}");
            restless.renew(9_000);
            assert!(restless.wheel.len() <= 2 * HEARTBEAT_SECONDS as usize);
        }
        let all = |node: &Node| node.session.outbox.is_closing();
        assert!(!all(&calm) && !all(&restless));
    }

    #[tokio::test]
    async fn whoever_comes_before_a_standstill_is_asked_before_it_is_given_up() {
        let mut node = Node::with(900);
        let time = START.plus_millis(58_000);
        tick(&node.registry, &mut node.wheel, 58, time).await;
        assert_eq!(
            node.session.outbox.queued().len(),
            1,
            "heard last in second 0"
        );
        assert_eq!(node.tick(59).await, 0, "once");
    }

    #[tokio::test]
    async fn one_that_has_gone_leaves_the_wheel() {
        let mut node = Node::with(900);
        node.tick(1).await;
        assert_eq!(node.wheel.len(), 1);
        node.registry.leave(&node.session);
        for now in 2..=1 + HEARTBEAT_SECONDS {
            node.tick(now).await;
        }
        assert_eq!(node.wheel.len(), 0);
    }
}
