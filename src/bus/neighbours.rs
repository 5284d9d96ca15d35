//! Which other nodes live, and whether this one hears them.
//!
//! A node's own canary shows that what it publishes comes back to it. It does not show that the
//! others' news arrives: this node's links may be dead in a way that spares its own, or lead to a
//! Redis that the others have left. So a node listens to the canaries of its neighbours as well.
//!
//! Silence alone says nothing, since a neighbour may have died. It counts once the neighbour has
//! shown life in another way after it fell silent: presence sees each node's sign of life in
//! Redis, over a connection of its own that is no Pub/Sub.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a living neighbour may be silent before this node's own ingress is doubted; again
/// longer after each doubt that changed nothing, so that a neighbour whose publisher is dead, or
/// that sends no canaries, does not have everybody reconnect for ever.
const SILENCES: [Duration; 4] = [
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// What presence tells and the bus asks; one for each node that runs.
#[derive(Debug, Default)]
pub struct Neighbours {
    known: Mutex<HashMap<String, Neighbour>>,
}

#[derive(Debug)]
struct Neighbour {
    /// When it showed life last, otherwise than by its canary.
    alive_at: Instant,
    /// When its canary was heard last, or listening began; `None`: nobody listens yet.
    heard_at: Option<Instant>,
    /// How often in a row its silence was a reason to doubt.
    doubts: usize,
}

impl Neighbours {
    /// Takes what presence sees: the nodes that hold a lease, by their ids, and whether they showed
    /// life since the last look. Whoever is not among them is forgotten.
    pub fn seen(&self, now: Instant, nodes: &HashMap<String, bool>) {
        let mut known = self.known();
        known.retain(|node, _| nodes.contains_key(node));
        for (node, showed_life) in nodes {
            let neighbour = known.entry(node.clone()).or_insert(Neighbour {
                alive_at: now,
                heard_at: None,
                doubts: 0,
            });
            if *showed_life {
                neighbour.alive_at = now;
            }
        }
    }

    /// Whose canaries are to be listened to.
    #[must_use]
    pub fn nodes(&self) -> HashSet<String> {
        self.known().keys().cloned().collect()
    }

    /// From now on these nodes' canaries would be heard.
    pub fn listening(&self, now: Instant, nodes: &HashSet<String>) {
        let mut known = self.known();
        for (node, neighbour) in known.iter_mut() {
            if nodes.contains(node) {
                neighbour.heard_at = Some(now);
            }
        }
    }

    /// A canary of this node was heard.
    pub fn heard(&self, now: Instant, node: &str) {
        if let Some(neighbour) = self.known().get_mut(node) {
            if neighbour.doubts > 0 {
                tracing::info!(node, "a silent neighbour is heard again");
            }
            neighbour.heard_at = Some(now);
            neighbour.doubts = 0;
        }
    }

    /// Nothing could be heard for a while, for reasons of this node: silence counts from now.
    pub fn rearm(&self, now: Instant) {
        for neighbour in self.known().values_mut() {
            neighbour.heard_at = neighbour.heard_at.map(|_| now);
        }
    }

    /// The living neighbours whose silence is a reason to doubt this node's ingress now. Each is
    /// named once, and again after a longer silence.
    #[must_use]
    pub fn missed(&self, now: Instant) -> Vec<String> {
        let mut missed = Vec::new();
        for (node, neighbour) in self.known().iter_mut() {
            let Some(heard_at) = neighbour.heard_at else {
                continue;
            };
            let silence = neighbour.alive_at.saturating_duration_since(heard_at);
            if silence >= SILENCES[neighbour.doubts.min(SILENCES.len() - 1)] {
                neighbour.doubts += 1;
                neighbour.heard_at = Some(now);
                missed.push(node.clone());
            }
        }
        missed
    }

    /// How many live and are not heard.
    #[must_use]
    pub fn silent_count(&self) -> usize {
        let known = self.known();
        known.values().filter(|node| node.doubts > 0).count()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Neighbour>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn one(showed_life: bool) -> HashMap<String, bool> {
        HashMap::from([("b".to_owned(), showed_life)])
    }

    /// Lets the neighbour live for so many seconds and returns in which of them it was missed.
    fn live(neighbours: &Neighbours, from: Instant, seconds: u32, is_heard: bool) -> Vec<u32> {
        let mut missed = Vec::new();
        for second in 1..=seconds {
            let now = from + second * SECOND;
            neighbours.seen(now, &one(true));
            if is_heard {
                neighbours.heard(now, "b");
            }
            if !neighbours.missed(now).is_empty() {
                missed.push(second);
            }
        }
        missed
    }

    fn listening_at(now: Instant) -> Neighbours {
        let neighbours = Neighbours::default();
        neighbours.seen(now, &one(true));
        neighbours.listening(now, &neighbours.nodes());
        neighbours
    }

    #[test]
    fn a_living_neighbour_that_is_silent_is_missed_less_and_less_often() {
        let start = Instant::now();
        let neighbours = listening_at(start);
        assert!(live(&neighbours, start, 20, true).is_empty());
        let silent = live(&neighbours, start + 20 * SECOND, 170, false);
        assert_eq!(silent, [3, 13, 43, 103, 163]);
        assert_eq!(neighbours.silent_count(), 1);
        // Once it was heard, the next silence counts as the first.
        let later = start + 190 * SECOND;
        assert!(live(&neighbours, later, 5, true).is_empty());
        assert_eq!(neighbours.silent_count(), 0);
        assert_eq!(live(&neighbours, later + 5 * SECOND, 4, false), [3]);
    }

    #[test]
    fn a_neighbour_that_dies_is_not_missed() {
        let start = Instant::now();
        let neighbours = listening_at(start);
        // Its lease is still there, and does not move.
        for second in 1..15 {
            let now = start + second * SECOND;
            neighbours.seen(now, &one(false));
            assert!(neighbours.missed(now).is_empty());
        }
        neighbours.seen(start + 15 * SECOND, &HashMap::new());
        assert!(neighbours.nodes().is_empty());
    }

    #[test]
    fn nobody_is_missed_before_somebody_listens_or_after_this_node_stood_still() {
        let start = Instant::now();
        let neighbours = Neighbours::default();
        assert!(live(&neighbours, start, 60, false).is_empty());
        let awake = start + 60 * SECOND;
        neighbours.listening(awake, &neighbours.nodes());
        let resumed = awake + 30 * SECOND;
        neighbours.seen(resumed, &one(true));
        neighbours.rearm(resumed);
        assert!(neighbours.missed(resumed).is_empty());
    }
}
