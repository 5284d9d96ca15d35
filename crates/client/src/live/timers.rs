//! When a connection has to do something by itself. No I/O.

use std::time::Duration;

use rookery_protocol::Timestamp;
use tokio::time::Instant;

/// How long a new token that is not granted may be asked for again.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// No renewal follows a token sooner than this, however short its life.
const RENEW_LEAST: Duration = Duration::from_secs(1);
/// A token is renewed when this share of its life is left, in per cent.
const RENEW_LEFT_PERCENT: u32 = 20;
/// How long a `ping` may be unanswered; less where the application has less patience.
const PONG_WAIT: Duration = Duration::from_secs(10);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Silence: ask whether the server is still there.
    Ping,
    /// No answer either: the connection is dead, whatever TCP believes.
    Dead,
    /// The token runs out soon.
    Renew,
}

/// Liveness and token expiry of one connection.
#[derive(Debug)]
pub(super) struct Timers {
    /// One moment by both clocks: this device's own may be hours off.
    began_at: (Instant, Timestamp),
    heard_at: Instant,
    /// A little more than the server's own heartbeat, a minute at the most.
    silence: Duration,
    pong_wait: Duration,
    pinged_at: Option<Instant>,
    renew_at: Option<Instant>,
}

impl Timers {
    pub(super) fn new(
        now: Instant,
        server_time: Timestamp,
        heartbeat_seconds: u32,
        patience: Duration,
    ) -> Self {
        let heartbeat = Duration::from_secs(u64::from(heartbeat_seconds.clamp(1, 50)));
        let silence = heartbeat * 6 / 5;
        Self {
            began_at: (now, server_time),
            heard_at: now,
            silence,
            pong_wait: PONG_WAIT.min(patience),
            pinged_at: None,
            renew_at: None,
        }
    }

    /// Any frame is a sign of life.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// The token runs out then, by the server's clock.
    pub(super) fn token_lives(&mut self, now: Instant, until: Timestamp) {
        let (began_at, server_time) = self.began_at;
        let whole = until.as_millis().saturating_sub(server_time.as_millis());
        let whole = Duration::from_millis(u64::try_from(whole).unwrap_or(0));
        let life = whole.saturating_sub(now.duration_since(began_at));
        let share = life * (100 - RENEW_LEFT_PERCENT) / 100;
        self.renew_at = Some(now + share.max(RENEW_LEAST));
    }

    /// The renewal is under way, or failed and may be tried again later.
    pub(super) fn renewing(&mut self, now: Instant) {
        self.renew_at = Some(now + RENEW_AGAIN);
    }

    /// There is nothing to renew with.
    pub(super) fn renew_never(&mut self) {
        self.renew_at = None;
    }

    pub(super) fn due(&mut self, now: Instant) -> Due {
        if now >= self.silent_at() {
            if self.pinged_at.is_some() {
                return Due::Dead;
            }
            self.pinged_at = Some(now);
            return Due::Ping;
        }
        if self.renew_at.is_some_and(|at| now >= at) {
            return Due::Renew;
        }
        Due::Nothing
    }

    /// When [`Timers::due`] is to be asked again.
    pub(super) fn next(&self) -> Instant {
        let silent = self.silent_at();
        self.renew_at.map_or(silent, |at| at.min(silent))
    }

    fn silent_at(&self) -> Instant {
        // Counted from the ping, not from the silence: this task may not have listened meanwhile.
        match self.pinged_at {
            Some(at) => at + self.pong_wait,
            None => self.heard_at + self.silence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn silence_is_asked_about_and_then_believed() {
        let start = Instant::now();
        let mut timers = Timers::new(start, Timestamp::from_millis(0), 25, PATIENCE);
        assert_eq!(timers.due(start + Duration::from_secs(29)), Due::Nothing);
        assert_eq!(timers.due(start + Duration::from_secs(30)), Due::Ping);
        assert_eq!(timers.due(start + Duration::from_secs(39)), Due::Nothing);
        assert_eq!(timers.due(start + Duration::from_secs(40)), Due::Dead);
        timers.heard(start + Duration::from_secs(40));
        assert_eq!(timers.due(start + Duration::from_secs(41)), Due::Nothing);
        assert_eq!(timers.next(), start + Duration::from_secs(70));
    }

    #[test]
    fn who_did_not_listen_for_long_asks_before_they_believe_in_silence() {
        let start = Instant::now();
        let mut timers = Timers::new(start, Timestamp::from_millis(0), 25, PATIENCE);
        let later = start + Duration::from_secs(500);
        assert_eq!(timers.due(later), Due::Ping);
        assert_eq!(timers.due(later + Duration::from_secs(9)), Due::Nothing);
        assert_eq!(timers.due(later + Duration::from_secs(10)), Due::Dead);
    }

    #[test]
    fn a_token_is_renewed_before_it_runs_out() {
        let start = Instant::now();
        let server_time = Timestamp::from_millis(1_000);
        let mut timers = Timers::new(start, server_time, 50, PATIENCE);
        timers.token_lives(start, server_time.plus_millis(100_000));
        timers.heard(start + Duration::from_secs(60));
        assert_eq!(timers.due(start + Duration::from_secs(79)), Due::Nothing);
        assert_eq!(timers.due(start + Duration::from_secs(80)), Due::Renew);
        timers.renewing(start + Duration::from_secs(80));
        assert_eq!(timers.due(start + Duration::from_secs(81)), Due::Nothing);
        let later = start + Duration::from_secs(90);
        assert_eq!(timers.due(later), Due::Renew);
        timers.token_lives(later, server_time.plus_millis(190_000));
        timers.heard(later + Duration::from_secs(60));
        assert_eq!(timers.due(later + Duration::from_secs(79)), Due::Nothing);
        assert_eq!(timers.due(later + Duration::from_secs(80)), Due::Renew);
    }
}
