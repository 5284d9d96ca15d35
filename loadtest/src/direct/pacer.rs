//! The open loop: when each message is due, whatever the server does.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rookery_pause::Pauses;
use tokio::sync::mpsc;

use super::Load;
use super::Plan;
use crate::schedule::Schedule;

/// When messages of one pair are due. Ends with the run.
pub(super) type Due = mpsc::Receiver<Instant>;

/// The next time that a message is due; never, where there are no such times.
pub(super) async fn next_due(due: &mut Option<Due>) -> Option<Instant> {
    match due {
        Some(due) => due.recv().await,
        None => std::future::pending().await,
    }
}

/// Messages of one pair that may be due and not yet sent: far more than any run lets gather,
/// unless this machine is too slow for the rate.
const DUE: usize = 4_096;
/// Longest sleep: how late the end of a run may be noticed.
const NAP: Duration = Duration::from_millis(50);

/// Shortest sleep: at high rates several messages are handed out after one. Their latency contains
/// what they are late by, and the servers have what waking for each would cost.
const STEP: Duration = Duration::from_micros(500);

/// Hands out due times to the pairs of one thread, as a task of that thread: another thread would have
/// to be woken, and would wake this one, for every few messages.
#[derive(Debug)]
pub(super) struct Pacer {
    rate: f64,
    /// How many pairs all threads have.
    all: usize,
    /// The pairs of this thread, by their number among all.
    pairs: Vec<(usize, mpsc::Sender<Instant>)>,
}

impl Pacer {
    /// Of a plan with a rate, for these pairs; and the queue of each.
    pub(super) fn new(
        plan: &Plan,
        pairs: impl Iterator<Item = usize>,
    ) -> (Option<Self>, Vec<Option<Due>>) {
        let Load::Rate { per_second } = plan.load else {
            return (None, pairs.map(|_| None).collect());
        };
        let (pairs, dues) = pairs
            .map(|index| {
                let (tx, rx) = mpsc::channel(DUE);
                ((index, tx), Some(rx))
            })
            .unzip();
        let pacer = Self {
            rate: per_second,
            all: plan.couples.len(),
            pairs,
        };
        (Some(pacer), dues)
    }

    /// Hands out due times until nothing more is to be sent: to each pair in turn, evenly.
    ///
    /// # Errors
    /// This machine cannot keep up: messages were due that no connection took.
    pub(super) async fn run(self, schedule: &Schedule) -> anyhow::Result<()> {
        let pauses = Pauses::new();
        let mut missed = 0_u64;
        for (message, queue) in self.messages() {
            let due = schedule.start + Duration::from_secs_f64(message as f64 / self.rate);
            if due >= schedule.measure_to {
                break;
            }
            loop {
                let wait = due.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    break;
                }
                pauses.make(wait.clamp(STEP, NAP)).await;
            }
            missed += u64::from(queue.try_send(due).is_err());
        }
        ensure!(
            missed == 0,
            "{missed} messages were never sent: this machine is too slow for it"
        );
        Ok(())
    }

    /// The messages of this thread's pairs, numbered among those of all threads, in the order in which they are
    /// due, without end.
    fn messages<'a>(&'a self) -> impl Iterator<Item = (usize, &'a mpsc::Sender<Instant>)> {
        let all = self.all;
        let round = move |round: usize| {
            let numbered = move |(index, queue): &'a (usize, _)| (round * all + index, queue);
            self.pairs.iter().map(numbered)
        };
        (0..).flat_map(round)
    }
}

/// The pairs of one of so many threads.
pub(super) fn pairs_of(
    thread: usize,
    threads: usize,
    all: usize,
) -> impl Iterator<Item = usize> + Clone {
    (thread..all).step_by(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_together_hand_out_every_message_once_and_in_order() {
        const PAIRS: usize = 7;
        for threads in 1..=PAIRS {
            let mut all = Vec::new();
            for thread in 0..threads {
                let pairs = pairs_of(thread, threads, PAIRS);
                let pacer = Pacer {
                    rate: 1.0,
                    all: PAIRS,
                    pairs: pairs.map(|index| (index, mpsc::channel(1).0)).collect(),
                };
                let ten_rounds = pacer.messages().take_while(|(n, _)| *n < 10 * PAIRS);
                let own: Vec<_> = ten_rounds.map(|(message, _)| message).collect();
                assert!(own.is_sorted());
                assert!(
                    own.iter()
                        .all(|message| message % PAIRS % threads == thread)
                );
                all.extend(own);
            }
            all.sort_unstable();
            assert_eq!(
                all,
                (0..10 * PAIRS).collect::<Vec<_>>(),
                "{threads} threads"
            );
        }
    }
}
