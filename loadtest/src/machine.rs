//! Where, when and of what a measurement was taken: without that it cannot be compared.

use std::fs;
use std::process::Command;

use rookery_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use crate::calm::Calm;
use crate::disk::Disk;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// RFC 3339, UTC.
    pub date: String,
    /// Of the load test, which is released with the server.
    pub version: String,
    /// That the load test was built from.
    pub commit: String,
    pub cores: usize,
    pub cpu: String,
    pub memory_gib: f64,
    pub kernel: String,
    /// As installed here; a cluster elsewhere may have others.
    pub postgres: String,
    pub redis: String,
    /// Of a database of the load test's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// Before the last cluster of the load test's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm: Option<Calm>,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let millis = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_millis();
        let millis = i64::try_from(millis).unwrap_or_default();
        Self {
            date: Timestamp::from_millis(millis).to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("LOADTEST_COMMIT").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field("/proc/cpuinfo", "model name"),
            memory_gib: field("/proc/meminfo", "MemTotal")
                .trim_end_matches(" kB")
                .parse::<f64>()
                .map_or(0.0, |kib| (kib / 1_048_576.0 * 10.0).round() / 10.0),
            kernel: kernel(),
            postgres: said(&["psql", "--version"]),
            redis: said(&["redis-server", "--version"]),
            disk: None,
            calm: None,
        }
    }

    /// In a sentence.
    pub(crate) fn text(&self) -> String {
        let disk = self.disk.as_ref().map(|disk| format!("; {disk}"));
        let calm = self.calm.as_ref().map(|calm| format!("; {calm}"));
        format!(
            "{}, Rookery {} at {}, {} cores of {}, {} GiB, Linux {}; {}; {}{}{}",
            self.date,
            self.version,
            self.commit,
            self.cores,
            self.cpu,
            self.memory_gib,
            self.kernel,
            self.postgres,
            self.redis,
            disk.unwrap_or_default(),
            calm.unwrap_or_default(),
        )
    }
}

/// The version, without what its builder added.
fn kernel() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().split('-').next().unwrap_or_default().to_owned()
}

/// What a program says that is not there, or has nothing to say.
pub(crate) const UNKNOWN: &str = "unknown";

/// The first line that a program writes.
pub(crate) fn said(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text
        .ok()
        .and_then(|text| Some(text.lines().next()?.trim().to_owned()));
    let line = line.unwrap_or_else(|| UNKNOWN.to_owned());
    // "Redis server v=7.0.15 sha=… malloc=…"
    match line.split_once(" sha=") {
        Some((name, _)) => name.to_owned(),
        None => line,
    }
}

/// A field of a file such as `/proc/meminfo`.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| Some(rest.split_once(':')?.1.trim().to_owned()));
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_it_is() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_gib > 0.0);
        assert!(machine.date.ends_with('Z'), "{}", machine.date);
        // Not that of the folder that it is called in.
        let source = env!("CARGO_MANIFEST_DIR");
        let head = ["git", "-C", source, "rev-parse", "--short=12", "HEAD"];
        assert_eq!(machine.commit, said(&head));
        assert_eq!(said(&["no-such-program-anywhere"]), UNKNOWN);
    }
}
