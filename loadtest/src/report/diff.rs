//! Two reports side by side, as a gate: what became worse, and what is not known any more.
//!
//! Judged are rates, medians and 99th percentiles, and what the servers cost. All else is shown: a
//! maximum, the load test's own CPU or a server's memory at one moment differ between two reports of
//! the same code.

use std::fmt::Write;

use super::table::number;
use super::{Report, Run};
use crate::meter::GENERATOR;

/// By how many percent a figure may become worse. Two reports of the same code on a machine that
/// others share differ by 10 to 30 percent; what is larger on a quiet machine is a change.
pub(crate) const TOLERANCE_PERCENT: f64 = 25.0;

/// What should shrink, by the end of its name before the role, and the difference in its unit that
/// is none: a few ticks of 10 ms over as many messages as a run has, or a timer's turn.
const COSTS: &[(&str, f64)] = &[
    ("_p50_ms", 1.0),
    ("_p99_ms", 5.0),
    ("cpu_us_per_message", 2.0),
    ("cpu_us_per_delivery", 0.5),
    ("cpu_us_per_sighting", 50.0),
    ("cpu_us_per_connect", 25.0),
    ("cpu_us_per_connection_s", 0.3),
    ("kib_per_connection", 0.5),
];
/// What should grow, whole names. A drain's `most_closed_per_s` is none of them.
const RATES: &[&str] = &[
    "acked_per_s",
    "delivered_per_s",
    "deliveries_per_s",
    "messages_per_s",
    "connects_per_s",
];
/// A second.
const RATE_FLOOR: f64 = 1.0;

/// How a metric is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Rate,
    /// Differences below this are none.
    Cost(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Same,
}

/// None: it is shown and not judged.
fn rule(metric: &str) -> Option<Rule> {
    let (name, role) = metric.split_once('.').unwrap_or((metric, ""));
    if RATES.contains(&name) {
        return Some(Rule::Rate);
    }
    let cost = COSTS.iter().find(|(end, _)| name.ends_with(end));
    cost.filter(|_| role != GENERATOR)
        .map(|(_, floor)| Rule::Cost(*floor))
}

fn verdict(rule: Rule, before: f64, after: f64, tolerance_percent: f64) -> Verdict {
    // A cost that grows to a multiple and a rate that falls to its reciprocal are as bad.
    let (floor, worse_by, better_by) = match rule {
        Rule::Rate => (RATE_FLOOR, (after, before), (before, after)),
        Rule::Cost(floor) => (floor, (before, after), (after, before)),
    };
    let beyond = |(small, large): (f64, f64)| {
        large - small > floor && large > small * (1.0 + tolerance_percent / 100.0)
    };
    match (beyond(worse_by), beyond(better_by)) {
        (true, _) => Verdict::Worse,
        (_, true) => Verdict::Better,
        _ => Verdict::Same,
    }
}

/// What two reports say about each other.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub text: String,
    /// Everything that became worse, or is not known any more.
    pub worse: usize,
    /// Judged metrics that both have; none: the reports cannot be compared.
    pub judged: usize,
}

/// Writing to a string cannot fail.
macro_rules! line {
    ($found:expr, $($part:tt)*) => {{ let _ = writeln!($found.text, $($part)*); }};
}

/// Compares B, `after`, with A.
pub(crate) fn compare(before: &Report, after: &Report, tolerance_percent: f64) -> Comparison {
    let mut found = Comparison::default();
    let (a, b) = (&before.machine, &after.machine);
    line!(found, "A: {}\nB: {}", a.text(), b.text());
    if (&a.cpu, a.cores) != (&b.cpu, b.cores) {
        line!(found, "measured on different machines: compare with care");
    }
    if let Some(problem) = &before.problem {
        line!(found, "A is incomplete: {problem}");
    }
    if let Some(problem) = &after.problem {
        found.worse(&format!("B is incomplete: {problem}"));
    }
    for run in &after.runs {
        match before.runs.iter().find(|old| old.name == run.name) {
            Some(old) => found.run(old, run, after.is_ours(run), tolerance_percent),
            None => {
                line!(found, "\n{}: only in B", run.name);
                found.broken(run, after.is_ours(run));
            }
        }
    }
    for old in &before.runs {
        if after.runs.iter().any(|run| run.name == old.name) {
            continue;
        }
        line!(found, "\n{}: only in A", old.name);
        if before.is_ours(old) {
            found.worse("the run is missing in B");
        }
    }
    found.checks(before, after);
    found
}

impl Comparison {
    fn worse(&mut self, what: &str) {
        self.worse += 1;
        line!(self, "  WORSE: {what}");
    }

    fn broken(&mut self, run: &Run, is_ours: bool) {
        for broken in &run.broken {
            match is_ours {
                true => self.worse(&format!("broken in B: {broken}")),
                false => line!(self, "  broken in B: {broken}"),
            }
        }
    }

    /// What peers do is shown: they promised nothing.
    fn run(&mut self, old: &Run, new: &Run, is_ours: bool, tolerance_percent: f64) {
        line!(
            self,
            "\n{}\n  {:<34}{:>12}{:>12}{:>9}",
            new.name,
            "",
            "A",
            "B",
            ""
        );
        if old.about != new.about {
            line!(self, "  not the same: {} | {}", old.about, new.about);
        }
        for (metric, before) in &old.metrics {
            let rule = rule(metric).filter(|_| is_ours);
            let Some(after) = new.metrics.get(metric) else {
                if rule.is_some() {
                    self.worse(&format!("{metric} was not measured in B"));
                }
                continue;
            };
            let verdict = rule.map(|rule| verdict(rule, *before, *after, tolerance_percent));
            self.judged += usize::from(verdict.is_some());
            self.worse += usize::from(verdict == Some(Verdict::Worse));
            let word = match verdict {
                Some(Verdict::Better) => "  better",
                Some(Verdict::Worse) => "  WORSE",
                Some(Verdict::Same) => "  same",
                None => "",
            };
            let change = match *before == 0.0 {
                true => String::new(),
                false => format!("{:+.1} %", (after / before - 1.0) * 100.0),
            };
            let (before, after) = (number(*before), number(*after));
            line!(
                self,
                "  {metric:<34}{before:>12}{after:>12}{change:>11}{word}"
            );
        }
        if is_ours {
            for promise in old.oracle.keys() {
                if !new.oracle.contains_key(promise) {
                    self.worse(&format!("{promise:?} was not judged in B"));
                }
            }
        }
        self.broken(new, is_ours);
    }

    /// A bound that is over in both is no news.
    fn checks(&mut self, before: &Report, after: &Report) {
        let of = |report: &Report, threshold: &str| {
            let mut checks = report.checks.iter();
            let check = checks.find(|check| check.threshold == threshold);
            check.map(|check| check.kept)
        };
        for old in &before.checks {
            if of(after, &old.threshold).is_none() {
                self.worse(&format!("{} was not checked in B", old.threshold));
            }
        }
        for new in after.checks.iter().filter(|check| !check.kept) {
            if of(before, &new.threshold) != Some(false) {
                self.worse(&format!("{} is not kept in B", new.threshold));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::super::{Compared, ServerFacts};
    use super::*;

    fn worse(before: &Report, after: &Report) -> usize {
        compare(before, after, TOLERANCE_PERCENT).worse
    }

    fn clean() -> Report {
        let mut report = sample();
        report.runs[0].broken.clear();
        report
    }

    #[test]
    fn costs_should_shrink_and_rates_grow_beyond_tolerance_and_floor() {
        for (metric, before, after, wanted) in [
            ("cpu_us_per_message.gateway", 100.0, 50.0, Verdict::Better),
            ("cpu_us_per_message.postgres", 100.0, 130.0, Verdict::Worse),
            ("cpu_us_per_message.redis", 3.0, 4.5, Verdict::Same),
            ("cpu_us_per_connection_s.gateway", 0.9, 1.5, Verdict::Worse),
            ("cpu_us_per_connection_s.redis", 0.0, 0.1, Verdict::Same),
            ("cpu_us_per_connect.gateway", 0.0, 30.0, Verdict::Worse),
            ("kib_per_connection", 5.7, 8.0, Verdict::Worse),
            ("deliver_p99_ms", 100.0, 120.0, Verdict::Same),
            ("deliver_p99_ms", 100.0, 130.0, Verdict::Worse),
            ("deliver_p99_ms", 3.0, 7.0, Verdict::Same),
            ("page_p50_ms", 1.0, 3.0, Verdict::Worse),
            ("delivered_per_s", 100.0, 130.0, Verdict::Better),
            ("delivered_per_s", 100.0, 75.0, Verdict::Worse),
            ("delivered_per_s", 100.0, 85.0, Verdict::Same),
        ] {
            let rule = rule(metric).unwrap_or_else(|| panic!("{metric} is judged"));
            let found = verdict(rule, before, after, 25.0);
            assert_eq!(found, wanted, "{metric} {before} {after}");
        }
        assert_eq!(verdict(Rule::Rate, 100.0, 90.0, 5.0), Verdict::Worse);
    }

    #[test]
    fn what_differs_by_itself_is_not_judged() {
        for metric in [
            "most_closed_per_s",
            "deliver_max_ms",
            "deliver_p999_ms",
            "memory_mib.redis",
            "cpu_us_per_message.generator",
            "cores.gateway",
            "page_failed",
        ] {
            assert_eq!(rule(metric), None, "{metric}");
        }
    }

    #[test]
    fn what_became_worse_is_counted() {
        let (before, mut after) = (sample(), clean());
        assert_eq!(worse(&before, &after), 0);
        after.runs[0].put("delivered_per_s", 500.0);
        after.runs[0].put("deliver_max_ms", 9_000.0);
        let found = compare(&before, &after, TOLERANCE_PERCENT);
        assert_eq!(found.worse, 1, "{}", found.text);
        assert!(found.text.contains("-50.0 %  WORSE"), "{}", found.text);
        assert_eq!(compare(&before, &after, 110.0).worse, 0);
        let (before, after) = (clean(), sample());
        assert_eq!(worse(&before, &after), 1, "three were lost");
    }

    #[test]
    fn what_is_not_known_any_more_is_worse() {
        let before = clean();
        type Change = fn(&mut Report);
        let gone: [(&str, Change); 6] = [
            ("saturated: only in A", |report| {
                "other".clone_into(&mut report.runs[0].name);
            }),
            ("delivered_per_s was not measured in B", |report| {
                report.runs[0].metrics.remove("delivered_per_s");
            }),
            ("B is incomplete: it ended early", |report| {
                report.problem = Some("it ended early".to_owned());
            }),
            ("\"lost\" was not judged in B", |report| {
                report.runs[0].oracle.remove("lost");
            }),
            ("gateway<=30 was not checked in B", |report| {
                report.checks.clear();
            }),
            ("gateway<=31 is not kept in B", |report| {
                let bound = "saturated.cpu_us_per_message.gateway<=30";
                let stricter = report.checks[0].clone();
                report.checks[0].kept = true;
                report.checks.push(crate::threshold::Check {
                    threshold: bound.replace("30", "31"),
                    ..stricter
                });
            }),
        ];
        for (wanted, change) in gone {
            let mut after = clean();
            change(&mut after);
            let found = compare(&before, &after, TOLERANCE_PERCENT);
            assert_eq!(found.worse, 1, "{wanted}:\n{}", found.text);
            assert!(found.text.contains(wanted), "{wanted}:\n{}", found.text);
        }
    }

    #[test]
    fn nothing_in_common_is_nothing_judged() {
        let (before, mut after) = (clean(), clean());
        assert!(compare(&before, &after, TOLERANCE_PERCENT).judged > 0);
        "other".clone_into(&mut after.runs[0].name);
        assert_eq!(compare(&before, &after, TOLERANCE_PERCENT).judged, 0);
    }

    #[test]
    fn a_peer_is_not_judged() {
        let of_a_peer = |mut report: Report| {
            let facts = |name: &str| ServerFacts {
                name: name.to_owned(),
                ..ServerFacts::default()
            };
            report.servers = vec![facts("rookery"), facts("ws")];
            report.runs[0].compared = Some(Compared {
                run: "saturated".to_owned(),
                server: "ws".to_owned(),
            });
            report
        };
        let (before, mut after) = (of_a_peer(clean()), of_a_peer(sample()));
        after.runs[0].put("delivered_per_s", 1.0);
        let found = compare(&before, &after, TOLERANCE_PERCENT);
        assert_eq!((found.worse, found.judged), (0, 0), "{}", found.text);
        assert!(found.text.contains("broken in B: 3 lost"));
    }
}
