//! What the kernel knows of this process, read when somebody asks. The names are those that
//! Prometheus' own clients use, so that ready-made dashboards find them.

use std::fmt::Write;
use std::fs;

use super::declare::{Kind, Metric};

pub(super) const fn metric(name: &'static str, kind: Kind, doc: &'static [&'static str]) -> Metric {
    Metric {
        name,
        kind,
        labels: &[],
        values: &[],
        doc,
        touch: || (),
    }
}

const CPU: Metric = metric(
    "process_cpu_seconds_total",
    Kind::Counter,
    &["Processor time used, in user and kernel mode."],
);
const RSS: Metric = metric(
    "process_resident_memory_bytes",
    Kind::Gauge,
    &["Memory in use, resident."],
);
const OPEN_FDS: Metric = metric(
    "process_open_fds",
    Kind::Gauge,
    &["Open files and sockets."],
);
const MAX_FDS: Metric = metric(
    "process_max_fds",
    Kind::Gauge,
    &["Files and sockets that may be open."],
);
const THREADS: Metric = metric("process_threads", Kind::Gauge, &["Threads."]);
const VIRTUAL: Metric = metric(
    "process_virtual_memory_bytes",
    Kind::Gauge,
    &["Address space in use."],
);
const START: Metric = metric(
    "process_start_time_seconds",
    Kind::Gauge,
    &["When the process started, in seconds since 1970."],
);

pub(super) const DECLARED: &[Metric] = &[CPU, RSS, VIRTUAL, OPEN_FDS, MAX_FDS, THREADS, START];

/// The unit of times in `/proc/self/stat`; 100 on every Linux that has not been rebuilt for it.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends what can be read, in Prometheus' text format; what cannot be is left out.
pub(super) fn render_into(text: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program stands in parentheses and may hold anything; fields follow it.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    // Numbered from the third field on in proc(5): utime 14, stime 15, num_threads 20,
    // starttime 22, vsize 23.
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|field| field.parse::<f64>().ok())
    };
    let ticks = field(14).zip(field(15)).map(|(user, kernel)| user + kernel);
    append(text, &CPU, ticks.map(|ticks| ticks / TICKS_PER_SECOND));
    append(text, &RSS, resident_bytes());
    append(text, &VIRTUAL, field(23));
    append(text, &OPEN_FDS, open_files());
    append(text, &MAX_FDS, max_open_files());
    append(text, &THREADS, field(20));
    let since_boot = field(22).map(|ticks| ticks / TICKS_PER_SECOND);
    let started = booted_at().zip(since_boot);
    append(text, &START, started.map(|(boot, since)| boot + since));
}

/// When the machine started, in seconds since 1970.
fn booted_at() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

pub(super) fn append(text: &mut String, metric: &Metric, value: Option<f64>) {
    let Some(value) = value else { return };
    let (name, kind, help) = (metric.name, metric.kind.as_str(), metric.help());
    let _ = write!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n"
    );
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024.0)
}

fn open_files() -> Option<f64> {
    // One of them is the directory that is being read.
    let count = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

fn max_open_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
