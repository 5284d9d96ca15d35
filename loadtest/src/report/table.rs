//! The report as a table of plain text.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Direct, Group, Idle, Load, Report};
use crate::latency::Quantiles;
use crate::meter::GATEWAY;

/// Budgets that need no other server to compare with: gateway CPU for a message at saturation and
/// for a connect, in microseconds, and memory of a connection, in KiB.
const CPU_US_PER_MESSAGE: f64 = 30.0;
const CPU_US_PER_CONNECT: f64 = 150.0;
const KIB_PER_CONNECTION: f64 = 7.0;

/// Writing to a string cannot fail.
macro_rules! line {
    ($out:expr, $($part:tt)*) => { let _ = writeln!($out, $($part)*); };
}

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    if let Some(found) = &report.idle {
        idle(&mut out, found);
    }
    for found in &report.direct {
        direct(&mut out, found);
    }
    if let Some(found) = &report.group {
        group(&mut out, found);
    }
    line!(
        out,
        "{}",
        if report.is_clean() {
            "clean: every promise was kept"
        } else {
            "NOT CLEAN"
        }
    );
    out
}

fn idle(out: &mut String, found: &Idle) {
    line!(
        out,
        "idle: {} connections, {} conversations each",
        found.connections,
        found.conversations_each
    );
    let kib = found.resident_bytes_per_connection / 1_024.0;
    row(
        out,
        "memory per connection",
        &format!("{kib:.2} KiB{}", verdict(kib, KIB_PER_CONNECTION)),
    );
    let mib = found.resident_bytes as f64 / 1_048_576.0;
    row(out, "memory of all nodes", &format!("{mib:.0} MiB"));
    row(
        out,
        "connects",
        &format!("{:.0}/s", found.connects_per_second),
    );
    cpu(
        out,
        "CPU per connect",
        &found.cpu_us_per_connect,
        Some(CPU_US_PER_CONNECT),
    );
    cpu(
        out,
        "CPU per connection and s",
        &found.cpu_us_per_connection_second,
        None,
    );
    closed(out, &found.closed);
    line!(out, "");
}

fn direct(out: &mut String, found: &Direct) {
    let load = match found.load {
        Load::Window { messages } => format!("{messages} in flight each"),
        Load::Rate { per_second } => format!("{per_second:.0} messages/s in all"),
    };
    let ways = if found.both_ways {
        "both ways"
    } else {
        "one way"
    };
    line!(
        out,
        "{}: {} pairs {ways}, {load}, {} bytes, {}, {:.0} s",
        found.name,
        found.pairs,
        found.content_bytes,
        found.format,
        found.seconds,
    );
    row(
        out,
        "acknowledged",
        &format!("{:.0}/s", found.acked_per_second),
    );
    row(
        out,
        "delivered",
        &format!("{:.0}/s", found.delivered_per_second),
    );
    latency(out, "send to ack, ms", &found.to_ack);
    latency(out, "send to delivery, ms", &found.to_delivery);
    let saturated = matches!(found.load, Load::Window { .. });
    let budget = saturated.then_some(CPU_US_PER_MESSAGE);
    cpu(out, "CPU per message", &found.cpu_us_per_message, budget);
    let cores = found
        .cpu_cores
        .iter()
        .map(|(role, cores)| format!("{role} {cores:.2}"));
    row(out, "cores in use", &cores.collect::<Vec<_>>().join(", "));
    let memory = found.memory_bytes.iter();
    let memory = memory.map(|(role, bytes)| format!("{role} {:.0}", *bytes as f64 / 1_048_576.0));
    row(out, "memory, MiB", &memory.collect::<Vec<_>>().join(", "));
    let v = &found.verdict;
    row(
        out,
        "oracle",
        &format!(
            "{} sent, {} acked, {} delivered, {} unanswered",
            v.sent, v.acked, v.delivered, v.unanswered,
        ),
    );
    row(
        out,
        "",
        &format!(
            "{} lost, {} doubled, {} reordered, {} holes, {} foreign, {} refused",
            v.lost, v.doubled, v.reordered, v.holes, v.foreign, v.refused,
        ),
    );
    closed(out, &found.closed);
    line!(out, "");
}

fn group(out: &mut String, found: &Group) {
    line!(
        out,
        "group: {} of {} members, {} in flight each, {:.0} s",
        found.groups,
        found.members,
        found.window,
        found.seconds,
    );
    row(
        out,
        "messages",
        &format!("{:.0}/s", found.messages_per_second),
    );
    row(
        out,
        "deliveries",
        &format!("{:.0}/s", found.deliveries_per_second),
    );
    latency(out, "send to last delivery, ms", &found.to_last_delivery);
    let cpu = found.cpu_us_per_delivery.iter();
    let cpu = cpu.map(|(role, micros)| format!("{role} {micros:.2} µs"));
    row(out, "CPU per delivery", &cpu.collect::<Vec<_>>().join(", "));
    let cores = found.cpu_cores.iter();
    let cores = cores.map(|(role, cores)| format!("{role} {cores:.2}"));
    row(out, "cores in use", &cores.collect::<Vec<_>>().join(", "));
    let (incomplete, disorder) = (found.incomplete, found.disorder);
    row(
        out,
        "oracle",
        &format!(
            "{incomplete} not delivered to all, {disorder} out of order, {} sockets closed",
            found.closed
        ),
    );
    line!(out, "");
}

fn row(out: &mut String, name: &str, value: &str) {
    line!(out, "  {name:<26}{value}");
}

fn latency(out: &mut String, name: &str, q: &Quantiles) {
    let value = format!(
        "p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.1}",
        q.p50_ms, q.p90_ms, q.p99_ms, q.p999_ms, q.max_ms,
    );
    row(out, name, &value);
}

fn cpu(out: &mut String, name: &str, micros: &BTreeMap<String, f64>, budget: Option<f64>) {
    let part = |(role, micros): (&String, &f64)| {
        let budget = budget.filter(|_| role == GATEWAY);
        format!(
            "{role} {micros:.1} µs{}",
            budget.map_or_else(String::new, |b| verdict(*micros, b))
        )
    };
    row(
        out,
        name,
        &micros.iter().map(part).collect::<Vec<_>>().join(", "),
    );
}

fn closed(out: &mut String, closed: &BTreeMap<u16, u64>) {
    if !closed.is_empty() {
        let codes = closed
            .iter()
            .map(|(code, count)| format!("{count} with {code}"));
        row(out, "SOCKETS CLOSED", &codes.collect::<Vec<_>>().join(", "));
    }
}

fn verdict(value: f64, budget: f64) -> String {
    let word = if value <= budget { "within" } else { "OVER" };
    format!(" ({word} the budget of {budget})")
}

#[cfg(test)]
mod tests {
    use rookery_oracle::pair::Verdict;

    use super::*;

    #[test]
    fn budgets_and_broken_promises_stand_out() {
        let found = Direct {
            name: "direct".into(),
            load: Load::Window { messages: 2 },
            pairs: 10,
            both_ways: false,
            content_bytes: 120,
            format: "rookery.v1.json".into(),
            seconds: 10.0,
            sent_per_second: 1.0,
            acked_per_second: 1.0,
            delivered_per_second: 1.0,
            to_ack: Quantiles::default(),
            to_delivery: Quantiles::default(),
            cpu_us_per_message: [(GATEWAY.to_owned(), 31.0)].into(),
            cpu_cores: BTreeMap::new(),
            memory_bytes: BTreeMap::new(),
            verdict: Verdict {
                lost: 3,
                ..Verdict::default()
            },
            closed: [(4101, 2)].into(),
        };
        let report = Report {
            direct: vec![found],
            ..Report::new(2)
        };
        let text = text(&report);
        for part in [
            "31.0 µs (OVER the budget of 30)",
            "3 lost",
            "2 with 4101",
            "NOT CLEAN",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(
            serde_json::to_string(&report)
                .unwrap()
                .contains("\"lost\":3")
        );
    }
}
