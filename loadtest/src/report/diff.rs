//! Two reports side by side: what became better, what worse.

use std::fmt::Write;

use super::table::number;
use super::{Report, Run};

/// Changes below this share are noise, on a machine that everything shares.
const NOISE: f64 = 0.05;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Same,
    /// It changed, and neither direction is better by itself.
    Changed,
}

/// Of a metric, by its name: rates should grow, costs should shrink.
fn verdict(metric: &str, before: f64, after: f64) -> Verdict {
    let name = metric.split('.').next().unwrap_or(metric);
    let larger_is_better = name.ends_with("_per_s") && !name.contains("_us_");
    let smaller_is_better = [
        "_ms", "_us", "kib_", "_mib", "ratio", "failed", "_us_per_", "seconds",
    ]
    .iter()
    .any(|part| name.contains(part));
    let change = (after - before) / before.abs().max(f64::MIN_POSITIVE);
    match (larger_is_better, smaller_is_better) {
        _ if before == after || change.abs() < NOISE => Verdict::Same,
        (true, _) if change > 0.0 => Verdict::Better,
        (true, _) => Verdict::Worse,
        (_, true) if change < 0.0 => Verdict::Better,
        (_, true) => Verdict::Worse,
        _ => Verdict::Changed,
    }
}

/// A table of all metrics that both have, and what only one of them has. Second: what became worse.
pub(crate) fn text(before: &Report, after: &Report) -> (String, usize) {
    let mut out = String::new();
    let mut worse = 0;
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "A: {}\nB: {}",
        before.machine.text(),
        after.machine.text()
    );
    if before.machine.cpu != after.machine.cpu || before.machine.cores != after.machine.cores {
        let _ = writeln!(out, "measured on different machines: compare with care");
    }
    for run in &after.runs {
        match before.runs.iter().find(|old| old.name == run.name) {
            Some(old) => worse += compare(&mut out, old, run),
            None => {
                let _ = writeln!(out, "\n{}: only in B", run.name);
            }
        }
    }
    for old in &before.runs {
        if after.runs.iter().all(|run| run.name != old.name) {
            let _ = writeln!(out, "\n{}: only in A", old.name);
        }
    }
    (out, worse)
}

fn compare(out: &mut String, old: &Run, new: &Run) -> usize {
    let mut worse = 0;
    let _ = writeln!(
        out,
        "\n{}\n  {:<34}{:>12}{:>12}{:>9}",
        new.name, "", "A", "B", ""
    );
    if old.about != new.about {
        let _ = writeln!(out, "  not the same: {} | {}", old.about, new.about);
    }
    for (metric, after) in &new.metrics {
        let Some(before) = old.metrics.get(metric) else {
            continue;
        };
        let verdict = verdict(metric, *before, *after);
        worse += usize::from(verdict == Verdict::Worse);
        let word = match verdict {
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::Same => "same",
            Verdict::Changed => "changed",
        };
        let change = match *before == 0.0 {
            true => String::new(),
            false => format!("{:+.1} %", (after / before - 1.0) * 100.0),
        };
        let (before, after) = (number(*before), number(*after));
        let _ = writeln!(
            out,
            "  {metric:<34}{before:>12}{after:>12}{change:>11}  {word}"
        );
    }
    for broken in &new.broken {
        worse += 1;
        let _ = writeln!(out, "  BROKEN in B: {broken}");
    }
    worse
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn costs_should_shrink_and_rates_grow() {
        for (metric, after, wanted) in [
            ("cpu_us_per_message.gateway", 50.0, Verdict::Better),
            ("cpu_us_per_connection_s.gateway", 150.0, Verdict::Worse),
            ("deliver_p99_ms", 120.0, Verdict::Worse),
            ("delivered_per_s", 120.0, Verdict::Better),
            ("delivered_per_s", 80.0, Verdict::Worse),
            ("delivered_per_s", 103.0, Verdict::Same),
            ("cores.gateway", 150.0, Verdict::Changed),
        ] {
            assert_eq!(verdict(metric, 100.0, after), wanted, "{metric} {after}");
        }
        assert_eq!(verdict("failed", 0.0, 1.0), Verdict::Worse);
    }

    #[test]
    fn what_became_worse_is_counted() {
        let (before, mut after) = (sample(), sample());
        after.runs[0].broken.clear();
        assert_eq!(text(&before, &after).1, 0);
        after.runs[0].put("delivered_per_s", 500.0);
        let (table, worse) = text(&before, &after);
        assert_eq!(worse, 1, "{table}");
        assert!(table.contains("-50.0 %  WORSE"), "{table}");
        after.runs[0].name = "other".to_owned();
        let (table, _) = text(&before, &after);
        assert!(table.contains("other: only in B") && table.contains("saturated: only in A"));
    }
}
