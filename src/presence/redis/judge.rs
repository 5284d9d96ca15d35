//! Which nodes are alive, judged by what an observer saw and by its own clock alone.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// A lease that was not renewed for so long is dead.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(15);
/// How long the users of a node that left in order have to come back elsewhere.
const LEAVING_GRACE: Duration = Duration::from_secs(5);
/// After a pause between two looks that is longer, nobody is judged by what happened meanwhile.
const BLINK: Duration = Duration::from_secs(3);
/// How the lease of a node starts that is about to stop.
const LEFT: &str = "left";

/// The lease of a node that serves. `count` grows, so that a renewal shows.
pub(super) fn alive(count: u64) -> String {
    format!("alive {count}")
}

/// The lease of a node that stops.
pub(super) fn left() -> String {
    LEFT.to_owned()
}

/// Whether the node of this lease serves.
pub(super) fn is_serving(lease: &str) -> bool {
    !lease.starts_with(LEFT)
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Judge {
    nodes: HashMap<String, Seen>,
    looked_at: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    lease: Option<String>,
    renewed_at: Instant,
    left_at: Option<Instant>,
    /// A lease was seen at least once.
    is_known: bool,
}

/// What a look says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// Whose lists count.
    pub(super) live: HashSet<String>,
    /// Whose lists are to be told of and removed.
    pub(super) dead: Vec<String>,
}

impl Judge {
    /// Looks at the nodes that are listed, with their leases.
    pub(super) fn look(
        &mut self,
        now: Instant,
        listed: &HashMap<String, Option<String>>,
    ) -> Judgement {
        let blinked = self
            .looked_at
            .is_none_or(|at| now.saturating_duration_since(at) > BLINK);
        self.looked_at = Some(now);
        for (name, lease) in listed {
            let seen = self.nodes.entry(name.clone()).or_insert_with(|| Seen {
                lease: None,
                renewed_at: now,
                left_at: None,
                is_known: false,
            });
            if lease.is_some() && *lease != seen.lease {
                seen.lease.clone_from(lease);
                seen.renewed_at = now;
                seen.is_known = true;
                let is_left = lease.as_deref().is_some_and(|lease| !is_serving(lease));
                seen.left_at = is_left.then(|| seen.left_at.unwrap_or(now));
            }
        }
        if blinked {
            self.nodes
                .values_mut()
                .for_each(|seen| seen.renewed_at = now);
        }
        let is_dead = |seen: &Seen| {
            now.saturating_duration_since(seen.renewed_at) >= LEASE_TTL
                || seen
                    .left_at
                    .is_some_and(|at| now.saturating_duration_since(at) >= LEAVING_GRACE)
        };
        // Whoever is dead and not listed any more has been buried, or lost with all of Redis.
        self.nodes
            .retain(|name, seen| listed.contains_key(name) || !is_dead(seen));
        let mut judgement = Judgement::default();
        for (name, seen) in &self.nodes {
            if is_dead(seen) {
                judgement.dead.push(name.clone());
            } else if seen.is_known {
                judgement.live.insert(name.clone());
            }
        }
        judgement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks every second, `lease` telling what is found at each.
    fn watch(
        judge: &mut Judge,
        now: &mut Instant,
        seconds: u64,
        lease: impl Fn(u64) -> Option<Option<String>>,
    ) -> Judgement {
        let mut last = Judgement::default();
        for second in 1..=seconds {
            *now += SECOND;
            let found = lease(second).map(|lease| ("node".to_owned(), lease));
            last = judge.look(*now, &found.into_iter().collect());
        }
        last
    }

    fn is_live(judgement: &Judgement) -> bool {
        judgement.live.contains("node") && judgement.dead.is_empty()
    }

    #[test]
    fn a_lease_that_is_not_renewed_is_dead_after_its_time() {
        let (mut judge, mut now) = (Judge::default(), Instant::now());
        let renewed = |second: u64| Some(Some(alive(second / 5)));
        assert!(is_live(&watch(&mut judge, &mut now, 60, renewed)));
        let stuck = |_| Some(Some(alive(12)));
        assert!(is_live(&watch(&mut judge, &mut now, 14, stuck)));
        let judgement = watch(&mut judge, &mut now, 1, |_| Some(None));
        assert_eq!(judgement.dead, ["node"]);
        assert!(judgement.live.is_empty());
        // Until somebody has buried it.
        assert_eq!(
            watch(&mut judge, &mut now, 1, |_| Some(None)).dead,
            ["node"]
        );
        assert_eq!(
            watch(&mut judge, &mut now, 1, |_| None),
            Judgement::default()
        );
    }

    #[test]
    fn a_redis_that_forgot_everything_kills_nobody() {
        let (mut judge, mut now) = (Judge::default(), Instant::now());
        let renewed = |_| Some(Some(alive(1)));
        assert!(is_live(&watch(&mut judge, &mut now, 1, renewed)));
        assert!(is_live(&watch(&mut judge, &mut now, 10, |_| None)));
        let again = |_| Some(Some(alive(4)));
        assert!(is_live(&watch(&mut judge, &mut now, 10, again)));
    }

    #[test]
    fn who_did_not_look_judges_nobody() {
        let (mut judge, mut now) = (Judge::default(), Instant::now());
        let stuck = |_| Some(Some(alive(1)));
        assert!(is_live(&watch(&mut judge, &mut now, 14, stuck)));
        // Redis did not answer for a minute; nobody could renew.
        now += 60 * SECOND;
        assert!(is_live(&watch(&mut judge, &mut now, 1, |_| None)));
        assert!(is_live(&watch(&mut judge, &mut now, 14, |_| Some(None))));
        assert_eq!(
            watch(&mut judge, &mut now, 1, |_| Some(None)).dead,
            ["node"]
        );
    }

    #[test]
    fn a_node_that_left_in_order_is_told_of_soon() {
        let (mut judge, mut now) = (Judge::default(), Instant::now());
        assert!(is_live(&watch(&mut judge, &mut now, 1, |_| Some(Some(
            alive(1)
        )))));
        assert!(is_live(&watch(&mut judge, &mut now, 5, |_| Some(Some(
            left()
        )))));
        let judgement = watch(&mut judge, &mut now, 1, |_| Some(Some(left())));
        assert_eq!(judgement.dead, ["node"]);
    }

    #[test]
    fn the_list_of_a_node_whose_lease_was_never_seen_does_not_count() {
        let (mut judge, mut now) = (Judge::default(), Instant::now());
        let judgement = watch(&mut judge, &mut now, 15, |_| Some(None));
        assert_eq!(judgement, Judgement::default());
        assert_eq!(
            watch(&mut judge, &mut now, 1, |_| Some(None)).dead,
            ["node"]
        );
    }
}
