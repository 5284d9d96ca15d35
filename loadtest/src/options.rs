//! The command line.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rookery_protocol::Format;

use crate::drain::DrainOptions;
use crate::history;
use crate::meter::Role;
use crate::redis_restart::RedisRestartOptions;
use crate::report::Run;
use crate::report::diff::TOLERANCE_PERCENT;
use crate::spawn::SpawnOptions;
use crate::threshold::Threshold;

/// Load test for Rookery. Without --target it starts PostgreSQL, Redis and two nodes by itself.
///
/// Exit code 0: every promise and every threshold was kept. 1: something was lost, doubled,
/// reordered, refused or not answered, a threshold was not kept, or --compare found something worse. 2: nothing
/// could be measured or compared; the last line says why. 130: interrupted; what was measured is reported.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub common: Common,
    /// Compare two reports instead of measuring
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"])]
    pub compare: Option<Vec<PathBuf>>,
    /// With --compare: by how many percent a figure may become worse
    #[arg(long, value_name = "PERCENT", default_value_t = TOLERANCE_PERCENT, value_parser = percent)]
    pub tolerance: f64,
    #[command(subcommand)]
    pub action: Option<Action>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run a scenario: one of `list`, or a file
    Run {
        #[arg(value_name = "SCENARIO")]
        scenario: String,
    },
    /// Show the scenarios that come along
    List,
    /// Drive Rookery and its peers through the same runs, one server after the other
    Compare(CompareOptions),
    #[command(flatten)]
    Kind(Kind),
}

#[derive(Debug, Args)]
pub(crate) struct CompareOptions {
    /// Which runs: a scenario of `list`, or a file
    #[arg(long, default_value = "compare")]
    pub scenario: String,
    /// Peers, in this order; all there are, without
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// The folder of the peers
    #[arg(long, value_name = "FOLDER", default_value = "loadtest/peers")]
    pub peers: PathBuf,
}

/// What a run does. Scenario files name these too, with the same options.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Kind {
    /// Pairs of users write to each other across nodes
    Direct {
        #[command(flatten)]
        direct: DirectOptions,
        /// Messages a second over all pairs, at fixed times; without it pairs write as fast as
        /// they can
        #[arg(long, value_name = "N", value_parser = rate)]
        rate: Option<f64>,
    },
    /// Connections that do nothing: memory and CPU of each
    Idle(IdleOptions),
    /// Groups whose members are all connected: what a delivery costs
    Group(GroupOptions),
    /// Pages of history, of the conversation list, and syncs, from a long conversation
    History(HistoryOptions),
    /// Changes of presence, until a watcher on another node sees them
    Presence(PresenceOptions),
    /// Connections from a cold start as fast as they are admitted, and all gone again
    Storm(StormOptions),
    /// A node asked to end under load: how its people get to the others
    Drain(DrainOptions),
    /// Redis killed under load and started empty: how long until all is repaired
    RedisRestart(RedisRestartOptions),
    /// Messages at a rate, and everything else that people do beside
    Mixed {
        #[command(flatten)]
        direct: DirectOptions,
        #[command(flatten)]
        mixed: MixedOptions,
    },
}

impl Kind {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Direct { .. } => "direct",
            Self::Idle(_) => "idle",
            Self::Group(_) => "group",
            Self::History(_) => "history",
            Self::Presence(_) => "presence",
            Self::Storm(_) => "storm",
            Self::Drain(_) => "drain",
            Self::RedisRestart(_) => "redis-restart",
            Self::Mixed { .. } => "mixed",
        }
    }

    /// Whether other servers than Rookery can be driven with it.
    pub(crate) const fn suits_peers(&self) -> bool {
        match self {
            Self::Direct { direct, .. } => !direct.marks && !direct.both_ways,
            Self::Idle(_) | Self::Group(_) => true,
            Self::History(_)
            | Self::Presence(_)
            | Self::Storm(_)
            | Self::Drain(_)
            | Self::RedisRestart(_)
            | Self::Mixed { .. } => false,
        }
    }

    /// What it does to servers, if only to those that the load test started itself. Afterwards they
    /// are of no use to another run.
    pub(crate) const fn does_harm(&self) -> Option<&'static str> {
        match self {
            Self::Drain(_) => Some("ends a node"),
            Self::RedisRestart(_) => Some("kills Redis"),
            _ => None,
        }
    }

    /// Sockets that are open at once.
    pub(crate) const fn sockets(&self) -> u32 {
        match self {
            Self::Direct { direct, .. } => direct.users,
            Self::Idle(idle) => idle.connections,
            Self::Group(group) => group.groups.saturating_mul(group.members),
            Self::History(_) => history::SOCKETS,
            Self::Presence(presence) => presence.groups.saturating_mul(presence.watchers + 1),
            Self::Storm(storm) => storm.connections,
            Self::Drain(drain) => drain.users,
            Self::RedisRestart(restart) => restart.users,
            Self::Mixed { direct, .. } => direct.users.saturating_add(MixedOptions::SOCKETS),
        }
    }

    /// How long its people need their tokens.
    pub(crate) const fn lasts(&self) -> Duration {
        Duration::from_secs(match self {
            Self::Direct { direct, .. } | Self::Mixed { direct, .. } => direct.whole_run(),
            Self::Idle(idle) => idle.watch,
            Self::Group(group) => group.warmup + group.seconds,
            Self::History(history) => history.seconds,
            Self::Presence(presence) => presence.seconds,
            // Tokens are for the connect; the other two are for servers of one's own.
            Self::Storm(_) | Self::Drain(_) | Self::RedisRestart(_) => 0,
        })
    }

    /// The same at half of the rate that an earlier run reached, where it is to have that.
    pub(crate) fn at_half_of(&self, earlier: Option<&str>, runs: &[Run]) -> Self {
        let mut kind = self.clone();
        let run = runs.iter().find(|run| Some(run.name.as_str()) == earlier);
        let reached = run.and_then(|run| run.metrics.get("delivered_per_s"));
        let half = reached.map(|reached| (reached / 2.0).max(1.0));
        match (&mut kind, half) {
            (Self::Direct { rate, .. }, Some(half)) => *rate = Some(half),
            (Self::Mixed { mixed, .. }, Some(half)) => mixed.rate = half,
            _ => {}
        }
        kind
    }
}

/// A tolerance as an option.
fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').trim().parse::<f64>().ok();
    let percent = percent.filter(|percent| (0.0..=1_000.0).contains(percent));
    percent.ok_or_else(|| "not a tolerance: a number of percent from 0 to 1000".to_owned())
}

/// A rate as an option that may be nothing.
fn rate_or_none(text: &str) -> Result<f64, String> {
    match text {
        "0" => Ok(0.0),
        _ => rate(text),
    }
}

/// A second: from one message in twenty minutes to far more than any machine sends.
const RATES: RangeInclusive<f64> = 0.001..=10_000_000.0;

/// A rate as an option.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    let rate = rate.filter(|rate| RATES.contains(rate));
    rate.ok_or_else(|| "not a rate: a number from 0.001 to 10000000".to_owned())
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// URL of a node, or of what stands before nodes, for instance http://127.0.0.1:8080; several for several nodes
    #[arg(long, value_name = "URL", global = true)]
    pub target: Vec<String>,
    /// With targets: process ids by role, for CPU and memory: gateway=12,13 postgres=14 redis=15
    #[arg(long, value_name = "ROLE=PID,…", num_args = 1.., global = true)]
    pub pids: Vec<Role>,
    /// An address of this machine that sockets come from, in turns with others; it has some 28,000
    /// ports for each target
    #[arg(long, value_name = "IP", global = true)]
    pub source: Vec<IpAddr>,
    #[command(flatten)]
    pub spawn: SpawnOptions,
    #[arg(long, value_enum, default_value = "json", global = true)]
    pub format: WireFormat,
    /// Also write the report to this file, as JSON, and beside it as .html and .md
    #[arg(long, value_name = "FILE", global = true)]
    pub report: Option<PathBuf>,
    /// A bound on a metric, such as 'direct.deliver_p99_ms<=12'; several times for several
    #[arg(long, value_name = "RUN.METRIC<=N", global = true)]
    pub threshold: Vec<Threshold>,
    /// Threads of the load test itself
    #[arg(long, default_value_t = 1, global = true, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DirectOptions {
    /// Users; every two are a pair
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub users: u32,
    /// Messages each pair keeps in flight
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub window: u32,
    /// Both of a pair write, not only the first
    #[arg(long)]
    pub both_ways: bool,
    /// Answer each delivered message with `message.read`
    #[arg(long)]
    pub marks: bool,
    /// Seconds that are measured
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Seconds before them
    #[arg(long, default_value_t = 5)]
    pub warmup: u64,
    /// Bytes of each message's content
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    pub bytes: u32,
}

impl DirectOptions {
    pub(crate) const fn whole_run(&self) -> u64 {
        self.seconds + self.warmup
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct IdleOptions {
    /// Connections, each of a user of its own
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub connections: u32,
    /// Conversations of each user
    #[arg(long, default_value_t = 10)]
    pub conversations: u32,
    /// Seconds to watch them idle; a heartbeat takes 25
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub watch: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GroupOptions {
    /// Groups, each with a writer of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub groups: u32,
    /// Members of each, all connected
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub members: u32,
    /// Messages each group keeps in flight
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub window: u32,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Seconds before them
    #[arg(long, default_value_t = 3)]
    pub warmup: u64,
    /// Bytes of each message's content
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    pub bytes: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HistoryOptions {
    /// Messages in the long conversation
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=20_000_000))]
    pub messages: u32,
    /// Conversations of the one who reads
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub conversations: u32,
    /// Requests of each of the three sorts, a second, at fixed times
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PresenceOptions {
    /// Groups, each with one person whose presence changes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub groups: u32,
    /// Who watch that person, on the next target
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub watchers: u32,
    /// Changes a second over all groups, at fixed times
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StormOptions {
    /// Connections, each of a user of its own
    #[arg(long, default_value_t = 16_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Connections under way at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: u16,
}

/// What happens beside the messages, a second; 0 for nothing.
#[derive(Clone, Debug, Args)]
pub(crate) struct MixedOptions {
    /// Messages a second over all pairs
    #[arg(long, default_value_t = 1_000.0, value_parser = rate)]
    pub rate: f64,
    /// Changes of presence, each with a watcher on another node
    #[arg(long, default_value_t = 0.0, value_parser = rate_or_none)]
    pub presence: f64,
    /// Changes of typing
    #[arg(long, default_value_t = 0.0, value_parser = rate_or_none)]
    pub typing: f64,
    /// Connections that come, sync and go
    #[arg(long, default_value_t = 0.0, value_parser = rate_or_none)]
    pub reconnects: f64,
    /// Pages of history
    #[arg(long, default_value_t = 0.0, value_parser = rate_or_none)]
    pub history: f64,
    /// Conversation lists
    #[arg(long, default_value_t = 0.0, value_parser = rate_or_none)]
    pub lists: f64,
    /// Logins with a password
    #[arg(long, default_value_t = 0.0, value_parser = rate_or_none)]
    pub logins: f64,
}

impl MixedOptions {
    /// Of those beside the pairs, at most.
    pub(crate) const SOCKETS: u32 = 500;

    /// In a sentence.
    pub(crate) fn text(&self) -> String {
        format!(
            "a second {} presences, {} typing, {} reconnects, {} pages, {} lists, {} logins",
            self.presence, self.typing, self.reconnects, self.history, self.lists, self.logins
        )
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum WireFormat {
    Json,
    Msgpack,
}

impl From<WireFormat> for Format {
    fn from(format: WireFormat) -> Self {
        match format {
            WireFormat::Json => Self::Json,
            WireFormat::Msgpack => Self::MsgPack,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let line =
            "x direct --target http://a --target http://b --pids gateway=1,2 redis=3 --rate 5";
        let cli = Cli::parse_from(line.split(' '));
        let Some(Action::Kind(Kind::Direct { rate, .. })) = cli.action else {
            panic!("not direct")
        };
        let common = cli.common;
        assert_eq!(
            (common.target.len(), common.pids.len(), rate),
            (2, 2, Some(5.0))
        );
        for bad in [
            "x direct --rate 0",
            "x direct --threshold nonsense",
            "x --compare a",
            "x --compare a b --tolerance -1",
            "x --compare a b --tolerance nan",
        ] {
            assert!(Cli::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
    }
}
