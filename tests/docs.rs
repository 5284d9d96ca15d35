//! The operations guide and the code say the same: every setting and every metric has its row, and
//! no row is about something that does not exist.

use std::fmt::Write;

use rookery::config;
use rookery::metrics;

const GUIDE: &str = include_str!("../docs/OPERATIONS.md");

/// The rows of the tables under a heading, each with its cells; only those whose first cell is a
/// name in backticks.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let start = format!("\n## {heading}\n");
    let (_, section) = GUIDE
        .split_once(&start)
        .unwrap_or_else(|| panic!("no section {heading}"));
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

#[test]
fn every_setting_is_documented_and_nothing_else_is() {
    let rows = rows("Configuration");
    let mut problems = String::new();
    for key in config::keys() {
        let variable = key.variable();
        let Some(row) = rows.iter().find(|row| row[0] == format!("`{variable}`")) else {
            let _ = writeln!(problems, "{variable} has no row");
            continue;
        };
        if row[1] != format!("`{}`", key.path) {
            let _ = writeln!(
                problems,
                "{variable} is {} in the file, not {}",
                key.path, row[1]
            );
        }
        if let Some(default) = key.default
            && row[2] != format!("`{default}`")
        {
            let _ = writeln!(
                problems,
                "{variable} is {default} by default, not {}",
                row[2]
            );
        }
        if key.secret != row[3].contains("Secret.") {
            let _ = writeln!(problems, "{variable}: \"Secret.\" is missing or too much");
        }
        if key.live != row[3].contains("Reloaded.") {
            let _ = writeln!(problems, "{variable}: \"Reloaded.\" is missing or too much");
        }
    }
    for row in &rows {
        if !config::keys().any(|key| row[0] == format!("`{}`", key.variable())) {
            let _ = writeln!(problems, "there is no {}", row[0]);
        }
    }
    assert!(problems.is_empty(), "docs/OPERATIONS.md:\n{problems}");
}

#[test]
fn every_metric_is_documented_as_it_is_declared() {
    let expected: Vec<String> = metrics::all().map(row_of).collect();
    let found: Vec<String> = rows("Metrics")
        .iter()
        .map(|cells| format!("| {} |", cells.join(" | ")))
        .collect();
    let missing: Vec<&String> = expected.iter().filter(|row| !found.contains(row)).collect();
    let extra: Vec<&String> = found.iter().filter(|row| !expected.contains(row)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "docs/OPERATIONS.md lacks these rows:\n{missing:#?}\nand has these too many:\n{extra:#?}"
    );
}

fn row_of(metric: &metrics::Metric) -> String {
    let quoted = |names: &[&str]| {
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
    };
    let mut labels = quoted(metric.labels).join(", ");
    if !metric.values.is_empty() {
        let _ = write!(labels, ": {}", metric.values.join(", "));
    }
    format!(
        "| `{}` | {} | {labels} | {} |",
        metric.name,
        metric.kind.as_str(),
        metric.help()
    )
}
