//! What a run found: a table for people, JSON for machines.

mod table;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use rookery_oracle::pair::Verdict;
use serde::Serialize;

use crate::latency::Quantiles;

/// How hard pairs are driven.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Load {
    /// Closed loop: each pair keeps this many messages in flight.
    Window { messages: usize },
    /// Open loop: this many messages a second over all pairs, at fixed times.
    Rate { per_second: f64 },
}

/// Pairs of users writing to each other.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Direct {
    pub name: String,
    pub load: Load,
    pub pairs: usize,
    pub both_ways: bool,
    pub content_bytes: usize,
    pub format: String,
    /// The measured time, without warm-up and drain.
    pub seconds: f64,
    pub sent_per_second: f64,
    pub acked_per_second: f64,
    pub delivered_per_second: f64,
    /// From the send (or, at a rate, from when it was due) to its acknowledgement.
    pub to_ack: Quantiles,
    /// The same, to the recipient's socket.
    pub to_delivery: Quantiles,
    /// CPU time of each role divided by the messages delivered meanwhile.
    pub cpu_us_per_message: BTreeMap<String, f64>,
    /// CPU time of each role divided by the time: cores in use.
    pub cpu_cores: BTreeMap<String, f64>,
    /// At the end; shared pages divided among their users.
    pub memory_bytes: BTreeMap<String, u64>,
    /// Over the whole run, warm-up included.
    pub verdict: Verdict,
    /// Sockets that ended during the run, by close code.
    pub closed: BTreeMap<u16, u64>,
}

/// Connections that do nothing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Idle {
    pub connections: usize,
    /// Connections at the first look; costs of a connection are differences between the two.
    pub first_connections: usize,
    pub conversations_each: usize,
    /// Resident memory of all nodes at both looks.
    pub first_resident_bytes: u64,
    pub resident_bytes: u64,
    pub resident_bytes_per_connection: f64,
    /// While connecting from the first look to the second.
    pub connects_per_second: f64,
    pub cpu_us_per_connect: BTreeMap<String, f64>,
    /// While nothing happens but heartbeats.
    pub idle_seconds: f64,
    pub cpu_cores: BTreeMap<String, f64>,
    pub cpu_us_per_connection_second: BTreeMap<String, f64>,
    /// Sockets that ended, by close code; there should be none.
    pub closed: BTreeMap<u16, u64>,
}

/// Groups whose members are all connected.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    pub groups: usize,
    pub members: usize,
    /// Messages in flight in each group.
    pub window: usize,
    pub seconds: f64,
    /// Messages that everybody has.
    pub messages_per_second: f64,
    /// Frames to members, acks included.
    pub deliveries_per_second: f64,
    /// From a send to the last member's socket.
    pub to_last_delivery: Quantiles,
    pub cpu_us_per_delivery: BTreeMap<String, f64>,
    pub cpu_cores: BTreeMap<String, f64>,
    /// Messages that somebody did not get.
    pub incomplete: u64,
    /// Messages that came twice, or not as the next one.
    pub disorder: u64,
    /// Members' sockets that ended during the run.
    pub closed: u64,
}

/// All that one call of the load test found.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Of the load test, which is released with the server.
    pub version: &'static str,
    pub cores: usize,
    pub targets: usize,
    pub idle: Option<Idle>,
    pub direct: Vec<Direct>,
    pub group: Option<Group>,
}

impl Report {
    pub(crate) fn new(targets: usize) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            targets,
            ..Self::default()
        }
    }

    /// Whether every promise was kept, and no idle socket ended.
    pub(crate) fn is_clean(&self) -> bool {
        self.direct.iter().all(|direct| direct.verdict.is_clean())
            && self.group.as_ref().is_none_or(|group| {
                group.incomplete == 0 && group.disorder == 0 && group.closed == 0
            })
            && self.idle.as_ref().is_none_or(|idle| idle.closed.is_empty())
    }

    pub(crate) fn print(&self) {
        print!("{}", table::text(self));
    }

    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))
    }
}
