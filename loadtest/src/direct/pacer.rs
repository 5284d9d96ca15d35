//! The open loop: when each message is due, whatever the server does.

use std::time::{Duration, Instant};

use anyhow::ensure;
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

/// A thread of its own: tokio's timers count in milliseconds, too coarse for latencies of one.
#[derive(Debug)]
pub(super) struct Pacer {
    rate: f64,
    pairs: Vec<mpsc::Sender<Instant>>,
}

/// The pacer of a plan with a rate, and each couple's queue.
pub(super) fn queues(plan: &Plan) -> (Option<Pacer>, Vec<Option<Due>>) {
    let Load::Rate { per_second } = plan.load else {
        return (None, plan.couples.iter().map(|_| None).collect());
    };
    let (pairs, dues) = plan
        .couples
        .iter()
        .map(|_| mpsc::channel(DUE))
        .map(|(tx, rx)| (tx, Some(rx)))
        .unzip();
    (
        Some(Pacer {
            rate: per_second,
            pairs,
        }),
        dues,
    )
}

impl Pacer {
    /// Hands out due times until nothing more is to be sent: to each pair in turn, evenly.
    ///
    /// # Errors
    /// This machine cannot keep up: messages were due that no connection took.
    pub(super) fn run(self, schedule: &Schedule) -> anyhow::Result<()> {
        let mut missed = 0_u64;
        for message in 0_u64.. {
            let due = schedule.start + Duration::from_secs_f64(message as f64 / self.rate);
            if due >= schedule.measure_to {
                break;
            }
            loop {
                let wait = due.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    break;
                }
                std::thread::sleep(wait.clamp(STEP, NAP));
            }
            let pair = usize::try_from(message).unwrap_or(0) % self.pairs.len();
            missed += u64::from(self.pairs[pair].try_send(due).is_err());
        }
        ensure!(
            missed == 0,
            "{missed} messages were never sent: this machine is too slow for it"
        );
        Ok(())
    }
}
