//! The report as one HTML file that needs nothing else: tables, and charts as inline SVG.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::chart::{Chart, Scale, Time, escape, svg, svg_over_time};
use super::table::{grouped, number};
use super::{Report, Run, compare};
use crate::sampler::Sample;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2230;--soft:#667085;--line:#d9dee7;--page:#fff;--card:#f6f8fb;
--c0:#2563eb;--c1:#c2410c;--c2:#15803d;--c3:#9333ea;--c4:#0e7490;--c5:#be123c;--bad:#b42318;--good:#15803d}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#313947;--page:#12161d;--card:#1a202a;
--c0:#6ea8fe;--c1:#fdba74;--c2:#6ee7a0;--c3:#d0a9fa;--c4:#67d5e8;--c5:#fda4af;--bad:#fda29b;--good:#6ee7a0}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1200px;margin:0 auto;padding:24px}
h1,h2,h3{line-height:1.2;margin:1.4em 0 .4em}h1{margin-top:0}p,.soft{color:var(--soft);margin:.3em 0}
table{border-collapse:collapse;margin:.6em 0}td,th{padding:3px 14px 3px 0;text-align:left;border-bottom:1px solid var(--line)}
td{font-variant-numeric:tabular-nums}.bad{color:var(--bad);font-weight:600}.good{color:var(--good)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:16px}
figure{margin:0;padding:12px;background:var(--card);border-radius:8px}
figcaption{font-weight:600;display:flex;justify-content:space-between}figcaption span{font-weight:400;color:var(--soft)}
svg{width:100%;height:auto}svg text{font-size:14px;fill:var(--soft)}svg line{stroke:var(--line)}svg .rest{fill:var(--line);opacity:.45}
polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}figure ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:2px 14px}
figure li::before{content:'';display:inline-block;width:12px;height:3px;margin-right:5px;vertical-align:middle;background:currentColor}
.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}.l4{stroke:var(--c4)}.l5{stroke:var(--c5)}
.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}
.k0{color:var(--c0)}.k1{color:var(--c1)}.k2{color:var(--c2)}.k3{color:var(--c3)}.k4{color:var(--c4)}.k5{color:var(--c5)}
";

/// Growth beyond this share, from the lowest number of a series to the highest, stands out.
const GROWTH_ALLOWED: f64 = 1.5;

pub(super) fn page(report: &Report) -> String {
    let title = escape(&format!("Rookery load test: {}", report.scenario));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{}</p>\n<p>{}</p>\n",
        escape(&report.about),
        escape(&report.machine.text()),
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<p>{} nodes; <code>{}</code></p>",
        report.targets,
        escape(&report.command)
    );
    if let Some(problem) = &report.problem {
        let _ = writeln!(out, "<p class=\"bad\">Incomplete: {}</p>", escape(problem));
    }
    let class = if report.is_clean() { "good" } else { "bad" };
    let _ = writeln!(out, "<p class=\"{class}\">{}</p>", report.verdict());
    bounds(&mut out, report);
    growth(&mut out, report);
    compared(&mut out, report);
    for run in &report.runs {
        section(&mut out, run);
    }
    out.push_str("</body></html>\n");
    out
}

fn bounds(out: &mut String, report: &Report) {
    if report.checks.is_empty() {
        return;
    }
    out.push_str("<h2>Bounds</h2><table><tr><th>bound<th>measured<th></tr>\n");
    for check in &report.checks {
        let class = if check.kept { "good" } else { "bad" };
        let word = check.word().to_lowercase();
        let [bound, value] = [&check.threshold, &check.found()].map(|text| escape(text));
        let _ = writeln!(
            out,
            "<tr><td>{bound}<td>{value}<td class=\"{class}\">{word}</tr>"
        );
    }
    out.push_str("</table>\n");
}

/// One series: pairs of the number that grows and what a unit costs.
type Series = Vec<(f64, f64)>;

/// The series of a report's runs, by their name and metric.
pub(crate) fn series(report: &Report) -> BTreeMap<(String, String), Series> {
    let mut all: BTreeMap<(String, String), Series> = BTreeMap::new();
    for run in &report.runs {
        let Some(growth) = &run.growth else { continue };
        for metric in growth.metrics() {
            if let Some(value) = run.metrics.get(metric) {
                let key = (growth.series.clone(), metric.clone());
                all.entry(key).or_default().push((growth.x, *value));
            }
        }
    }
    for points in all.values_mut() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    all
}

/// What to say of a series in which a unit costs too much more at the end than at the start, or of
/// which that is not known.
fn grows(points: &[(f64, f64)]) -> Option<String> {
    let (Some((_, first)), Some((_, last))) = (points.first(), points.last()) else {
        return None;
    };
    match points.len() {
        1 => Some("one point says nothing about growth".to_owned()),
        _ if *first <= 0.0 && *last > 0.0 => {
            Some(format!("begins at 0 and ends at {}", number(*last)))
        }
        _ => (last / first > GROWTH_ALLOWED).then(|| format!("grows {:.1} times", last / first)),
    }
}

fn growth(out: &mut String, report: &Report) {
    let all = series(report);
    if all.is_empty() {
        return;
    }
    out.push_str("<h2>Growth</h2><p>What a unit costs as one number grows. Flat is right.</p>");
    out.push_str("<div class=\"charts\">\n");
    for ((name, metric), points) in all {
        let flag = grows(&points);
        out.push_str("<div>");
        out.push_str(&svg(&Chart {
            title: name.clone(),
            x_name: name,
            y_name: metric.clone(),
            x_scale: Scale::Log,
            lines: vec![(metric, points)],
        }));
        let _ = match flag {
            Some(words) => writeln!(out, "<p class=\"bad\">{words}</p></div>"),
            None => writeln!(out, "<p class=\"good\">flat</p></div>"),
        };
    }
    out.push_str("</div>\n");
}

fn compared(out: &mut String, report: &Report) {
    for table in compare::tables(report) {
        let (title, about) = (escape(&table.title), escape(&table.about));
        let _ = write!(out, "<h2>Compared: {title}</h2><p>{about}</p><table>");
        for (cell, row) in
            std::iter::once(("th", &table.head)).chain(table.rows.iter().map(|row| ("td", row)))
        {
            out.push_str("<tr>");
            for text in row {
                let _ = write!(out, "<{cell}>{}", escape(text));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</table>\n<div class=\"charts\">\n");
        for chart in compare::charts(report, &table.title) {
            out.push_str(&svg(&chart));
        }
        out.push_str("</div>\n");
    }
}

fn section(out: &mut String, run: &Run) {
    let _ = writeln!(
        out,
        "<h2>{}</h2><p>{}; {:.0} s</p>",
        escape(&run.name),
        escape(&run.about),
        run.seconds
    );
    for broken in &run.broken {
        let _ = writeln!(out, "<p class=\"bad\">{}</p>", escape(broken));
    }
    if !run.latencies.is_empty() {
        out.push_str("<table><tr><th>ms<th>p50<th>p90<th>p99<th>p99.9<th>max<th>count</tr>\n");
    }
    for (name, q) in &run.latencies {
        if q.count == 0 {
            let _ = writeln!(
                out,
                "<tr><td>{}{}<td>0</tr>",
                escape(name),
                "<td>–".repeat(5)
            );
            continue;
        }
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{:.2}<td>{:.2}<td>{:.2}<td>{:.2}<td>{:.1}<td>{}</tr>",
            escape(name),
            q.p50_ms,
            q.p90_ms,
            q.p99_ms,
            q.p999_ms,
            q.max_ms,
            q.count
        );
    }
    if !run.latencies.is_empty() {
        out.push_str("</table>\n");
    }
    out.push_str("<table>\n");
    for (name, value) in grouped(run) {
        let _ = writeln!(out, "<tr><td>{}<td>{}</tr>", escape(&name), escape(&value));
    }
    let counts = run
        .oracle
        .iter()
        .map(|(what, count)| format!("{count} {what}"));
    let counts: Vec<String> = counts.chain(run.notes.iter().cloned()).collect();
    if !counts.is_empty() {
        let _ = writeln!(out, "<tr><td>oracle<td>{}</tr>", escape(&counts.join(", ")));
    }
    out.push_str("</table>\n<div class=\"charts\">\n");
    let time = time(run);
    for chart in over_time(run) {
        out.push_str(&svg_over_time(&chart, time));
    }
    for chart in others(run) {
        out.push_str(&svg(&chart));
    }
    out.push_str("</div>\n");
    if time.measured.is_some() {
        out.push_str(
            "<p>Grey: preparations and warm-up before, and what was awaited after the measured time.</p>\n",
        );
    }
}

/// From the begin of its preparations to its last sample or latency.
fn time(run: &Run) -> Time {
    let from = run.measured_from_s;
    let seconds = run.latencies.values().map(|found| found.over_time.len());
    let last = from.unwrap_or_default() + seconds.max().unwrap_or_default() as f64;
    let samples = run.samples.iter().map(|sample| sample.at_s);
    Time {
        end: samples.fold(last, f64::max),
        measured: from.map(|from| (from, from + run.seconds)),
    }
}

fn chart(title: &str, unit: &str, lines: Vec<(String, Vec<(f64, f64)>)>) -> Chart {
    Chart {
        title: title.to_owned(),
        x_name: "seconds".to_owned(),
        y_name: unit.to_owned(),
        x_scale: Scale::Linear,
        lines,
    }
}

/// Charts that have the time of the run in common.
fn over_time(run: &Run) -> Vec<Chart> {
    let rates = by_name(&run.samples, |sample| &sample.rates, |rate| *rate);
    let cpu = by_name(&run.samples, |sample| &sample.cpu_cores, |cores| *cores);
    let memory = by_name(
        &run.samples,
        |sample| &sample.memory_bytes,
        |bytes| *bytes as f64 / 1_048_576.0,
    );
    let from = run.measured_from_s.unwrap_or_default();
    let mut percentiles = Vec::new();
    for (name, found) in &run.latencies {
        let seconds = found.over_time.iter().filter(|second| second.count > 0);
        let line = |of: fn(&crate::latency::Second) -> f64| {
            // In the middle of its second.
            let point =
                |second: &crate::latency::Second| (from + second.at_s as f64 + 0.5, of(second));
            seconds.clone().map(point).collect()
        };
        percentiles.push((format!("{name} p50"), line(|second| second.p50_ms)));
        percentiles.push((format!("{name} p99"), line(|second| second.p99_ms)));
    }
    vec![
        chart("Throughput", "a second", rates),
        chart("Latency over time", "ms", percentiles),
        chart("CPU by role", "cores", cpu),
        chart("Memory by role", "MiB", memory),
    ]
}

fn others(run: &Run) -> Vec<Chart> {
    let curves = run.latencies.iter();
    let curves = curves.map(|(name, found)| (name.clone(), tail(&found.curve)));
    let distribution = Chart {
        title: "Distribution".to_owned(),
        x_name: "one in … is slower".to_owned(),
        y_name: "ms".to_owned(),
        x_scale: Scale::Log,
        lines: curves.collect(),
    };
    let per_connection = run
        .memory_by_connections
        .iter()
        .map(|(count, bytes)| (*count as f64, *bytes as f64 / 1_048_576.0));
    let mut connections = chart(
        "Memory by connections",
        "MiB",
        vec![("all nodes".to_owned(), per_connection.collect())],
    );
    connections.x_name = "connections".to_owned();
    vec![distribution, connections]
}

/// A distribution as it is read from the slow end: one in so many takes this long, or longer.
pub(super) fn tail(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let point = |(percent, ms): &(f64, f64)| {
        let share = 1.0 - percent / 100.0;
        (share > 0.0).then(|| (1.0 / share, *ms))
    };
    curve.iter().filter_map(point).collect()
}

/// A line over time for each name that any sample has.
fn by_name<V>(
    samples: &[Sample],
    field: impl Fn(&Sample) -> &BTreeMap<String, V>,
    value: impl Fn(&V) -> f64,
) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in samples {
        for (name, found) in field(sample) {
            let line = lines.entry(name.clone()).or_default();
            line.push((sample.at_s, value(found)));
        }
    }
    lines.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::super::{Growth, Run};
    use super::*;

    #[test]
    fn the_page_has_everything_and_needs_nothing() {
        let mut report = sample();
        report.about = "<script>".to_owned();
        let page = page(&report);
        for part in [
            "3 lost",
            "over</tr>",
            "Throughput",
            "Latency over time",
            "Distribution",
            "CPU by role",
            "Memory by role",
            "&lt;script&gt;",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        for part in ["http://", "https://", "<script", "NaN"] {
            assert!(!page.contains(part), "{part} has no place in it");
        }
    }

    #[test]
    fn growth_is_flagged() {
        let mut report = sample();
        report.runs = [(1_000.0, 20.0), (16_000.0, 44.0)]
            .map(|(x, value)| {
                let mut run = Run::new(&format!("users-{x}"), "direct");
                run.put("cpu", value);
                run.put("memory", 3.0);
                run.growth = Some(Growth {
                    series: "users".to_owned(),
                    x,
                    metric: "cpu".to_owned(),
                    more_metrics: vec!["memory".to_owned()],
                });
                run
            })
            .to_vec();
        let page = page(&report);
        assert!(page.contains("grows 2.2 times"), "{page}");
        assert!(page.contains(">flat</p>"), "memory does not grow: {page}");
        assert_eq!(grows(&[(1.0, 20.0), (2.0, 21.0)]), None);
        assert_eq!(grows(&[(1.0, 0.0), (2.0, 0.0)]), None);
        let from_nothing = grows(&[(1.0, 0.0), (2.0, 21.0)]).unwrap();
        assert_eq!(from_nothing, "begins at 0 and ends at 21.0");
        assert!(grows(&[(1.0, 20.0)]).unwrap().contains("one point"));
    }

    #[test]
    fn latencies_stand_where_they_were_measured() {
        let mut report = sample();
        let run = &mut report.runs[0];
        run.measured_from_s = Some(7.0);
        let charts = over_time(run);
        let latency = charts
            .iter()
            .find(|chart| chart.title == "Latency over time");
        assert_eq!(latency.unwrap().lines[0].1[0].0, 7.5);
        let wanted = Time {
            end: 8.0,
            measured: Some((7.0, 17.0)),
        };
        assert_eq!(time(run), wanted);
    }
}
