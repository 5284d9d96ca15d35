//! What became of the node beside the cluster.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::{REFUSED_TOKENS, REVOKED};
use crate::annex::Judged;
use crate::measure::Measure;

#[derive(Debug, Serialize)]
pub(super) struct Annex {
    sent: u64,
    acked: u64,
    arrivals: u64,
    connections: u64,
    resets: u64,
    problems: Vec<String>,
    /// One for each epoch of its database, in their order.
    oracle: Vec<rookery_oracle::Report>,
}

impl Annex {
    pub(super) fn of(measure: &Measure, judged: Vec<Judged>) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let count = &measure.count;
        let mut problems = Vec::new();
        for (code, count) in measure.all_stopped() {
            if code != REVOKED {
                problems.push(format!("{count} connections were ended with {code}"));
            }
        }
        if get(&count.refused_tokens) > 0 {
            problems.push(format!("{REFUSED_TOKENS}: {}", get(&count.refused_tokens)));
        }
        let mut oracle = Vec::new();
        for Judged { restless, verdict } in judged {
            problems.extend(restless.iter().map(|text| format!("not at rest: {text}")));
            oracle.push(verdict);
        }
        Self {
            sent: get(&count.sent),
            acked: get(&count.acked),
            arrivals: get(&count.arrivals),
            connections: get(&count.connections),
            resets: get(&count.resets),
            problems,
            oracle,
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        let mut verdicts = self.oracle.iter();
        // Without a verdict nothing was judged.
        !self.oracle.is_empty() && verdicts.all(rookery_oracle::Report::is_clean)
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|text| format!("annex: {text}"))
    }

    pub(super) fn write_markdown(&self, out: &mut String) -> fmt::Result {
        writeln!(
            out,
            "\n## The annex\n\nOne node with SQLite: {} messages sent, {} acked, {} arrivals, {} \
             connections, {} resets.",
            self.sent, self.acked, self.arrivals, self.connections, self.resets,
        )?;
        writeln!(
            out,
            "\n| epoch of its database | acked | arrivals | oracle |\n|---:|---:|---:|---|"
        )?;
        for (number, verdict) in self.oracle.iter().enumerate() {
            let counts = &verdict.counts;
            let word = if verdict.is_clean() {
                "clean"
            } else {
                "BROKEN"
            };
            let (acked, arrivals) = (counts.acked, counts.arrivals);
            writeln!(out, "| {} | {acked} | {arrivals} | {word} |", number + 1)?;
        }
        for (number, verdict) in self.oracle.iter().enumerate() {
            if !verdict.is_clean() {
                let title = format!("The oracle on epoch {} of the annex", number + 1);
                write!(out, "\n{}", verdict.to_markdown(&title))?;
            }
        }
        Ok(())
    }
}
