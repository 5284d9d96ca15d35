//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Three nodes behind nginx, people who write to each other, and random faults: at the end an oracle
/// says whether every promise was kept.
///
/// Beside them there may be one node with SQLite, the annex, with people and an end of its own.
///
/// Starts PostgreSQL, Redis, nginx and the nodes by itself, in temporary folders and on free ports.
/// First faults come, one or two at a time, in an order that the seed decides; then all are healed,
/// everything comes to rest, and what devices saw is held to what PostgreSQL has.
///
/// Exit code 0: every promise was kept, and every fault came three times. 1: a promise was broken, or
/// the run is incomplete. 2: it could not run; the last line says why.
#[derive(Clone, Debug, Parser)]
#[command(name = "rookery-chaos", version)]
pub struct Options {
    /// Decides the order of faults, whom they strike and for how long; by default the clock does,
    /// and the report tells it
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// How long faults come; starting, coming to rest and judging take about a minute more
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    pub minutes: f64,

    /// Messages a second, offered whether or not earlier ones were acknowledged
    #[arg(long, value_name = "N", default_value_t = 500.0)]
    pub rate: f64,

    /// Accounts, with one to three devices each
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(4..=400))]
    pub people: u16,

    /// Only these kinds of faults, see --list; with failovers among them Redis has a replica and
    /// three sentinels, and without them it is alone; with those of SQLite among them there is the annex
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub kinds: Vec<String>,

    /// Where the report goes, and the histories when something is wrong
    #[arg(long, value_name = "DIR", default_value = "target/chaos")]
    pub report: PathBuf,

    /// The server, built with the feature `failpoints`; by default the one beside this program
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,

    /// A run too short for three faults of each kind is no failure
    #[arg(long)]
    pub allow_incomplete: bool,

    /// Keep the histories also when nothing is wrong
    #[arg(long)]
    pub keep: bool,

    /// Show the kinds of faults, and do nothing
    #[arg(long)]
    pub list: bool,
}

impl Options {
    /// How long faults come.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_secs_f64((self.minutes * 60.0).clamp(0.0, 86_400.0))
    }
}
