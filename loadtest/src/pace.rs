//! The open loop for whatever is asked and answered: each request is due at a fixed time, however
//! long those before it take, and its latency counts from then (no coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::latency::Latencies;
use crate::report::Run;

/// Requests that may be due and not yet begun: only a machine that is too slow has more.
const DUE: usize = 1_024;
/// Longest sleep: how late the end may be noticed.
const NAP: Duration = Duration::from_millis(50);

/// How long requests are made before any counts: what a node, a database and their connections do for
/// the first time is no measure of what they do all day.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    latencies: Latencies,
    failed: u64,
    failure: Option<String>,
}

impl Outcome {
    /// What failed in the warm-up has failed.
    pub(crate) fn after(mut self, warm_up: Self) -> Self {
        self.failed += warm_up.failed;
        self.failure = self.failure.or(warm_up.failure);
        self
    }

    /// Into the books of a run, under this name, where a failure breaks a promise.
    pub(crate) fn put(self, run: &mut Run, name: &str) {
        run.promise(&format!("{name} failed"), self.failed);
        self.put_loose(run, name);
    }

    /// The same where a busy server may refuse: a threshold says how often.
    pub(crate) fn put_loose(self, run: &mut Run, name: &str) {
        run.put_latency(name, self.latencies.quantiles());
        run.put(&format!("{name}_failed"), self.failed as f64);
        if let Some(failure) = self.failure {
            run.notes.push(format!("{name}: {failure}"));
        }
    }
}

/// What happens how often, and until when.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    pub per_second: f64,
    pub from: Instant,
    pub to: Instant,
    /// What was due before is a warm-up.
    pub counts_from: Instant,
    /// Grows with each answer.
    pub answered: Arc<AtomicU64>,
}

impl Pace {
    /// From now on, for so long.
    pub(crate) fn new(per_second: f64, time: Duration) -> Self {
        let from = Instant::now();
        Self::between(per_second, from, from + time)
    }

    pub(crate) fn between(per_second: f64, from: Instant, to: Instant) -> Self {
        Self {
            per_second,
            from,
            to,
            counts_from: from,
            answered: Arc::default(),
        }
    }

    /// The same, but what is due before then is not in the latencies; its failures count.
    pub(crate) fn counting_from(self, counts_from: Instant) -> Self {
        Self {
            counts_from,
            ..self
        }
    }

    /// Hands out due times from a thread of its own: tokio's timers count in milliseconds, too
    /// coarse for latencies of one.
    fn start(&self) -> mpsc::Receiver<Instant> {
        let (due, dues) = mpsc::channel(DUE);
        let pace = self.clone();
        std::thread::spawn(move || {
            for number in 0_u64.. {
                let at = pace.from + Duration::from_secs_f64(number as f64 / pace.per_second);
                while let wait @ 1.. = at.saturating_duration_since(Instant::now()).as_nanos() {
                    let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
                    std::thread::sleep(wait.min(NAP));
                }
                // Waiting for a full queue shows in the latencies of those behind.
                if at >= pace.to || due.blocking_send(at).is_err() {
                    return;
                }
            }
        });
        dues
    }

    /// Does it at each due time, concurrently, and waits for the last of them.
    ///
    /// # Errors
    /// None; what fails is counted.
    pub(crate) async fn run(
        &self,
        act: impl AsyncFn(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        let mut dues = self.start();
        let mut outcome = Outcome {
            latencies: Latencies::new()?,
            failed: 0,
            failure: None,
        };
        let (act, mut number, mut open) = (&act, 0, true);
        let mut under_way = FuturesUnordered::new();
        while open || !under_way.is_empty() {
            tokio::select! {
                biased;
                due = dues.recv(), if open => match due {
                    Some(at) => {
                        let this = number;
                        under_way.push(async move { (at, act(this).await) });
                        number += 1;
                    }
                    None => open = false,
                },
                Some((at, result)) = under_way.next() => match result {
                    Ok(()) => {
                        if at >= self.counts_from {
                            outcome.latencies.record(at.elapsed());
                        }
                        self.answered.fetch_add(1, Relaxed);
                    }
                    Err(error) => {
                        outcome.failed += 1;
                        outcome.failure = Some(format!("{error:#}"));
                    }
                },
            }
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_answer_delays_nobody_else_and_failures_are_counted() {
        let pace = Pace::new(100.0, Duration::from_millis(200));
        let release = tokio::sync::Notify::new();
        let act = async |number: usize| match number {
            0 => {
                release.notified().await;
                Ok(())
            }
            19 => {
                release.notify_one();
                anyhow::bail!("the last one")
            }
            _ => Ok(()),
        };
        // The first waits for the last: were they done in turn, this would not end.
        let outcome = tokio::time::timeout(Duration::from_secs(60), pace.run(act));
        let outcome = outcome.await.unwrap().unwrap();
        let mut run = Run::new("x", "x");
        outcome.put(&mut run, "page");
        assert_eq!(run.latencies["page"].count, 19);
        assert_eq!(run.metrics["page_failed"], 1.0);
        assert_eq!(run.notes, ["page: the last one"]);
    }

    #[tokio::test]
    async fn what_is_due_in_the_warm_up_is_done_and_not_in_the_latencies() {
        let from = Instant::now();
        let [counts_from, to] = [100, 200].map(|ms| from + Duration::from_millis(ms));
        let pace = Pace::between(100.0, from, to).counting_from(counts_from);
        let outcome = pace.run(async |number| match number {
            0 => anyhow::bail!("the first"),
            _ => Ok(()),
        });
        let mut run = Run::new("x", "x");
        outcome.await.unwrap().put_loose(&mut run, "page");
        assert_eq!(run.latencies["page"].count, 10);
        assert_eq!(pace.answered.load(Relaxed), 19);
        assert_eq!(run.metrics["page_failed"], 1.0);
    }
}
