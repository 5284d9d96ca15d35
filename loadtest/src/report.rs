//! What was found, as a file: versioned, for people (`table`, `page`), and for machines (JSON).

mod chart;
mod compare;
pub(crate) mod diff;
mod markdown;
mod page;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rookery_oracle::pair::Verdict;
use serde::{Deserialize, Serialize};

use crate::latency::Quantiles;
use crate::machine::Machine;
use crate::sampler::Sample;
use crate::threshold::{Check, Threshold};

/// Of the JSON; grows when a field changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// One run of one scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Unique in its report; thresholds and comparisons go by it.
    pub name: String,
    pub kind: String,
    /// What was done, in a sentence.
    pub about: String,
    /// The measured time, without warm-up and drain.
    pub seconds: f64,
    /// Seconds from the begin of the run, preparations included, until it measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_from_s: Option<f64>,
    /// Everything that can be compared, by name. What belongs to a role ends with it, and the unit
    /// ends the name before.
    pub metrics: BTreeMap<String, f64>,
    pub latencies: BTreeMap<String, Quantiles>,
    /// Promises, by name, and how often each was broken.
    pub oracle: BTreeMap<String, u64>,
    /// Promises that were not kept, in words.
    pub broken: Vec<String>,
    /// What happened and breaks no promise.
    pub notes: Vec<String>,
    pub samples: Vec<Sample>,
    /// Pairs of connections and resident bytes of all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_by_connections: Vec<(usize, u64)>,
    /// Where this run stands among those that differ in one number only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Of which of several servers that are compared; none where Rookery did it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

/// A run's place in a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compared {
    /// What was done to all of them.
    pub run: String,
    pub server: String,
}

/// One of several servers that are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerFacts {
    pub name: String,
    pub about: String,
    /// What it runs on, as it says.
    pub version: String,
    /// What an acknowledgement promises.
    pub persistence: String,
    /// Why it was not measured, or not to the end.
    pub problem: Option<String>,
}

/// A run's place in a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Growth {
    /// The number that grows, in words.
    pub series: String,
    pub x: f64,
    /// The metric that should stay flat.
    pub metric: String,
    /// More of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_metrics: Vec<String>,
}

impl Growth {
    /// All metrics that should stay flat.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.metric).chain(&self.more_metrics)
    }
}

/// All that one call of the load test found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub schema: u32,
    pub scenario: String,
    pub about: String,
    pub machine: Machine,
    pub targets: usize,
    /// As it was called.
    pub command: String,
    /// Those that are compared; the first is Rookery.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerFacts>,
    pub runs: Vec<Run>,
    pub checks: Vec<Check>,
    /// Why it ended early.
    pub problem: Option<String>,
}

impl Run {
    pub(crate) fn new(name: &str, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..Self::default()
        }
    }

    /// A metric. What cannot be said, such as a share of nothing, is left out.
    pub(crate) fn put(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.metrics.insert(name.to_owned(), value);
        }
    }

    pub(crate) fn put_roles(&mut self, name: &str, roles: impl IntoIterator<Item = (String, f64)>) {
        for (role, value) in roles {
            self.put(&format!("{name}.{role}"), value);
        }
    }

    pub(crate) fn put_latency(&mut self, name: &str, found: Quantiles) {
        for (quantile, ms) in [
            ("p50", found.p50_ms),
            ("p90", found.p90_ms),
            ("p99", found.p99_ms),
            ("p999", found.p999_ms),
            ("max", found.max_ms),
        ] {
            if found.count > 0 {
                self.put(&format!("{name}_{quantile}_ms"), ms);
            }
        }
        self.latencies.insert(name.to_owned(), found);
    }

    /// Something that must not happen, and how often it did.
    pub(crate) fn promise(&mut self, what: &str, count: u64) {
        self.oracle.insert(what.to_owned(), count);
        if count > 0 {
            self.broken.push(format!("{count} {what}"));
        }
    }

    pub(crate) fn judge(&mut self, verdict: Verdict) {
        self.notes.push(format!(
            "{} sent, {} acked, {} delivered",
            verdict.sent, verdict.acked, verdict.delivered
        ));
        for (what, count) in [
            ("unanswered", verdict.unanswered),
            ("lost", verdict.lost),
            ("doubled", verdict.doubled),
            ("reordered", verdict.reordered),
            ("holes", verdict.holes),
            ("foreign", verdict.foreign),
            ("refused", verdict.refused),
        ] {
            self.promise(what, count);
        }
    }

    /// Sockets that ended and came back, by close code.
    pub(crate) fn put_closed(&mut self, closed: BTreeMap<u16, u64>) {
        for (code, count) in closed {
            self.notes
                .push(format!("{count} SOCKETS CLOSED with {code}"));
        }
    }
}

impl Report {
    /// What to make of it, in a sentence.
    pub(super) fn verdict(&self) -> &'static str {
        match (self.is_clean(), &self.problem) {
            (false, _) => "NOT CLEAN: promises were broken",
            (true, _) if self.runs.iter().all(|run| run.oracle.is_empty()) => "nothing was judged",
            (true, Some(_)) => "incomplete: what was judged kept every promise",
            (true, None) => "clean: every promise was kept",
        }
    }

    /// Whether every promise was kept. What peers broke is in the comparison: they never promised.
    pub(crate) fn is_clean(&self) -> bool {
        let mut ours = self.runs.iter().filter(|run| self.is_ours(run));
        ours.all(|run| run.broken.is_empty())
    }

    /// Whether a run of it is Rookery's, and not a peer's.
    fn is_ours(&self, run: &Run) -> bool {
        match (&run.compared, self.servers.first()) {
            (Some(compared), Some(rookery)) => compared.server == rookery.name,
            _ => true,
        }
    }

    /// One more reason why it is not complete.
    pub(crate) fn add_problem(&mut self, problem: String) {
        self.problem = Some(match self.problem.take() {
            Some(earlier) => format!("{earlier}; {problem}"),
            None => problem,
        });
    }

    /// Whether every threshold was kept.
    pub(crate) fn keeps_thresholds(&self) -> bool {
        self.checks.iter().all(|check| check.kept)
    }

    pub(crate) fn check(&mut self, thresholds: &[Threshold]) {
        let checks = thresholds
            .iter()
            .map(|threshold| threshold.check(&self.runs));
        self.checks = checks.collect();
    }

    /// # Errors
    /// The file cannot be read, or is no report that this version understands.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{shown} is no JSON"))?;
        let schema = value.get("schema").and_then(serde_json::Value::as_u64);
        ensure!(
            schema == Some(u64::from(SCHEMA)),
            "{shown} is no report of this version: its schema is {}, not {SCHEMA}",
            schema.map_or_else(|| "missing".to_owned(), |schema| schema.to_string()),
        );
        serde_json::from_value(value).with_context(|| format!("{shown} is no report"))
    }

    /// Writes `path` as JSON, and beside it the same with the endings `.html` and `.md`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        for (path, text) in [
            (path.to_owned(), json),
            (path.with_extension("html"), page::page(self)),
            (path.with_extension("md"), markdown::text(self)),
        ] {
            replace(&path, &text)?;
        }
        Ok(())
    }

    /// Tries whether it could be written there, and leaves what is there as it is.
    ///
    /// # Errors
    /// It could not.
    pub(crate) fn can_be_written(path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        ensure!(
            !path.is_dir(),
            "{shown} is a folder: name a file for the report"
        );
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        let beside = beside(path);
        std::fs::write(&beside, "").with_context(|| format!("writing {shown}"))?;
        std::fs::remove_file(&beside).with_context(|| format!("writing {shown}"))
    }
}

/// Where a file is written until it is whole.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Writes a file; whoever reads it meanwhile has the old one, or the whole new one.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = beside(path);
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::latency::Latencies;

    /// A report with one run that has everything.
    pub(crate) fn sample() -> Report {
        let mut latencies = Latencies::new().unwrap();
        for millis in 1..100 {
            latencies.record(Duration::from_millis(millis));
        }
        let mut run = Run::new("saturated", "direct");
        run.seconds = 10.0;
        run.put("delivered_per_s", 1_000.0);
        run.put("cpu_us_per_message.gateway", 31.0);
        run.put_latency("deliver", latencies.quantiles());
        run.judge(Verdict {
            lost: 3,
            ..Verdict::default()
        });
        run.put_closed([(4101, 2)].into());
        run.samples = (1..=3)
            .map(|second| Sample {
                at_s: f64::from(second),
                rates: [("delivered".to_owned(), 1_000.0)].into(),
                cpu_cores: [("gateway".to_owned(), 0.5)].into(),
                memory_bytes: [("gateway".to_owned(), 1 << 20)].into(),
            })
            .collect();
        let mut report = Report {
            schema: SCHEMA,
            scenario: "bench".to_owned(),
            runs: vec![run],
            ..Report::default()
        };
        let bound = "saturated.cpu_us_per_message.gateway<=30";
        report.check(&[bound.parse().unwrap()]);
        report
    }

    #[test]
    fn a_report_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        Report::can_be_written(&path).unwrap();
        assert!(!path.exists());
        sample().write(&path).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        let read = Report::read(&path).unwrap();
        assert_eq!(read.runs[0].metrics, sample().runs[0].metrics);
        assert_eq!(read.runs[0].samples, sample().runs[0].samples);
        assert!(!read.is_clean() && !read.keeps_thresholds());
        for ending in ["html", "md"] {
            assert!(path.with_extension(ending).is_file(), "{ending}");
        }
    }

    #[test]
    fn what_is_no_report_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.json");
        for (text, wanted) in [
            ("{", "is no JSON"),
            ("{}", "its schema is missing"),
            (r#"{"schema":99}"#, "its schema is 99"),
            (r#"{"schema":1}"#, "is no report"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", Report::read(&path).unwrap_err());
            assert!(
                error.contains("other.json") && error.contains(wanted),
                "{error}"
            );
        }
        let error = Report::read(&folder.path().join("missing.json")).unwrap_err();
        assert!(error.to_string().contains("missing.json"), "{error}");
    }
}
