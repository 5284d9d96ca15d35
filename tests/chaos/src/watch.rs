//! Looks at the nodes each second, and says on the terminal how far things are.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rookery_test_support::Metrics;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::measure::lock;
use crate::nemesis::Nemesis;
use crate::world::World;

const EVERY: Duration = Duration::from_secs(1);
/// Lines in a log, where none can be overwritten, and samples of memory are this far apart.
const SELDOM: u64 = 5;
const MEMORY: &str = "process_resident_memory_bytes";
/// Counters whose growth over all lives of all nodes is reported.
const COUNTERS: [&str; 9] = [
    "rookery_messages_total",
    "rookery_delivered_total",
    "rookery_ingress_breaks_total",
    "rookery_holes_total",
    "rookery_fills_total",
    "rookery_reconcile_found_total",
    "rookery_bus_publish_dropped_total",
    "rookery_slow_readers_total",
    "rookery_closes_total",
];

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Watch {
    seen: Mutex<Seen>,
}

#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// By series. What a node counted in the second before it was killed is missing.
    pub(crate) counters: BTreeMap<String, f64>,
    pub(crate) memory: Vec<Sample>,
    last: BTreeMap<(usize, String), f64>,
}

/// The memory of all nodes at one time; none for a node that was down.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) second: u64,
    pub(crate) mib: Vec<Option<u64>>,
}

impl Watch {
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Looks and tells until stopped.
    pub(crate) async fn run(
        &self,
        world: &World,
        nemesis: &Nemesis,
        end: Instant,
        stop: &CancellationToken,
    ) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (began, mut acked_before, mut second) = (Instant::now(), 0, 0);
        while !stop.is_cancelled() {
            ticks.tick().await;
            self.look(world, began.elapsed().as_secs()).await;
            let acked = world.measure.count.acked.load(Ordering::Relaxed);
            let left = end.saturating_duration_since(Instant::now()).as_secs();
            let line = line(world, nemesis, acked - acked_before, left);
            acked_before = acked;
            tell(&line, second);
            second += 1;
            world.measure.prune();
        }
        tell("", SELDOM);
    }

    /// One look at all nodes.
    pub(crate) async fn look(&self, world: &World, second: u64) {
        let mut mib = Vec::new();
        for (number, node) in world.cluster.nodes().iter().enumerate() {
            let metrics = node.look().await;
            let bytes = metrics
                .as_ref()
                .and_then(|metrics| metrics.starting_with(MEMORY).next());
            mib.push(bytes.map(|(_, bytes)| (bytes / 1_048_576.0) as u64));
            if let Some(metrics) = metrics {
                lock(&self.seen).add(number, &metrics);
            }
        }
        if second.is_multiple_of(SELDOM) {
            lock(&self.seen).memory.push(Sample { second, mib });
        }
    }
}

impl Seen {
    /// A counter that has fallen belongs to a new life of its node, and began at nothing.
    fn add(&mut self, node: usize, metrics: &Metrics) {
        for counter in COUNTERS {
            for (series, value) in metrics.starting_with(counter) {
                let last = self.last.insert((node, series.to_owned()), value);
                let grown = match last {
                    Some(last) if last <= value => value - last,
                    _ => value,
                };
                *self.counters.entry(series.to_owned()).or_default() += grown;
            }
        }
    }
}

fn line(world: &World, nemesis: &Nemesis, acked: u64, left: u64) -> String {
    let (count, state) = (&world.measure.count, nemesis.state());
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let waiting: usize = world
        .devices
        .iter()
        .map(|device| device.seen.unsettled())
        .sum();
    let faults: u64 = state.survived.values().sum();
    let present = match &state.present[..] {
        [] => "no fault now".to_owned(),
        present => present.join(" + "),
    };
    format!(
        "{acked} acked/s, {} in all, {} arrived, {waiting} unacked, {faults} faults over, {left} s \
         left: {present}",
        get(&count.acked),
        get(&count.arrivals),
    )
}

/// A closed stderr must not end a run.
fn tell(line: &str, second: u64) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{line}");
    } else if second.is_multiple_of(SELDOM) && !line.is_empty() {
        let _ = writeln!(stderr, "{line}");
    }
    let _ = stderr.flush();
}
