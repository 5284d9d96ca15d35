//! A set of numbers that mostly follow each other.

use std::collections::BTreeMap;

/// Kept as runs, first to last: as many as there are gaps, however many numbers.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The run that grew last: most numbers follow the one before.
    newest: Option<(i64, i64)>,
    others: BTreeMap<i64, i64>,
}

impl Runs {
    pub(super) fn contains(&self, number: i64) -> bool {
        if let Some((first, last)) = self.newest
            && (first..=last).contains(&number)
        {
            return true;
        }
        let before = self.others.range(..=number).next_back();
        before.is_some_and(|(_, last)| number <= *last)
    }

    pub(super) fn insert(&mut self, number: i64) {
        if let Some((_, last)) = &mut self.newest
            && number == *last + 1
        {
            *last = number;
        } else if !self.contains(number) {
            self.put_aside();
            let before = self.others.range(..number).next_back();
            let first = match before.map(|(first, last)| (*first, *last)) {
                Some((first, last)) if last + 1 == number => {
                    self.others.remove(&first);
                    first
                }
                _ => number,
            };
            self.newest = Some((first, number));
        }
    }

    /// Puts the newest run to the others, swallowing those that it has grown over.
    fn put_aside(&mut self) {
        let Some((first, mut last)) = self.newest.take() else {
            return;
        };
        while let Some((next, end)) = self.others.range(first..=last + 1).next() {
            let (next, end) = (*next, *end);
            last = last.max(end);
            self.others.remove(&next);
        }
        self.others.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn it_holds_what_a_set_holds() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let (mut runs, mut set) = (Runs::default(), HashSet::new());
            for _ in 0..40 {
                let from = random.random_range(0..60);
                for number in from..from + random.random_range(1..6) {
                    runs.insert(number);
                    set.insert(number);
                }
                assert!((0..70).all(|number| runs.contains(number) == set.contains(&number)));
            }
        }
    }

    #[test]
    fn what_follows_takes_no_room() {
        let mut runs = Runs::default();
        (1..1_000).for_each(|number| runs.insert(number));
        runs.insert(2_000);
        runs.insert(1_000);
        assert_eq!(runs.others.len(), 1);
    }
}
