//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rookery_protocol::Format;

use crate::meter::Role;
use crate::spawn::SpawnOptions;

/// Load test for Rookery. Without --target it starts PostgreSQL, Redis and two nodes by itself.
///
/// Exit code 0: every promise was kept. 1: something was lost, doubled, reordered or refused. 2:
/// nothing could be measured; the last line says why.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Pairs of users write to each other across nodes
    Direct {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        direct: DirectOptions,
        /// Messages a second over all pairs, at fixed times; without it pairs write as fast as
        /// they can
        #[arg(long, value_name = "N")]
        rate: Option<f64>,
    },
    /// Connections that do nothing: memory and CPU of each
    Idle {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        idle: IdleOptions,
    },
    /// Groups whose members are all connected: what a delivery costs
    Group {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        group: GroupOptions,
    },
    /// The standard report: idle, saturated, and at 1,000 messages a second
    Bench {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        direct: DirectOptions,
        #[command(flatten)]
        idle: IdleOptions,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// A node's URL, for instance http://127.0.0.1:8080; several for several nodes
    #[arg(long, value_name = "URL")]
    pub target: Vec<String>,
    /// Process ids by role, for CPU and memory: gateway=12,13 postgres=14 redis=15
    #[arg(long, value_name = "ROLE=PID,…", num_args = 1.., requires = "target")]
    pub pids: Vec<Role>,
    #[command(flatten)]
    pub spawn: SpawnOptions,
    #[arg(long, value_enum, default_value = "json")]
    pub format: WireFormat,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Threads of the load test itself
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
}

#[derive(Debug, Args)]
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
    pub(crate) fn whole_run(&self) -> Duration {
        Duration::from_secs(self.seconds + self.warmup)
    }
}

#[derive(Debug, Args)]
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

#[derive(Debug, Args)]
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
        let Scenario::Direct { common, rate, .. } = cli.scenario else {
            panic!("not direct")
        };
        assert_eq!(
            (common.target.len(), common.pids.len(), rate),
            (2, 2, Some(5.0))
        );
    }
}
