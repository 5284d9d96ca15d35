//! What a run has shown, for people and for programs.

mod about;
mod annex;
mod markdown;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

pub(crate) use about::About;

use annex::Annex;

use crate::annex::Judged;
use crate::kinds::Kind;
use crate::measure::{Measure, Worst, lock};
use crate::nemesis::State;
use crate::watch::{Sample, Seen};

/// How often a kind must have been survived before a run says anything about it.
const OFTEN_ENOUGH: u64 = 3;
/// Connections may be ended for good with this code only: a session was revoked.
const REVOKED: u16 = 4001;
const REFUSED_TOKENS: &str = "access tokens refused before their time";

/// Everything, as it is in `report.json`.
#[derive(Debug, Serialize)]
pub struct Report {
    about: About,
    faults: Vec<Fault>,
    /// Faults that could not be carried out as planned.
    failed: Vec<String>,
    interrupted: bool,
    counts: BTreeMap<&'static str, u64>,
    /// Refusals for good, by code: sends of people who had just been removed.
    refused: BTreeMap<String, u64>,
    /// Connections that were ended for good, by close code.
    stopped: BTreeMap<u16, u64>,
    times: Times,
    /// Growth of the nodes' counters.
    counters: BTreeMap<String, f64>,
    memory: Vec<Sample>,
    settled_in_ms: u64,
    /// What was still under way when everything should have come to rest.
    restless: Vec<String>,
    oracle: rookery_oracle::Report,
    /// What became of the node beside the cluster, if there was one.
    annex: Option<Annex>,
}

/// A kind of fault, and the longest times while it was on.
#[derive(Debug, Serialize)]
struct Fault {
    name: &'static str,
    what: &'static str,
    survived: u64,
    worst_lag_ms: Option<u64>,
    worst_repair_ms: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
struct Times {
    worst_unacked_ms: u64,
    worst_lag_ms: u64,
    worst_lag_in_peace_ms: u64,
    worst_repair_ms: u64,
    worst_resume_ms: u64,
    worst_revocation_ms: u64,
}

impl Report {
    pub(crate) fn new(
        about: About,
        kinds: &[&'static Kind],
        oracle: rookery_oracle::Report,
    ) -> Self {
        let fault = |kind: &&'static Kind| Fault {
            name: kind.name,
            what: kind.what,
            survived: 0,
            worst_lag_ms: None,
            worst_repair_ms: None,
        };
        Self {
            about,
            faults: kinds.iter().map(fault).collect(),
            failed: Vec::new(),
            interrupted: false,
            counts: BTreeMap::new(),
            refused: BTreeMap::new(),
            stopped: BTreeMap::new(),
            times: Times::default(),
            counters: BTreeMap::new(),
            memory: Vec::new(),
            settled_in_ms: 0,
            restless: Vec::new(),
            oracle,
            annex: None,
        }
    }

    pub(crate) fn add_faults(&mut self, state: State, interrupted: bool) {
        for fault in &mut self.faults {
            fault.survived = state.survived.get(fault.name).copied().unwrap_or(0);
        }
        self.failed = state.failed;
        self.interrupted = interrupted;
    }

    pub(crate) fn add_figures(&mut self, measure: &Measure, seen: Seen) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let count = &measure.count;
        self.counts = BTreeMap::from([
            ("sends offered", get(&count.offered)),
            ("sends left out", get(&count.skipped)),
            ("messages sent", get(&count.sent)),
            ("messages acked", get(&count.acked)),
            ("edits", get(&count.edits)),
            ("reactions", get(&count.reactions)),
            ("marks", get(&count.marks)),
            ("changes of members", get(&count.memberships)),
            ("arrivals", get(&count.arrivals)),
            ("changes that arrived", get(&count.changes)),
            ("connections", get(&count.connections)),
            ("resets", get(&count.resets)),
            (REFUSED_TOKENS, get(&count.refused_tokens)),
            ("tokens refused by a wrong clock", get(&count.clock_tokens)),
            ("log-ins forced by a wrong clock", get(&count.clock_ends)),
        ]);
        self.refused = lock(&measure.refused).clone();
        self.stopped = measure.all_stopped();
        let worst = measure.worst();
        self.times = Times {
            worst_unacked_ms: ms(worst.unacked),
            worst_lag_ms: ms(worst.lag),
            worst_lag_in_peace_ms: ms(worst.in_peace),
            worst_repair_ms: ms(worst.repair),
            worst_resume_ms: ms(worst.resume),
            worst_revocation_ms: ms(worst.revocation),
        };
        self.add_times(&worst);
        self.counters = seen.counters;
        self.memory = seen.memory;
    }

    /// The longest times by kinds of faults: of those of the annex it is the annex that knows them.
    fn add_times(&mut self, worst: &Worst) {
        for fault in &mut self.faults {
            if let Some((lag, repair)) = worst.by_kind.get(fault.name) {
                fault.worst_lag_ms = Some(ms(*lag));
                fault.worst_repair_ms = Some(ms(*repair));
            }
        }
    }

    pub(crate) fn add_annex(&mut self, measure: &Measure, judged: Vec<Judged>) {
        self.add_times(&measure.worst());
        self.annex = Some(Annex::of(measure, judged));
    }

    pub(crate) fn add_rest(&mut self, settled_in: Duration, restless: Vec<String>) {
        self.settled_in_ms = ms(settled_in);
        self.restless = restless;
    }

    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let annex = self.annex.as_ref();
        self.oracle.is_clean() && annex.is_none_or(Annex::is_clean) && self.problems().is_empty()
    }

    /// Whether every kind of fault was survived often enough for the verdict to mean something.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let often = |fault: &Fault| fault.survived >= OFTEN_ENOUGH;
        !self.interrupted && self.faults.iter().all(often)
    }

    #[must_use]
    pub fn passes(&self, allow_incomplete: bool) -> bool {
        self.is_clean() && (allow_incomplete || self.is_complete())
    }

    /// What is wrong beside the oracle's findings.
    fn problems(&self) -> Vec<String> {
        let stopped = self.stopped.iter().filter(|(code, _)| **code != REVOKED);
        let stopped =
            stopped.map(|(code, count)| format!("{count} connections were ended with {code}"));
        let failed = self.failed.iter().map(|text| format!("a fault: {text}"));
        let restless = self
            .restless
            .iter()
            .map(|text| format!("not at rest: {text}"));
        let refused = self.counts.get(REFUSED_TOKENS).filter(|count| **count > 0);
        let refused = refused.map(|count| format!("{REFUSED_TOKENS}: {count}"));
        let annex = self.annex.iter().flat_map(Annex::problems);
        stopped
            .chain(failed)
            .chain(restless)
            .chain(refused)
            .chain(annex)
            .collect()
    }

    /// Both forms, in this folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::write(folder.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(folder.join("report.md"), self.to_markdown())?;
        Ok(())
    }

    /// Faults that were survived.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.iter().map(|fault| fault.survived).sum()
    }

    /// Messages that were acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.oracle.counts.acked
    }

    /// One line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{}: {} faults of {} kinds, {} messages acked, {} arrivals",
            self.verdict(),
            self.faults(),
            self.faults.len(),
            self.acked(),
            self.oracle.counts.arrivals,
        )
    }

    fn verdict(&self) -> &'static str {
        match (self.is_clean(), self.is_complete()) {
            (true, true) => "clean",
            (true, false) => "clean, but incomplete",
            (false, _) => "BROKEN",
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
