//! Which scenarios run, against what, and in which order.

use std::time::Duration;

use anyhow::{bail, ensure};

use crate::meter::{self, GATEWAY, Meter};
use crate::options::{Common, DirectOptions, GroupOptions, IdleOptions, Scenario};
use crate::population::Population;
use crate::report::{Load, Report};
use crate::spawn::Rig;
use crate::{direct, group, idle};

/// The rate of the standard report, in messages a second.
const STANDARD_RATE: f64 = 1_000.0;
/// Files that a run needs besides its sockets.
const SPARE_FILES: u64 = 200;

/// Runs a scenario and reports it.
///
/// # Errors
/// Nothing could be measured.
pub(crate) async fn run(scenario: Scenario) -> anyhow::Result<Report> {
    let (common, direct, idle, rates) = match &scenario {
        Scenario::Group { common, group } => {
            enough_files(group.groups * group.members)?;
            let mut bench = Bench::start(common).await?;
            bench.group(group).await?;
            return bench.finish();
        }
        Scenario::Direct {
            common,
            direct,
            rate,
        } => (common, Some(direct), None, vec![*rate]),
        Scenario::Idle { common, idle } => (common, None, Some(idle), Vec::new()),
        Scenario::Bench {
            common,
            direct,
            idle,
        } => (
            common,
            Some(direct),
            Some(idle),
            vec![None, Some(STANDARD_RATE)],
        ),
    };
    let sockets = direct.map_or(0, |options| options.users);
    enough_files(sockets.max(idle.map_or(0, |options| options.connections)))?;
    let mut bench = Bench::start(common).await?;
    // Idle first: memory is measured on nodes that have done nothing yet.
    if let Some(options) = idle {
        bench.idle(options).await?;
    }
    for rate in rates {
        if let Some(options) = direct {
            bench.direct(options, rate).await?;
        }
    }
    bench.finish()
}

struct Bench<'a> {
    common: &'a Common,
    targets: Vec<String>,
    meter: Meter,
    population: Population,
    report: Report,
    /// Stopped with the bench.
    _rig: Option<Rig>,
}

impl<'a> Bench<'a> {
    async fn start(common: &'a Common) -> anyhow::Result<Self> {
        let rig = match common.target.is_empty() {
            true => Some(Rig::start(&common.spawn).await?),
            false => None,
        };
        let (targets, roles) = match &rig {
            Some(rig) => (rig.targets.clone(), rig.roles.clone()),
            None => (common.target.clone(), common.pids.clone()),
        };
        Ok(Self {
            common,
            meter: Meter::new(roles)?,
            population: Population::new(&targets, rig.as_ref().map(|rig| rig.bulk.clone()))?,
            report: Report::new(targets.len()),
            targets,
            _rig: rig,
        })
    }

    async fn idle(&mut self, options: &IdleOptions) -> anyhow::Result<()> {
        let hint = "idle needs the nodes' process ids, for instance --pids gateway=12,13";
        ensure!(self.meter.has(GATEWAY), hint);
        self.population
            .outlives(Duration::from_secs(options.watch))?;
        let (count, each) = (options.connections as usize, options.conversations as usize);
        let plan = idle::Plan {
            targets: self.targets.clone(),
            people: self.population.sociable(count, each).await?,
            conversations_each: each,
            watch: Duration::from_secs(options.watch),
            format: self.common.format.into(),
        };
        self.report.idle = Some(idle::run(&plan, &self.meter).await?);
        Ok(())
    }

    async fn group(&mut self, options: &GroupOptions) -> anyhow::Result<()> {
        let run = Duration::from_secs(options.warmup + options.seconds);
        self.population.outlives(run)?;
        let count = (options.groups * options.members) as usize;
        let plan = group::Plan {
            targets: self.targets.clone(),
            people: self.population.people(count).await?.to_vec(),
            groups: options.groups as usize,
            window: options.window as usize,
            warmup: Duration::from_secs(options.warmup),
            measure: Duration::from_secs(options.seconds),
            content_bytes: options.bytes as usize,
        };
        self.report.group = Some(group::run(&plan, &self.meter).await?);
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Report> {
        self.report.print();
        if let Some(path) = &self.common.report {
            self.report.write(path)?;
        }
        Ok(self.report)
    }

    async fn direct(&mut self, options: &DirectOptions, rate: Option<f64>) -> anyhow::Result<()> {
        self.population.outlives(options.whole_run())?;
        let (name, load) = match rate {
            None => (
                "saturated",
                Load::Window {
                    messages: options.window as usize,
                },
            ),
            Some(rate) if rate > 0.0 => ("at a rate", Load::Rate { per_second: rate }),
            Some(rate) => bail!("--rate {rate} is not a rate"),
        };
        let plan = direct::Plan {
            name: name.to_owned(),
            targets: self.targets.clone(),
            couples: self.population.couples(options.users as usize / 2).await?,
            load,
            both_ways: options.both_ways,
            marks: options.marks,
            warmup: Duration::from_secs(options.warmup),
            measure: Duration::from_secs(options.seconds),
            format: self.common.format.into(),
            content_bytes: options.bytes as usize,
            threads: usize::from(self.common.threads),
        };
        self.report
            .direct
            .push(direct::run(plan, &self.meter).await?);
        Ok(())
    }
}

/// Each connection is an open file here.
fn enough_files(sockets: u32) -> anyhow::Result<()> {
    let sockets = u64::from(sockets);
    let Some(limit) = meter::open_files_limit() else {
        return Ok(());
    };
    ensure!(
        sockets + SPARE_FILES <= limit,
        "{sockets} connections need {} open files, and {limit} are allowed: see `ulimit -n`",
        sockets + SPARE_FILES,
    );
    Ok(())
}
