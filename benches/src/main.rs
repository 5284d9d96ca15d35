//! `make instructions`: runs each benchmark under callgrind and compares with what is on record.

mod callgrind;
mod record;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use rookery_benches::benchmarks::{ALL, Benchmark, Repeats};

use crate::record::{Record, Verdict};

/// Counts the instructions that a message takes, and compares with what is on record.
///
/// Exit code 0: nothing takes more than on record. 1: something does. 2: nothing could be counted.
#[derive(Debug, Parser)]
struct Cli {
    /// Only benchmarks whose name contains this
    filter: Option<String>,
    /// Put what was counted on record instead
    #[arg(long)]
    update: bool,
    /// The record
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.txt")]
    record: PathBuf,
    /// Where callgrind's files are kept, for callgrind_annotate
    #[arg(long, value_name = "FOLDER", default_value = "target/callgrind")]
    out: PathBuf,
    #[command(subcommand)]
    one: Option<One>,
}

#[derive(Debug, Subcommand)]
enum One {
    /// Run one benchmark and measure nothing: what callgrind is given
    #[command(name = callgrind::RUN)]
    Run {
        name: String,
        prepared: usize,
        done: usize,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli { one: Some(one), .. } => run_one(&one).map(|()| true),
        cli => count(&cli),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run_one(one: &One) -> anyhow::Result<()> {
    let One::Run {
        name,
        prepared,
        done,
    } = one;
    let benchmark = ALL.iter().find(|benchmark| benchmark.name == name);
    let benchmark = benchmark.with_context(|| format!("there is no benchmark {name}"))?;
    // As a node does, and not at the first use, where it would be counted.
    rookery::metrics::install();
    (benchmark.run)(Repeats {
        prepared: *prepared,
        done: *done,
    })
}

/// True if nothing takes more than on record.
fn count(cli: &Cli) -> anyhow::Result<bool> {
    let is_wanted = |b: &&Benchmark| cli.filter.as_ref().is_none_or(|f| b.name.contains(f));
    let wanted: Vec<_> = ALL.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        let names: Vec<_> = ALL.iter().map(|benchmark| benchmark.name).collect();
        bail!("no benchmark matches; there are {}", names.join(", "));
    }
    let mut record = Record::read(&cli.record)?;
    let tools = callgrind::version()?;
    fs::create_dir_all(&cli.out)
        .with_context(|| format!("{} cannot be made", cli.out.display()))?;
    println!(
        "{:<24} {:>12} {:>12}   a message",
        "", "on record", "counted"
    );
    let (mut worse, mut better) = (0, 0);
    for benchmark in wanted {
        let counted = callgrind::count(benchmark, &cli.out)?;
        let verdict = record.judge(benchmark, counted);
        let before = record.get(benchmark.name);
        let before = before.map_or_else(|| "-".to_owned(), |before| before.to_string());
        println!(
            "{:<24} {before:>12} {counted:>12}   {verdict}",
            benchmark.name
        );
        match verdict {
            Verdict::Worse(_) | Verdict::NotOnRecord => worse += 1,
            Verdict::Better(_) => better += 1,
            Verdict::Same(_) => {}
        }
        if cli.update {
            record.set(benchmark.name, counted);
        }
    }
    if cli.update {
        record.write(&cli.record, &tools)?;
        println!("\nput on record in {}", cli.record.display());
        return Ok(true);
    }
    conclude(cli, &record, worse, better, &tools)
}

fn conclude(
    cli: &Cli,
    record: &Record,
    worse: usize,
    better: usize,
    tools: &str,
) -> anyhow::Result<bool> {
    if record.made_with() != tools {
        println!(
            "\nThe record was made with {}, this run with {tools}: a difference may come from there.",
            record.made_with()
        );
    }
    if better > 0 {
        println!("\nPut the gain on record, so that it is kept: make instructions UPDATE=1");
    }
    if worse > 0 {
        println!(
            "\n{worse} of the above take more instructions than on record, or are not on record.\n\
             Where they are spent: callgrind_annotate {}/NAME.twice.out\n\
             If it has to be: make instructions UPDATE=1",
            cli.out.display()
        );
    }
    Ok(worse == 0)
}
