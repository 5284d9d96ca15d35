//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

/// The first ceiling.
const FIRST_MS: u64 = 500;
/// The last ceiling: no client waits longer than this for a server that is back.
const LAST_MS: u64 = 30_000;
/// No attempt follows the last one sooner than this, whatever the dice say.
const LEAST_MS: u64 = 20;
/// Failures that count: with these the last ceiling is reached.
const FAILURES: u32 = 6;
/// A connection that held this long takes one failure back, so that a stable minute takes back all
/// of them. Not all at once: connections that are cut every few seconds must become rarer, and
/// those of a cluster whose nodes are restarted one by one must not.
const HELD: Duration = Duration::from_secs(10);

/// Exponential back-off with full jitter: a random wait below a ceiling that doubles with every
/// failure, so that many clients that lost one node do not come back in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub(super) fn next(&mut self, dice: &mut impl Rng) -> Duration {
        let ceiling = (FIRST_MS << self.failures).min(LAST_MS);
        self.failures = (self.failures + 1).min(FAILURES);
        Duration::from_millis(dice.random_range(LEAST_MS..=ceiling))
    }

    /// A connection held this long.
    pub(super) fn held(&mut self, time: Duration) {
        let earned = time.as_secs() / HELD.as_secs();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_sub(earned);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn waits_grow_to_a_ceiling_are_spread_and_start_anew() {
        let mut dice = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..200)
            .map(|_| backoff.next(&mut dice).as_millis() as u64)
            .collect();
        assert!(waits[0] <= FIRST_MS, "{waits:?}");
        assert!(
            waits.iter().all(|wait| (LEAST_MS..=LAST_MS).contains(wait)),
            "{waits:?}"
        );
        let late = &waits[10..];
        assert!(
            late.iter().any(|wait| *wait > LAST_MS / 2),
            "the ceiling is reached"
        );
        assert!(
            late.iter().any(|wait| *wait < LAST_MS / 2),
            "the jitter is full"
        );
        backoff.held(Duration::from_secs(60));
        assert!(backoff.next(&mut dice).as_millis() as u64 <= FIRST_MS);
    }

    #[test]
    fn connections_that_hold_for_seconds_only_become_rarer() {
        let mut dice = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            backoff.held(Duration::from_secs(9));
            longest = longest.max(backoff.next(&mut dice));
        }
        assert!(longest > Duration::from_secs(15), "{longest:?}");
    }
}
