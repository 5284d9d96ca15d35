//! What a check found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use rookery_protocol::MessageId;
use serde::{Deserialize, Serialize};

use crate::check::Kind;

/// The outcome of a check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// One of each kind that was found; none if every promise was kept.
    pub findings: Vec<Finding>,
    /// What could not be judged, by reason.
    pub unjudged: BTreeMap<String, u64>,
    pub counts: Counts,
    pub lag: Lag,
    /// Entries of logs that were looked at.
    pub work: u64,
}

/// Broken promises of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub kind: Kind,
    pub count: u64,
    /// The first one, in a sentence.
    pub first: String,
    /// `file:line` of the event that shows it; none where only the store does.
    pub place: Option<String>,
    /// Its wall time.
    pub at_ms: Option<i64>,
    /// What its device saw before and after.
    pub around: Vec<String>,
    /// What all devices saw of the message concerned.
    pub story: Vec<String>,
    /// Faults that were on then, or shortly before.
    pub faults: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub events: u64,
    pub devices: u64,
    pub connections: u64,
    /// Messages sent, each counted once however often it was repeated.
    pub sends: u64,
    pub acked: u64,
    pub refused: u64,
    pub given_up: u64,
    /// Still in a device's outbox at the end.
    pub waiting: u64,
    pub silent: u64,
    pub arrivals: u64,
    /// Arrivals that the device had seen on an earlier connection: allowed beyond its cursors.
    pub repeats: u64,
    pub changes: u64,
    pub resets: u64,
    /// Devices without an end.
    pub cut_short: u64,
    /// Files that end within a line.
    pub torn: u64,
}

/// From the ack of a message to its arrival, or from `ready` where that was later, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    pub count: u64,
    pub p50_ms: u32,
    pub p99_ms: u32,
    pub worst_ms: u32,
    pub worst: Option<Slowest>,
}

/// The arrival that took longest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slowest {
    /// `file:line`.
    pub place: String,
    pub message_id: MessageId,
}

impl Lag {
    pub(crate) fn of(mut lags: Vec<u32>, worst: Option<Slowest>) -> Self {
        let count = lags.len();
        let mut rank = |per_cent: usize| {
            let index = (count * per_cent / 100).min(count.saturating_sub(1));
            if lags.is_empty() {
                0
            } else {
                *lags.select_nth_unstable(index).1
            }
        };
        Self {
            count: count as u64,
            p50_ms: rank(50),
            p99_ms: rank(99),
            worst_ms: rank(100),
            worst,
        }
    }
}

impl Report {
    /// Whether every promise was kept, as far as it could be judged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many promises of a kind were broken.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        let found = self.findings.iter().find(|finding| finding.kind == kind);
        found.map_or(0, |finding| finding.count)
    }

    /// A section of a report in Markdown, headed by `title` at level 2.
    #[must_use]
    pub fn to_markdown(&self, title: &str) -> String {
        let mut text = format!("## {title}\n\n");
        // Writing to a string does not fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, out: &mut String) -> fmt::Result {
        let verdict = if self.is_clean() { "clean" } else { "BROKEN" };
        writeln!(out, "Verdict: **{verdict}**\n")?;
        writeln!(out, "| broken promises | |\n|---|---:|")?;
        for kind in Kind::ALL {
            writeln!(out, "| {} | {} |", kind.as_str(), self.count(kind))?;
        }
        let counts = &self.counts;
        writeln!(out, "\n| | |\n|---|---:|")?;
        for (what, number) in [
            ("devices", counts.devices),
            ("connections", counts.connections),
            ("sends", counts.sends),
            ("acknowledged", counts.acked),
            ("refused", counts.refused),
            ("given up", counts.given_up),
            ("in an outbox at the end", counts.waiting),
            ("arrivals", counts.arrivals),
            ("of them seen before (dropped by cursor)", counts.repeats),
            ("changes", counts.changes),
            ("resets", counts.resets),
            ("devices cut short", counts.cut_short),
        ] {
            writeln!(out, "| {what} | {number} |")?;
        }
        let lag = &self.lag;
        writeln!(
            out,
            "\nFrom ack (or `ready`) to arrival: p50 {} ms, p99 {} ms, worst {} ms{}.",
            lag.p50_ms,
            lag.p99_ms,
            lag.worst_ms,
            lag.worst
                .as_ref()
                .map_or(String::new(), |worst| format!(" (`{}`)", worst.place))
        )?;
        if !self.unjudged.is_empty() {
            writeln!(out, "\nNot judged, because the facts do not suffice:\n")?;
            for (why, count) in &self.unjudged {
                writeln!(out, "- {count} × {why}")?;
            }
        }
        for finding in &self.findings {
            finding.write_markdown(out)?;
        }
        Ok(())
    }
}

impl Finding {
    fn write_markdown(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n### {}: {}\n", self.kind.as_str(), self.count)?;
        let place = self.place.as_deref().unwrap_or("the store");
        writeln!(out, "First: {} (`{place}`).", self.first)?;
        if !self.faults.is_empty() {
            writeln!(out, "Faults then: {}.", self.faults.join("; "))?;
        }
        for (title, lines) in [("Around it", &self.around), ("Its story", &self.story)] {
            if !lines.is_empty() {
                writeln!(out, "\n{title}:\n\n```\n{}\n```", lines.join("\n"))?;
            }
        }
        Ok(())
    }
}
