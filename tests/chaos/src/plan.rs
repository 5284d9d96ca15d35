//! Which fault comes when: decided by the seed alone, whatever happens in the run.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::kinds::{Kind, Victim};

/// How often a second fault comes on top of the first.
const TWO_AT_A_TIME: f64 = 0.35;
/// The second one begins within this time after the first.
const STAGGER_MS: u64 = 1_500;
/// Peace between two rounds: short ones, so that a fault meets what the last one left behind, and
/// some that let everything settle.
const REST_MS: (u64, u64) = (300, 2_500);

/// Faults of one round, to be begun after their delays; the next round begins when all are healed
/// and the rest is over.
pub(crate) struct Round {
    pub(crate) faults: Vec<Planned>,
    pub(crate) rest: Duration,
}

pub(crate) struct Planned {
    pub(crate) kind: &'static Kind,
    pub(crate) victim: Victim,
    pub(crate) delay: Duration,
    pub(crate) hold: Duration,
}

/// Rounds without end. All kinds come once, in a shuffled order, before any comes again.
pub(crate) struct Plan {
    kinds: Vec<&'static Kind>,
    /// What is left of this deal; the last one is next.
    deck: Vec<&'static Kind>,
    dice: StdRng,
}

impl Plan {
    pub(crate) fn new(seed: u64, kinds: Vec<&'static Kind>) -> Self {
        Self {
            kinds,
            deck: Vec::new(),
            dice: StdRng::seed_from_u64(seed),
        }
    }

    fn draw(&mut self) -> Option<&'static Kind> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.deck.shuffle(&mut self.dice);
        }
        self.deck.pop()
    }

    /// One that does not touch the same part, if this deal has one left.
    fn draw_beside(&mut self, first: &Kind) -> Option<&'static Kind> {
        let place = self.deck.iter().rposition(|kind| kind.part != first.part)?;
        Some(self.deck.remove(place))
    }

    fn plan(&mut self, kind: &'static Kind, delay_ms: u64) -> Planned {
        Planned {
            kind,
            victim: Victim(self.dice.random()),
            delay: Duration::from_millis(delay_ms),
            hold: Duration::from_millis(self.dice.random_range(kind.hold_ms.clone())),
        }
    }
}

impl Iterator for Plan {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let first = self.draw()?;
        let mut faults = vec![self.plan(first, 0)];
        if self.dice.random_bool(TWO_AT_A_TIME)
            && let Some(second) = self.draw_beside(first)
        {
            let delay = self.dice.random_range(0..STAGGER_MS);
            faults.push(self.plan(second, delay));
        }
        let rest = Duration::from_millis(self.dice.random_range(REST_MS.0..=REST_MS.1));
        Some(Round { faults, rest })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::kinds;

    fn rounds(seed: u64, count: usize) -> Vec<String> {
        Plan::new(seed, kinds::all())
            .take(count)
            .map(|round| {
                let faults = round.faults.iter().map(|fault| {
                    let (name, victim) = (fault.kind.name, fault.victim);
                    format!("{name} {victim:?} {:?} {:?}", fault.delay, fault.hold)
                });
                format!("{:?} {:?}", faults.collect::<Vec<_>>(), round.rest)
            })
            .collect()
    }

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_one_another() {
        assert_eq!(rounds(7, 200), rounds(7, 200));
        assert_ne!(rounds(7, 200), rounds(8, 200));
    }

    #[test]
    fn every_kind_comes_once_before_any_comes_again() {
        let kinds = kinds::all().len();
        for seed in 0..50 {
            let mut counts: HashMap<&str, usize> = HashMap::new();
            let faults = Plan::new(seed, kinds::all()).flat_map(|round| round.faults);
            for (number, fault) in faults.take(kinds * 3).enumerate() {
                *counts.entry(fault.kind.name).or_default() += 1;
                let most = counts.values().max().copied().unwrap_or(0);
                assert_eq!(most, number / kinds + 1, "seed {seed}, fault {number}");
            }
        }
    }

    #[test]
    fn two_at_a_time_are_of_different_parts_and_hold_as_long_as_they_may() {
        let mut pairs = 0;
        for round in Plan::new(3, kinds::all()).take(500) {
            if let [first, second] = &round.faults[..] {
                assert_ne!(first.kind.part, second.kind.part);
                pairs += 1;
            }
            for fault in &round.faults {
                let hold = u64::try_from(fault.hold.as_millis()).unwrap();
                assert!(fault.kind.hold_ms.contains(&hold), "{}", fault.kind.name);
            }
        }
        assert!(pairs > 100, "{pairs} pairs of 500 rounds");
    }

    #[test]
    fn nothing_to_break_is_a_plan_too() {
        assert!(Plan::new(1, Vec::new()).next().is_none());
    }
}
