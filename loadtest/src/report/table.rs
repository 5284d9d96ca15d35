//! The report as plain text.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Report, Run, compare};
use crate::latency::Quantiles;

/// Writing to a string cannot fail.
macro_rules! line {
    ($out:expr, $($part:tt)*) => { let _ = writeln!($out, $($part)*); };
}

pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    line!(out, "{}: {}", report.scenario, report.machine.text());
    line!(out, "");
    for found in &report.runs {
        run(&mut out, found);
    }
    for table in compare::tables(report) {
        compared(&mut out, &table);
    }
    for check in &report.checks {
        line!(
            out,
            "{} {} ({})",
            check.word(),
            check.threshold,
            check.found()
        );
    }
    if let Some(problem) = &report.problem {
        line!(out, "INCOMPLETE: {problem}");
    }
    line!(out, "{}", report.verdict());
    out
}

/// Cells below each other.
fn compared(out: &mut String, table: &compare::Table) {
    let width = |column: usize| {
        let rows = std::iter::once(&table.head).chain(&table.rows);
        let cells = rows.filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    line!(out, "{}: {}", table.title, table.about);
    for row in std::iter::once(&table.head).chain(&table.rows) {
        let cells = row.iter().enumerate();
        let cells = cells.map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        line!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    line!(out, "");
}

fn run(out: &mut String, run: &Run) {
    line!(out, "{} ({:.0} s): {}", run.name, run.seconds, run.about);
    for (name, found) in &run.latencies {
        row(out, &format!("{name}, ms"), &quantiles(found));
    }
    for (name, value) in grouped(run) {
        row(out, &name, &value);
    }
    for note in &run.notes {
        row(out, "", note);
    }
    if !run.oracle.is_empty() {
        let counts = run
            .oracle
            .iter()
            .map(|(what, count)| format!("{count} {what}"));
        row(out, "oracle", &counts.collect::<Vec<_>>().join(", "));
    }
    for broken in &run.broken {
        row(out, "BROKEN", broken);
    }
    line!(out, "");
}

fn row(out: &mut String, name: &str, value: &str) {
    line!(out, "  {name:<28}{value}");
}

/// In milliseconds; of nothing there are none.
pub(super) fn quantiles(q: &Quantiles) -> String {
    if q.count == 0 {
        return "–".to_owned();
    }
    format!(
        "p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.1}  of {}",
        q.p50_ms, q.p90_ms, q.p99_ms, q.p999_ms, q.max_ms, q.count
    )
}

/// The metrics of a run but its latencies; those of several roles in one line.
pub(super) fn grouped(run: &Run) -> Vec<(String, String)> {
    let is_latency = |name: &str| {
        run.latencies.keys().any(|latency| {
            let rest = name.strip_prefix(latency.as_str());
            rest.is_some_and(|rest| rest.starts_with('_') && rest.ends_with("_ms"))
        })
    };
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &run.metrics {
        if is_latency(name) {
            continue;
        }
        match name.split_once('.') {
            Some((name, role)) => {
                let line = lines.entry(name).or_default();
                line.push(format!("{role} {}", number(*value)));
            }
            None => lines.entry(name).or_default().push(number(*value)),
        }
    }
    let line = |(name, values): (&str, Vec<String>)| (name.to_owned(), values.join(", "));
    lines.into_iter().map(line).collect()
}

/// With as many digits as matter.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => thousands(value),
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 {
        "-".to_owned()
    } else {
        String::new()
    };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn bounds_and_broken_promises_stand_out() {
        let text = text(&sample());
        for part in [
            "OVER saturated.cpu_us_per_message.gateway<=30 (31.0)",
            "3 lost",
            "2 SOCKETS CLOSED with 4101",
            "NOT CLEAN: promises were broken",
            "delivered_per_s             1,000",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_histogram_of_nothing_has_no_quantiles() {
        assert_eq!(quantiles(&Quantiles::default()), "–");
    }

    #[test]
    fn what_was_not_judged_is_not_called_clean() {
        let mut report = sample();
        report.runs[0].broken.clear();
        assert_eq!(report.verdict(), "clean: every promise was kept");
        report.problem = Some("interrupted".to_owned());
        assert!(report.verdict().starts_with("incomplete"));
        report.runs.clear();
        assert_eq!(report.verdict(), "nothing was judged");
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (-1_000.0, "-1,000"),
            (123.4, "123"),
            (12.34, "12.3"),
            (0.126, "0.13"),
            (0.0, "0"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
