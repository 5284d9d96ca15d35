//! What the scenarios find, each in its own terms; and how that becomes a run in a report.

use std::collections::BTreeMap;

use rookery_oracle::pair::Verdict;
use serde::Serialize;

use crate::latency::Quantiles;
use crate::report::Run;

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

impl From<Direct> for Run {
    fn from(found: Direct) -> Self {
        let mut run = Self::new("direct", "direct");
        let load = match found.load {
            Load::Window { messages } => format!("{messages} in flight each"),
            Load::Rate { per_second } => format!("{per_second:.0} messages/s in all"),
        };
        let ways = match found.both_ways {
            true => "both ways",
            false => "one way",
        };
        run.about = format!(
            "{} pairs {ways}, {load}, {} bytes, {}",
            found.pairs, found.content_bytes, found.format
        );
        run.seconds = found.seconds;
        run.put("sent_per_s", found.sent_per_second);
        run.put("acked_per_s", found.acked_per_second);
        run.put("delivered_per_s", found.delivered_per_second);
        run.put_roles("cpu_us_per_message", found.cpu_us_per_message);
        run.put_roles("cores", found.cpu_cores);
        let mib = |(role, bytes)| (role, bytes as f64 / 1_048_576.0);
        run.put_roles("memory_mib", found.memory_bytes.into_iter().map(mib));
        run.put_latency("ack", found.to_ack);
        run.put_latency("deliver", found.to_delivery);
        run.judge(found.verdict);
        run.put_closed(found.closed);
        run
    }
}

impl From<Idle> for Run {
    fn from(found: Idle) -> Self {
        let mut run = Self::new("idle", "idle");
        run.about = format!(
            "{} connections, {} conversations each",
            found.connections, found.conversations_each
        );
        run.seconds = found.idle_seconds;
        let kib = found.resident_bytes_per_connection / 1_024.0;
        run.put("kib_per_connection", kib);
        let mib = found.resident_bytes as f64 / 1_048_576.0;
        run.put("resident_mib", mib);
        run.put("connects_per_s", found.connects_per_second);
        run.put_roles("cpu_us_per_connect", found.cpu_us_per_connect);
        let idle = found.cpu_us_per_connection_second;
        run.put_roles("cpu_us_per_connection_s", idle);
        run.put_roles("cores", found.cpu_cores);
        run.memory_by_connections = vec![
            (found.first_connections, found.first_resident_bytes),
            (found.connections, found.resident_bytes),
        ];
        for (code, count) in &found.closed {
            run.broken
                .push(format!("{count} idle sockets closed with {code}"));
        }
        run
    }
}

impl From<Group> for Run {
    fn from(found: Group) -> Self {
        let mut run = Self::new("group", "group");
        run.about = format!(
            "{} of {} members, {} in flight each",
            found.groups, found.members, found.window
        );
        run.seconds = found.seconds;
        run.put("messages_per_s", found.messages_per_second);
        run.put("deliveries_per_s", found.deliveries_per_second);
        run.put_roles("cpu_us_per_delivery", found.cpu_us_per_delivery);
        run.put_roles("cores", found.cpu_cores);
        run.put_latency("last_delivery", found.to_last_delivery);
        for (count, what) in [
            (found.incomplete, "messages lost to somebody"),
            (found.disorder, "messages doubled or out of order"),
            (found.closed, "members' sockets closed"),
        ] {
            run.promise(what, count);
        }
        run
    }
}
