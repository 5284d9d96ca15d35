//! Whether the machine is left alone: a virtual one loses its processors, and what is in their caches, to
//! its neighbours, and nothing in its own books says so.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A thread that does nothing but look at the clock, and finds more than this gone, was not running.
const GAP: Duration = Duration::from_millis(1);
/// How long each processor is watched.
const WATCH: Duration = Duration::from_millis(500);

/// Lines of 64 bytes that are read in turns: 256 KiB, less than the cache of a processor's own.
const LINES: usize = 4_096;
/// As long as a busy node's batches are apart, and PostgreSQL has nothing to do between them.
const SLEEP: Duration = Duration::from_millis(8);
/// How often all lines are read, with sleep before and without.
const ROUNDS: usize = 25;

/// How often, and for how long, the processors were away while nothing was measured yet; and how much of
/// what a thread had in its caches is still there when it has slept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calm {
    /// Gaps of more than a millisecond in a second of one processor.
    pub gaps_per_s: f64,
    pub longest_ms: f64,
    /// What it takes to read 64 bytes of [`LINES`], the median, one round after the other.
    #[serde(default)]
    pub warm_ns: f64,
    /// The same after [`SLEEP`].
    #[serde(default)]
    pub cold_ns: f64,
}

impl Calm {
    /// Keeps every processor busy for half a second, and one for a quarter more.
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
            warm_ns: read_ns(Duration::ZERO),
            cold_ns: read_ns(SLEEP),
        }
    }
}

impl fmt::Display for Calm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gaps_per_s,
            longest_ms,
            warm_ns,
            cold_ns,
        } = self;
        if *gaps_per_s == 0.0 {
            f.write_str("processors never away for 1 ms")?;
        } else {
            write!(
                f,
                "each processor away for more than 1 ms {gaps_per_s:.0} times a second, {longest_ms:.1} ms at the longest"
            )?;
        }
        // Reports of before have none.
        if *cold_ns > 0.0 {
            write!(
                f,
                "; memory read in {warm_ns:.0} ns, {cold_ns:.0} ns after {} ms of sleep",
                SLEEP.as_millis()
            )?;
        }
        Ok(())
    }
}

/// All lines in one circle without a pattern: a linear congruential generator of full period.
const fn next(line: usize) -> usize {
    (line * 1_103_515_245 + 12_345) % LINES
}

/// Reads [`LINES`], each of which says which is next, so that none can be fetched ahead.
fn read_ns(sleep: Duration) -> f64 {
    let lines: Vec<[usize; 8]> = (0..LINES).map(|line| [next(line); 8]).collect();
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        std::thread::sleep(sleep);
        let begun = Instant::now();
        let mut line = 0;
        for _ in 0..LINES {
            line = lines[line][0];
        }
        black_box(line);
        rounds.push(begun.elapsed());
    }
    rounds.sort();
    rounds[ROUNDS / 2].as_secs_f64() * 1e9 / LINES as f64
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
    fn every_line_is_read() {
        let mut seen = vec![false; LINES];
        let mut line = 0;
        for _ in 0..LINES {
            seen[line] = true;
            line = next(line);
        }
        assert!(line == 0 && seen.iter().all(|seen| *seen));
    }

    #[test]
    fn it_says_how_often_and_how_long() {
        let found = Calm::look();
        // Another thread may have had the processor: that is what is looked for.
        assert_eq!(found.gaps_per_s > 0.0, found.longest_ms > 1.0, "{found:?}");
        assert!(found.warm_ns > 0.0 && found.cold_ns > 0.0, "{found:?}");
        let busy = Calm {
            gaps_per_s: 6.0,
            longest_ms: 6.76,
            warm_ns: 4.1,
            cold_ns: 122.6,
        };
        assert_eq!(
            busy.to_string(),
            "each processor away for more than 1 ms 6 times a second, 6.8 ms at the longest; \
             memory read in 4 ns, 123 ns after 8 ms of sleep"
        );
        assert_eq!(
            Calm::default().to_string(),
            "processors never away for 1 ms"
        );
    }
}
