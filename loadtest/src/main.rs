//! `rookery-loadtest`: drives nodes hard, and checks that they keep their promises meanwhile.
//!
//! - `options`: the command line; `scenario`: files that name runs; `bench`: runs them in order;
//!   `check`: what is known before; `interrupt`: who ends it early.
//! - `cluster`: what is driven; `spawn`: one of one's own; `population`: the people, their tokens and
//!   conversations. `compare`, `peer`, `dialect`: other servers, through the same runs.
//! - `direct`, `group`, `idle`, `storm`, `history`, `presence`, `mixed`, `drain`, `redis_restart`: the
//!   kinds of runs. `wire`: frames, with as little work as possible; `pace`: when something is due.
//! - `rookery_oracle::pair`: what was acknowledged must arrive once and in order.
//! - `meter`, `sampler`: CPU and memory by role; `steady`: memory that has settled; `latency`; `report`,
//!   `threshold`: what was found.

mod bench;
mod calm;
mod check;
mod cluster;
mod compare;
mod dialect;
mod direct;
mod disk;
mod drain;
mod group;
mod history;
mod idle;
mod interrupt;
mod latency;
mod machine;
mod meter;
mod mixed;
mod options;
mod pace;
mod peer;
mod population;
mod presence;
mod progress;
mod redis_restart;
mod report;
mod sampler;
mod scenario;
mod schedule;
mod source;
mod spawn;
mod steady;
mod storm;
mod threshold;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Parser;

use bench::Ending;
use options::{Action, Cli};
use report::{Report, diff};
use scenario::Scenario;

/// Something was broken, over its bound, or worse than before.
const NOT_GOOD: u8 = 1;
/// Nothing could be measured.
const FAILED: u8 = 2;
/// As shells have it for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // No thread that still works holds the end back.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(act(Cli::parse()));
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("rookery-loadtest: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn act(cli: Cli) -> anyhow::Result<u8> {
    if let Some(files) = &cli.compare {
        return reports(files, cli.tolerance);
    }
    if let Some(path) = &cli.common.report {
        Report::can_be_written(path)?;
    }
    source::choose(&cli.common.source)?;
    let scenario = match cli.action {
        Some(Action::Run { scenario }) => Scenario::load(&scenario)?,
        Some(Action::Kind(kind)) => Scenario::single(kind),
        Some(Action::Compare(options)) => {
            let (report, ending) = compare::run(&options, &cli.common).await?;
            return Ok(code(&report, ending));
        }
        Some(Action::List) => {
            print!("{}", scenario::list());
            return Ok(0);
        }
        None => bail!("what to run is missing: see --help"),
    };
    let (report, ending) = bench::run(&scenario, &cli.common).await?;
    Ok(code(&report, ending))
}

fn code(report: &Report, ending: Ending) -> u8 {
    match ending {
        Ending::Failed => FAILED,
        Ending::Interrupted => INTERRUPTED,
        Ending::Complete if report.is_clean() && report.keeps_thresholds() => 0,
        Ending::Complete => NOT_GOOD,
    }
}

fn reports(files: &[PathBuf], tolerance_percent: f64) -> anyhow::Result<u8> {
    let [before, after] = files else {
        bail!("--compare takes two reports")
    };
    let (before, after) = (Report::read(before)?, Report::read(after)?);
    let found = diff::compare(&before, &after, tolerance_percent);
    println!("{}\n{} worse", found.text, found.worse);
    ensure!(
        found.judged > 0,
        "nothing to compare: the two reports have no judged metric of the same run in common"
    );
    Ok(if found.worse == 0 { 0 } else { NOT_GOOD })
}
