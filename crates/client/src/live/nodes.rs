//! Which of several nodes is next. No I/O.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// The longest that a server's hint is believed: nobody is sent away for good by a mistake.
const HINT_MAX: Duration = Duration::from_secs(300);

/// URLs in turn; those that asked to be left alone for a while come later.
#[derive(Debug)]
pub(super) struct Nodes {
    urls: Vec<(String, Option<Instant>)>,
    at: usize,
}

impl Nodes {
    /// Begins anywhere: clients that know the same nodes do not all begin at the first.
    pub(super) fn new(urls: Vec<String>, dice: &mut impl Rng) -> Self {
        let at = dice.random_range(0..urls.len().max(1));
        let urls = urls.into_iter().map(|url| (url, None)).collect();
        Self { urls, at }
    }

    /// The one to be connected to now.
    pub(super) fn current(&self) -> &str {
        self.urls.get(self.at).map_or("", |(url, _)| url)
    }

    /// All of them, the current one first.
    pub(super) fn in_turn(&self) -> Vec<String> {
        let (before, from) = self.urls.split_at(self.at.min(self.urls.len()));
        let urls = from.iter().chain(before);
        urls.map(|(url, _)| url.clone()).collect()
    }

    /// The current one asked to be left alone.
    pub(super) fn leave_alone(&mut self, now: Instant, hint: Duration) {
        if let Some((_, until)) = self.urls.get_mut(self.at) {
            *until = Some(now + hint.min(HINT_MAX));
        }
    }

    /// On to the next: the first in turn that may be asked, else the one that may be asked soonest.
    /// Returns when that is, if not now.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Instant> {
        let count = self.urls.len();
        let turn = (1..=count).map(|step| (self.at + step) % count);
        let until = |place: &usize| self.urls[*place].1.filter(|until| *until > now);
        // Of equals the first in turn: none at all is the least.
        self.at = turn.min_by_key(until).unwrap_or(self.at);
        until(&self.at)
    }
}

/// A hint, as far as it is believed.
pub(super) fn believed(hint: Duration) -> Duration {
    hint.min(HINT_MAX)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn nodes(urls: &[&str]) -> Nodes {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let mut nodes = Nodes::new(urls, &mut SmallRng::seed_from_u64(1));
        nodes.at = 0;
        nodes
    }

    #[test]
    fn they_come_in_turn() {
        let now = Instant::now();
        let mut nodes = nodes(&["a", "b", "c"]);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(nodes.current().to_owned());
            assert_eq!(nodes.advance(now), None);
        }
        assert_eq!(seen, ["a", "b", "c", "a"]);
        assert_eq!(nodes.in_turn(), ["b", "c", "a"]);
    }

    #[test]
    fn who_asked_to_be_left_alone_comes_later() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut nodes = nodes(&["a", "b"]);
        nodes.leave_alone(now, 3 * second);
        assert_eq!(nodes.advance(now), None);
        assert_eq!(nodes.advance(now), None);
        assert_eq!(nodes.current(), "b", "not a, which is full");
        nodes.leave_alone(now, 9 * second);
        assert_eq!(nodes.advance(now), Some(now + 3 * second));
        assert_eq!(nodes.current(), "a", "the soonest");
        assert_eq!(nodes.advance(now + 20 * second), None);
        assert_eq!(nodes.current(), "b");
    }

    #[test]
    fn a_hint_is_believed_for_minutes_only() {
        let now = Instant::now();
        let mut nodes = nodes(&["a"]);
        nodes.leave_alone(now, Duration::from_secs(1_000_000));
        assert_eq!(nodes.advance(now), Some(now + HINT_MAX));
    }
}
