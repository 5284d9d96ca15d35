//! What the servers use while a scenario runs, once a second: CPU and memory by role, and whatever
//! the scenario counts. A thread of its own, so that a busy generator does not delay it; and kept
//! outside the scenario, so that its samples outlive one that was interrupted.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::meter::Meter;

const EVERY: Duration = Duration::from_secs(1);

/// What a scenario has counted so far, by name.
pub(crate) type Counted = Vec<(&'static str, u64)>;

type Read = Box<dyn Fn() -> Counted + Send>;

/// Where a scenario says what it counts.
#[derive(Clone, Default)]
pub(crate) struct Gauges {
    read: Arc<Mutex<Option<Read>>>,
    measures_from: Arc<Mutex<Option<Instant>>>,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Gauges {
    /// From now on these are sampled.
    pub(crate) fn set(&self, read: impl Fn() -> Counted + Send + 'static) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(read));
    }

    /// What was prepared and warmed up is over: from now on it counts.
    pub(crate) fn measures(&self) {
        let now = Some(Instant::now());
        *self
            .measures_from
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn measures_from(&self) -> Option<Instant> {
        *self
            .measures_from
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the scenario before are of no interest any more.
    fn clear(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self
            .measures_from
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn read(&self) -> Counted {
        let gauges = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.as_ref().map_or_else(Vec::new, |read| read())
    }
}

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Since the run began, preparations included.
    pub at_s: f64,
    /// What was counted, a second.
    pub rates: BTreeMap<String, f64>,
    /// Cores in use, by role.
    pub cpu_cores: BTreeMap<String, f64>,
    /// By role; pages that processes share count once.
    pub memory_bytes: BTreeMap<String, u64>,
}

/// Samples until it is finished.
pub(crate) struct Sampler {
    begun: Instant,
    gauges: Gauges,
    stop: SyncSender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    pub(crate) fn start(meter: Meter) -> Self {
        let (stop, stopped) = sync_channel(1);
        meter.gauges.clear();
        let (begun, gauges) = (Instant::now(), meter.gauges.clone());
        let thread = std::thread::spawn(move || {
            let (mut at, mut cpu, mut counted) = (begun, meter.cpu(), meter.gauges.read());
            let mut samples = Vec::new();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                let (now, cpu_now, counted_now) =
                    (Instant::now(), meter.cpu(), meter.gauges.read());
                let seconds = (now - at).as_secs_f64();
                samples.push(Sample {
                    at_s: (now - begun).as_secs_f64(),
                    rates: rates(&counted, &counted_now, seconds),
                    cpu_cores: cpu_now.cores(&cpu, seconds),
                    memory_bytes: meter.memory_at_a_glance(),
                });
                (at, cpu, counted) = (now, cpu_now, counted_now);
            }
            samples
        });
        Self {
            begun,
            gauges,
            stop,
            thread,
        }
    }

    /// The samples, and how many seconds after the first of them the run began to count.
    pub(crate) fn finish(self) -> (Vec<Sample>, Option<f64>) {
        // Fails only when the thread has ended already.
        let _ = self.stop.try_send(());
        let from = self.gauges.measures_from();
        let from = from.map(|from| from.saturating_duration_since(self.begun).as_secs_f64());
        (self.thread.join().unwrap_or_default(), from)
    }
}

/// A counter that is new began at nothing.
pub(crate) fn rates(before: &Counted, now: &Counted, seconds: f64) -> BTreeMap<String, f64> {
    let rate = |&(name, now): &(&'static str, u64)| {
        let known = before.iter().find(|(known, _)| *known == name);
        let before = known.map_or(0, |(_, count)| *count);
        (name.to_owned(), now.saturating_sub(before) as f64 / seconds)
    };
    now.iter().map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_by_time() {
        let now = vec![("delivered", 30), ("new", 7)];
        let rates = rates(&vec![("delivered", 10)], &now, 2.0);
        let wanted = [("delivered".to_owned(), 10.0), ("new".to_owned(), 3.5)];
        assert_eq!(rates, wanted.into());
    }
}
