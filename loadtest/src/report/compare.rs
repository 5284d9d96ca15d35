//! Servers side by side: a table for each thing that was done to all of them, and what they promise.

use std::collections::BTreeMap;

use super::chart::{Chart, Scale};
use super::table::number;
use super::{Report, Run};
use crate::latency::Quantiles;
use crate::sampler::Sample;

/// A heading and the metrics below it.
type Column = (&'static str, &'static [&'static str]);

const DIRECT: &[Column] = &[
    ("messages/s", &["delivered_per_s"]),
    (
        "deliver p50 / p99 / p99.9, ms",
        &["deliver_p50_ms", "deliver_p99_ms", "deliver_p999_ms"],
    ),
    ("ack p50 / p99, ms", &["ack_p50_ms", "ack_p99_ms"]),
    ("nodes' CPU, µs/message", &["cpu_us_per_message.gateway"]),
    ("Redis", &["cpu_us_per_message.redis"]),
    ("PostgreSQL", &["cpu_us_per_message.postgres"]),
    ("nodes' memory, MiB", &["memory_mib.gateway"]),
];
const GROUP: &[Column] = &[
    ("deliveries/s", &["deliveries_per_s"]),
    (
        "last delivery p50 / p99, ms",
        &["last_delivery_p50_ms", "last_delivery_p99_ms"],
    ),
    ("nodes' CPU, µs/delivery", &["cpu_us_per_delivery.gateway"]),
    ("Redis", &["cpu_us_per_delivery.redis"]),
    ("PostgreSQL", &["cpu_us_per_delivery.postgres"]),
];
const IDLE: &[Column] = &[
    ("KiB/connection", &["kib_per_connection"]),
    ("connects/s", &["connects_per_s"]),
    ("nodes' CPU, µs/connect", &["cpu_us_per_connect.gateway"]),
    ("Redis", &["cpu_us_per_connect.redis"]),
    ("PostgreSQL", &["cpu_us_per_connect.postgres"]),
    (
        "idle CPU, µs/connection and s",
        &["cpu_us_per_connection_s.gateway"],
    ),
];

/// What stands for something that was not measured.
const NOTHING: &str = "–";

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub title: String,
    pub about: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// The servers, and a table for each run; nothing where nothing is compared.
pub(super) fn tables(report: &Report) -> Vec<Table> {
    if report.servers.is_empty() {
        return Vec::new();
    }
    let runs = titles(report);
    std::iter::once(servers(report))
        .chain(runs.into_iter().map(|title| table(report, title)))
        .collect()
}

/// What was done to all of them, in its order.
fn titles(report: &Report) -> Vec<&str> {
    let mut titles: Vec<&str> = Vec::new();
    for compared in report.runs.iter().filter_map(|run| run.compared.as_ref()) {
        if !titles.contains(&compared.run.as_str()) {
            titles.push(&compared.run);
        }
    }
    titles
}

fn servers(report: &Report) -> Table {
    let row = |facts: &super::ServerFacts| {
        vec![
            facts.name.clone(),
            facts.about.clone(),
            facts.version.clone(),
            facts.persistence.clone(),
            facts.problem.clone().unwrap_or_default(),
        ]
    };
    Table {
        title: "Servers".to_owned(),
        about: String::new(),
        head: ["", "what it is", "version", "persistence", "problem"]
            .map(str::to_owned)
            .to_vec(),
        rows: report.servers.iter().map(row).collect(),
    }
}

fn table(report: &Report, title: &str) -> Table {
    let runs = of(report, title);
    let kind = runs.values().next().map_or("", |run| run.kind.as_str());
    let columns = match kind {
        "group" => GROUP,
        "idle" => IDLE,
        _ => DIRECT,
    };
    let row = |facts: &super::ServerFacts| {
        let run = runs.get(facts.name.as_str());
        let mut row = vec![facts.name.clone()];
        row.extend(
            columns
                .iter()
                .map(|(_, metrics)| cell(run.copied(), metrics)),
        );
        row.push(run.map_or_else(|| NOTHING.to_owned(), |run| verdict(run)));
        row
    };
    let measured = report.servers.iter().find_map(|facts| {
        let run = runs.get(facts.name.as_str());
        run.filter(|run| !run.metrics.is_empty())
    });
    let about = measured.map(|run| &run.about);
    let mut head = vec![String::new()];
    head.extend(columns.iter().map(|(name, _)| (*name).to_owned()));
    head.push("oracle".to_owned());
    Table {
        title: title.to_owned(),
        // In the words of the first that was measured: only how they are spoken to differs.
        about: about.cloned().unwrap_or_default(),
        head,
        rows: report.servers.iter().map(row).collect(),
    }
}

/// The runs of this title by server.
fn of<'a>(report: &'a Report, title: &str) -> BTreeMap<&'a str, &'a Run> {
    let mine = report.runs.iter().filter_map(|run| {
        let compared = run.compared.as_ref()?;
        (compared.run == title).then_some((compared.server.as_str(), run))
    });
    mine.collect()
}

fn cell(run: Option<&Run>, metrics: &[&str]) -> String {
    let value = |metric: &&str| {
        let value = run.and_then(|run| run.metrics.get(*metric));
        value.map_or_else(|| NOTHING.to_owned(), |value| number(*value))
    };
    metrics.iter().map(value).collect::<Vec<_>>().join(" / ")
}

fn verdict(run: &Run) -> String {
    match (run.broken.is_empty(), run.metrics.is_empty()) {
        (_, true) => "cut short".to_owned(),
        (true, _) => "clean".to_owned(),
        (false, _) => run.broken.join(", "),
    }
}

/// Charts with a line for each server, by the title of what was done.
pub(super) fn charts(report: &Report, title: &str) -> Vec<Chart> {
    let runs = of(report, title);
    // In the order of the servers: each has its colour in all charts.
    let lines = |points: &dyn Fn(&Run) -> Vec<(f64, f64)>| -> Vec<(String, Vec<(f64, f64)>)> {
        let line = |facts: &super::ServerFacts| {
            let run = runs.get(facts.name.as_str());
            (
                facts.name.clone(),
                run.map_or_else(Vec::new, |run| points(run)),
            )
        };
        report.servers.iter().map(line).collect()
    };
    let over_time = |value: &dyn Fn(&Sample) -> Option<f64>, run: &Run| {
        let point = |sample: &Sample| Some((sample.at_s, value(sample)?));
        run.samples.iter().filter_map(point).collect()
    };
    let rate = |sample: &Sample| {
        let names = ["delivered", "deliveries", "connects"];
        names
            .iter()
            .find_map(|name| sample.rates.get(*name).copied())
    };
    let chart = |title: &str, x: &str, y: &str, x_scale, lines| Chart {
        title: title.to_owned(),
        x_name: x.to_owned(),
        y_name: y.to_owned(),
        x_scale,
        lines,
    };
    let gateway = crate::meter::GATEWAY;
    let cores = |sample: &Sample| sample.cpu_cores.get(gateway).copied();
    let mib = |sample: &Sample| Some(*sample.memory_bytes.get(gateway)? as f64 / 1_048_576.0);
    let tail =
        |run: &Run| latency(run).map_or_else(Vec::new, |found| super::page::tail(&found.curve));
    let linear = Scale::Linear;
    [
        chart(
            "Throughput",
            "seconds",
            "a second",
            linear,
            lines(&|run| over_time(&rate, run)),
        ),
        chart(
            "Latency",
            "one in … is slower",
            "ms",
            Scale::Log,
            lines(&tail),
        ),
        chart(
            "CPU of the nodes",
            "seconds",
            "cores",
            linear,
            lines(&|run| over_time(&cores, run)),
        ),
        chart(
            "Memory of the nodes",
            "seconds",
            "MiB",
            linear,
            lines(&|run| over_time(&mib, run)),
        ),
    ]
    .into()
}

/// Until what was sent has arrived.
fn latency(run: &Run) -> Option<&Quantiles> {
    let names = ["deliver", "last_delivery"];
    names.iter().find_map(|name| run.latencies.get(*name))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::super::{Compared, ServerFacts};
    use super::*;

    fn compared() -> Report {
        let mut report = sample();
        let server = |name: &str| ServerFacts {
            name: name.to_owned(),
            persistence: "fsync".to_owned(),
            ..ServerFacts::default()
        };
        report.servers = vec![server("rookery"), server("ws"), server("absent")];
        report.servers[2].problem = Some("absent is not installed".to_owned());
        let mut theirs = report.runs[0].clone();
        report.runs[0].broken.clear();
        theirs.name = "saturated-ws".to_owned();
        for (run, server) in [(&mut report.runs[0], "rookery"), (&mut theirs, "ws")] {
            run.compared = Some(Compared {
                run: "saturated".to_owned(),
                server: server.to_owned(),
            });
        }
        report.runs.push(theirs);
        report
    }

    #[test]
    fn servers_stand_side_by_side() {
        let report = compared();
        let tables = tables(&report);
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].rows[2][4], "absent is not installed");
        let rows = &tables[1].rows;
        assert_eq!(rows[0][..2], ["rookery", "1,000"]);
        assert_eq!(rows[0].last().unwrap(), "clean");
        assert_eq!(rows[1].last().unwrap(), "3 lost");
        assert_eq!(rows[2][1], NOTHING);
        assert!(
            tables[1]
                .rows
                .iter()
                .all(|row| row.len() == tables[1].head.len())
        );
        assert_eq!(super::tables(&sample()), Vec::new());
    }

    #[test]
    fn what_a_peer_broke_is_not_rookerys_fault() {
        let mut report = compared();
        assert!(report.is_clean());
        report.runs[0].broken.push("1 lost".to_owned());
        assert!(!report.is_clean());
    }

    #[test]
    fn a_server_has_its_line_in_every_chart() {
        let charts = charts(&compared(), "saturated");
        for chart in &charts {
            let names: Vec<&str> = chart.lines.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["rookery", "ws", "absent"], "{}", chart.title);
        }
        assert!(!charts[1].lines[1].1.is_empty());
    }
}
