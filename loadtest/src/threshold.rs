//! Bounds on what is measured, such as `direct.deliver_p99_ms<=12`: they set the exit code, so that
//! a deployment can be held back. A bound may be a multiple of what an earlier run measured:
//! `beside.deliver_p99_ms<=1.25*alone.deliver_p99_ms`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::report::Run;
use crate::report::table::number;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    left: Metric,
    at_most: bool,
    bound: f64,
    /// What the bound is a multiple of.
    times: Option<Metric>,
}

/// A metric of a run, by their names.
#[derive(Clone, Debug, PartialEq)]
struct Metric {
    run: String,
    name: String,
}

impl Metric {
    fn parse(text: &str) -> Option<Self> {
        let (run, name) = text.trim().split_once('.')?;
        (!run.is_empty() && !name.is_empty()).then(|| Self {
            run: run.to_owned(),
            name: name.to_owned(),
        })
    }

    fn of(&self, runs: &[Run]) -> Option<f64> {
        let run = runs.iter().find(|run| run.name == self.run)?;
        run.metrics.get(&self.name).copied()
    }
}

/// How a run stands to a threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub threshold: String,
    /// None: it was not measured, which is not good enough either.
    pub value: Option<f64>,
    pub kept: bool,
    /// Metrics that it is about and that were not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

impl Check {
    /// How it was kept, in a word or two.
    pub(crate) fn word(&self) -> &'static str {
        match (self.kept, self.missing.is_empty()) {
            (true, _) => "within",
            (false, true) => "OVER",
            (false, false) => "NOT MEASURED",
        }
    }

    /// What was measured, or what is missing.
    pub(crate) fn found(&self) -> String {
        match (self.missing.is_empty(), self.value) {
            (true, Some(value)) => number(value),
            _ => format!("there is no {}", self.missing.join(", no ")),
        }
    }
}

impl FromStr for Threshold {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wanted =
            || format!("{text:?} is no threshold, which look like direct.deliver_p99_ms<=12");
        let (left, at_most, bound) = match (text.split_once("<="), text.split_once(">=")) {
            (Some((left, bound)), None) => (left, true, bound),
            (None, Some((left, bound))) => (left, false, bound),
            _ => anyhow::bail!(wanted()),
        };
        let (factor, times) = match bound.split_once('*') {
            Some((factor, metric)) => (factor, Some(Metric::parse(metric).with_context(wanted)?)),
            None => (bound, None),
        };
        let bound: f64 = factor.trim().parse().ok().with_context(wanted)?;
        ensure!(bound.is_finite(), wanted());
        Ok(Self {
            left: Metric::parse(left).with_context(wanted)?,
            at_most,
            bound,
            times,
        })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.at_most { "<=" } else { ">=" };
        let Metric { run, name } = &self.left;
        write!(f, "{run}.{name}{sign}{}", self.bound)?;
        match &self.times {
            Some(Metric { run, name }) => write!(f, "*{run}.{name}"),
            None => Ok(()),
        }
    }
}

impl Threshold {
    pub(crate) fn check(&self, runs: &[Run]) -> Check {
        let value = self.left.of(runs);
        let bound = match &self.times {
            Some(metric) => metric.of(runs).map(|measured| measured * self.bound),
            None => Some(self.bound),
        };
        let keeps = |value: f64, bound: f64| match self.at_most {
            true => value <= bound,
            false => value >= bound,
        };
        let metrics = std::iter::once(&self.left).chain(&self.times);
        let missing = metrics.filter(|metric| metric.of(runs).is_none());
        let missing = missing.map(|metric| format!("{}.{}", metric.run, metric.name));
        Check {
            missing: missing.collect(),
            threshold: self.to_string(),
            value,
            kept: value
                .zip(bound)
                .is_some_and(|(value, bound)| keeps(value, bound)),
        }
    }

    /// The runs that it is about.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &str> {
        let times = self.times.as_ref().map(|metric| metric.run.as_str());
        std::iter::once(self.left.run.as_str()).chain(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_and_checked() {
        let mut run = Run::new("direct", "direct");
        run.metrics.insert("cpu_us.gateway".into(), 12.0);
        let mut other = Run::new("twice", "direct");
        other.metrics.insert("cpu_us.gateway".into(), 24.0);
        let runs = [run, other];
        for (text, value, kept) in [
            ("direct.cpu_us.gateway<=12", Some(12.0), true),
            ("direct.cpu_us.gateway <= 11.5", Some(12.0), false),
            ("direct.cpu_us.gateway>=13", Some(12.0), false),
            ("direct.unheard_of<=1", None, false),
            (
                "twice.cpu_us.gateway<=2*direct.cpu_us.gateway",
                Some(24.0),
                true,
            ),
            (
                "twice.cpu_us.gateway<=1.9*direct.cpu_us.gateway",
                Some(24.0),
                false,
            ),
            (
                "twice.cpu_us.gateway<=2*direct.unheard_of",
                Some(24.0),
                false,
            ),
            ("other.cpu_us.gateway<=12", None, false),
        ] {
            let check = text.parse::<Threshold>().unwrap().check(&runs);
            assert_eq!((check.value, check.kept), (value, kept), "{text}");
            let is_missing = text.contains("unheard_of") || text.starts_with("other");
            assert_eq!(check.word() == "NOT MEASURED", is_missing, "{text}");
            assert_eq!(
                check.found().starts_with("there is no"),
                is_missing,
                "{text}"
            );
        }
        for bad in [
            "",
            "direct<=1",
            "direct.x",
            "direct.x<=y",
            ".x<=1",
            "a.b<1",
            "a.b<=NaN",
            "a.b<=2*",
            "a.b<=2*c",
        ] {
            let error = bad.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains("is no threshold"), "{bad}: {error}");
        }
    }
}
