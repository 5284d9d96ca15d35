//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

/// The first ceiling.
const FIRST_MS: u64 = 250;
/// The last ceiling: no client waits longer than this for a server that is back.
const LAST_MS: u64 = 15_000;
/// No attempt follows the last one sooner than this, whatever the dice say.
const LEAST_MS: u64 = 20;

/// Exponential back-off with full jitter: a random wait below a ceiling that doubles with every
/// failure, so that many clients that lost one node do not come back in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub(super) fn next(&mut self, dice: &mut impl Rng) -> Duration {
        let ceiling = FIRST_MS
            .saturating_mul(1 << self.failures.min(10))
            .min(LAST_MS);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(dice.random_range(LEAST_MS..=ceiling))
    }

    /// A connection held: the next failure is a first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
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
        backoff.reset();
        assert!(backoff.next(&mut dice).as_millis() as u64 <= FIRST_MS);
    }
}
