//! The report as Markdown, for a repository's pages.

use std::fmt::Write;

use super::table::grouped;
use super::{Report, compare};

/// Writing to a string cannot fail.
pub(super) fn text(report: &Report) -> String {
    let mut out = format!("# {}\n\n{}\n", report.scenario, report.machine.text());
    if let Some(problem) = &report.problem {
        let _ = writeln!(out, "\n**Incomplete**: {problem}");
    }
    if !report.checks.is_empty() {
        let _ = writeln!(out, "\n| bound | measured | |\n|---|---|---|");
    }
    for check in &report.checks {
        let word = match check.kept {
            true => check.word().to_owned(),
            false => format!("**{}**", check.word().to_lowercase()),
        };
        let found = check.found();
        let _ = writeln!(out, "| `{}` | {found} | {word} |", check.threshold);
    }
    for table in compare::tables(report) {
        let _ = writeln!(out, "\n## Compared: {}\n\n{}\n", table.title, table.about);
        let _ = writeln!(out, "| {} |", table.head.join(" | "));
        let _ = writeln!(out, "|{}", "---|".repeat(table.head.len()));
        for row in table.rows {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
    }
    for run in &report.runs {
        let _ = writeln!(
            out,
            "\n## {}\n\n{}; {:.0} s",
            run.name, run.about, run.seconds
        );
        let _ = writeln!(out, "\n| | |\n|---|---|");
        for (name, q) in &run.latencies {
            let _ = match q.count {
                0 => writeln!(out, "| {name}, ms | – |"),
                _ => writeln!(
                    out,
                    "| {name}, ms | p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.1} |",
                    q.p50_ms, q.p90_ms, q.p99_ms, q.p999_ms, q.max_ms
                ),
            };
        }
        for (name, value) in grouped(run) {
            let _ = writeln!(out, "| {name} | {value} |");
        }
        let broken = match run.broken.is_empty() {
            true => "every promise was kept".to_owned(),
            false => format!("**broken**: {}", run.broken.join(", ")),
        };
        let _ = writeln!(out, "| oracle | {broken} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn bounds_and_broken_promises_are_rows() {
        let text = text(&sample());
        for part in [
            "| `saturated.cpu_us_per_message.gateway<=30` | 31.0 | **over** |",
            "| oracle | **broken**: 3 lost |",
            "| delivered_per_s | 1,000 |",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
