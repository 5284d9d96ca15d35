//! Whether the machine is left alone: a virtual one loses its processors to its neighbours, and nothing in
//! its own books says so.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A thread that does nothing but look at the clock, and finds more than this gone, was not running.
const GAP: Duration = Duration::from_millis(1);
/// How long each processor is watched.
const WATCH: Duration = Duration::from_millis(500);

/// How often, and for how long, the processors were away while nothing was measured yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calm {
    /// Gaps of more than a millisecond in a second of one processor.
    pub gaps_per_s: f64,
    pub longest_ms: f64,
}

impl Calm {
    /// Keeps every processor busy for half a second.
    pub(crate) fn look() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let watchers: Vec<_> = (0..cores).map(|_| std::thread::spawn(gaps)).collect();
        // A watcher does nothing that could panic.
        let gaps: Vec<Duration> = watchers
            .into_iter()
            .filter_map(|watcher| watcher.join().ok())
            .flatten()
            .collect();
        let longest = gaps.iter().max().copied().unwrap_or_default();
        Self {
            gaps_per_s: gaps.len() as f64 / cores as f64 / WATCH.as_secs_f64(),
            longest_ms: longest.as_secs_f64() * 1_000.0,
        }
    }
}

impl fmt::Display for Calm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gaps_per_s,
            longest_ms,
        } = self;
        if *gaps_per_s == 0.0 {
            return f.write_str("processors never away for 1 ms");
        }
        write!(
            f,
            "each processor away for more than 1 ms {gaps_per_s:.0} times a second, {longest_ms:.1} ms at the longest"
        )
    }
}

fn gaps() -> Vec<Duration> {
    let begun = Instant::now();
    let (mut last, mut gaps) = (begun, Vec::new());
    while last.duration_since(begun) < WATCH {
        let now = Instant::now();
        let gap = now.duration_since(last);
        if gap > GAP {
            gaps.push(gap);
        }
        last = now;
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_often_and_how_long() {
        let found = Calm::look();
        // Another thread may have had the processor: that is what is looked for.
        assert_eq!(found.gaps_per_s > 0.0, found.longest_ms > 1.0, "{found:?}");
        let busy = Calm {
            gaps_per_s: 6.0,
            longest_ms: 6.76,
        };
        assert_eq!(
            busy.to_string(),
            "each processor away for more than 1 ms 6 times a second, 6.8 ms at the longest"
        );
        assert_eq!(
            Calm::default().to_string(),
            "processors never away for 1 ms"
        );
    }
}
