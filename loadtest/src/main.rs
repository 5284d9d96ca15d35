//! `rookery-loadtest`: drives nodes hard, and checks that they keep their promises meanwhile.
//!
//! - `options`: the command line; `bench`: which scenarios run, in which order.
//! - `spawn`: a cluster of one's own; `population`: the people, their tokens and conversations.
//! - `direct`, `group` and `idle`: the scenarios. `wire`: frames, with as little work as possible.
//! - `rookery_oracle::pair`: what was acknowledged must arrive once and in order.
//! - `meter`: CPU and memory by role; `latency`, `report`: what was found.

mod bench;
mod direct;
mod group;
mod idle;
mod latency;
mod meter;
mod options;
mod population;
mod progress;
mod report;
mod schedule;
mod source;
mod spawn;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use options::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match bench::run(Cli::parse().scenario).await {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("rookery-loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}
