//! Runs the runs of a scenario one after the other, against one cluster or several, and keeps what
//! was found however that ends.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::direct::Load;
use crate::machine::Machine;
use crate::meter::{self, GATEWAY, Meter};
use crate::options::{Common, DirectOptions, GroupOptions, IdleOptions, Kind, MixedOptions};
use crate::population::Population;
use crate::report::{Report, Run, SCHEMA};
use crate::sampler::Sampler;
use crate::scenario::{Planned, Scenario};
use crate::spawn::{Rig, SpawnOptions};
use crate::{direct, group, history, idle, mixed, presence, storm};

/// Files that a run needs besides its sockets.
const SPARE_FILES: u64 = 200;

/// People beside the pairs of a mixed day, for each sort of thing that they do.
const COMPANY: usize = 100;
/// Registered with a password, which takes the server its time.
const ACCOUNTS: usize = 20;
/// Messages and conversations of the one who reads.
const LIBRARY: (u32, u32) = (10_000, 50);

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Complete,
    /// A run could not be measured; those before it are in the report.
    Failed,
    Interrupted,
}

/// Runs a scenario, prints its report and writes it where the options say.
///
/// # Errors
/// The report cannot be written. What a run failed for is in the report, and on stderr.
pub(crate) async fn run(scenario: &Scenario, common: &Common) -> anyhow::Result<(Report, Ending)> {
    let mut report = Report {
        schema: SCHEMA,
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        machine: Machine::here(),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        ..Report::default()
    };
    let mut cluster = None;
    let mut ending = Ending::Complete;
    let total = scenario.runs.len();
    for (index, planned) in scenario.runs.iter().enumerate() {
        eprintln!("{} ({} of {total})", planned.name, index + 1);
        let kind = planned
            .kind
            .at_half_of(planned.half_of.as_deref(), &report.runs);
        let run = tokio::select! {
            run = one(planned, &kind, common, &mut cluster) => run,
            signal = tokio::signal::ctrl_c() => {
                signal?;
                ending = Ending::Interrupted;
                report.problem = Some(format!("interrupted during {}", planned.name));
                report.runs.extend(cluster.as_mut().and_then(Cluster::torso));
                break;
            }
        };
        report.targets = cluster.as_ref().map_or(0, |cluster| cluster.targets.len());
        match run {
            Ok(run) => report.runs.push(run),
            Err(error) => {
                ending = Ending::Failed;
                report.problem = Some(format!("{}: {error:#}", planned.name));
                report
                    .runs
                    .extend(cluster.as_mut().and_then(Cluster::torso));
                break;
            }
        }
    }
    drop(cluster);
    let of_command_line = common.threshold.iter().cloned();
    let thresholds: Vec<_> = scenario
        .thresholds
        .iter()
        .cloned()
        .chain(of_command_line)
        .collect();
    report.check(&thresholds);
    print!("{}", crate::report::table::text(&report));
    if let Some(path) = &common.report {
        report.write(path)?;
    }
    if let Some(problem) = &report.problem {
        eprintln!("rookery-loadtest: {problem}");
    }
    Ok((report, ending))
}

/// Runs one run; starts a cluster where there is none that fits.
async fn one(
    planned: &Planned,
    kind: &Kind,
    common: &Common,
    cluster: &mut Option<Cluster>,
) -> anyhow::Result<Run> {
    enough_files(kind.sockets())?;
    let nodes = planned.nodes.unwrap_or(common.spawn.nodes);
    ensure!(
        planned.nodes.is_none() || common.target.is_empty(),
        "this run is about a cluster of {nodes} nodes of its own: leave out --target"
    );
    if cluster
        .as_ref()
        .is_none_or(|cluster| cluster.nodes != nodes)
    {
        // The old one first: its processes would be measured along.
        *cluster = None;
        *cluster = Some(Cluster::start(common, nodes).await?);
    }
    let cluster = cluster.as_mut().context("no cluster")?;
    cluster.under_way = Some(UnderWay {
        name: planned.name.clone(),
        kind: kind.name(),
        sampler: Sampler::start(cluster.meter.clone()),
    });
    let mut run = cluster.run(kind, common).await?;
    if let Some(under_way) = cluster.under_way.take() {
        run.samples = under_way.sampler.finish();
    }
    run.name.clone_from(&planned.name);
    run.kind = kind.name().to_owned();
    run.growth.clone_from(&planned.growth);
    Ok(run)
}

/// A run that has not come to its end.
struct UnderWay {
    name: String,
    kind: &'static str,
    sampler: Sampler,
}

/// What is driven, and who drives it.
struct Cluster {
    nodes: u8,
    targets: Vec<String>,
    meter: Meter,
    population: Population,
    under_way: Option<UnderWay>,
    /// Stopped with the cluster.
    _rig: Option<Rig>,
}

impl Cluster {
    async fn start(common: &Common, nodes: u8) -> anyhow::Result<Self> {
        ensure!(
            common.pids.is_empty() || !common.target.is_empty(),
            "--pids is for --target: of its own cluster the load test knows them"
        );
        let spawn = SpawnOptions {
            nodes,
            ..common.spawn.clone()
        };
        let rig = match common.target.is_empty() {
            true => Some(Rig::start(&spawn).await?),
            false => None,
        };
        let (targets, roles) = match &rig {
            Some(rig) => (rig.targets.clone(), rig.roles.clone()),
            None => (common.target.clone(), common.pids.clone()),
        };
        Ok(Self {
            nodes,
            meter: Meter::new(roles)?,
            population: Population::new(&targets, rig.as_ref().map(|rig| rig.bulk.clone()))?,
            targets,
            under_way: None,
            _rig: rig,
        })
    }

    /// What is known of a run that was cut short.
    fn torso(&mut self) -> Option<Run> {
        let under_way = self.under_way.take()?;
        let mut run = Run::new(&under_way.name, under_way.kind);
        run.about = "cut short: only what was sampled meanwhile".to_owned();
        run.samples = under_way.sampler.finish();
        Some(run)
    }

    async fn run(&mut self, kind: &Kind, common: &Common) -> anyhow::Result<Run> {
        match kind {
            Kind::Direct { direct, rate } => self.direct(direct, *rate, common).await,
            Kind::Idle(options) => self.idle(options, common).await,
            Kind::Group(options) => self.group(options).await,
            Kind::History(options) => {
                let seconds = Duration::from_secs(options.seconds);
                self.population.outlives(seconds)?;
                let library = self
                    .population
                    .library(options.messages, options.conversations);
                let library = library.await?;
                history::run(&self.targets, &library, options, &self.meter).await
            }
            Kind::Presence(options) => {
                self.population
                    .outlives(Duration::from_secs(options.seconds))?;
                let members = options.watchers as usize + 1;
                let circles = self.population.circles(options.groups as usize, members);
                let circles = circles.await?;
                presence::run(&self.targets, &circles, options, &self.meter).await
            }
            Kind::Storm(options) => {
                let plan = storm::Plan {
                    targets: self.targets.clone(),
                    people: self
                        .population
                        .people(options.connections as usize)
                        .await?
                        .to_vec(),
                    at_once: usize::from(options.at_once),
                    format: common.format.into(),
                };
                storm::run(&plan, &self.meter).await
            }
            Kind::Mixed { direct, mixed } => {
                let company = self.company(mixed).await?;
                let plan = self.direct_plan(direct, Some(mixed.rate), common).await?;
                mixed::run(plan, &company, mixed, &self.meter).await
            }
        }
    }

    async fn idle(&mut self, options: &IdleOptions, common: &Common) -> anyhow::Result<Run> {
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
            format: common.format.into(),
        };
        idle::run(&plan, &self.meter).await
    }

    async fn group(&mut self, options: &GroupOptions) -> anyhow::Result<Run> {
        let run = Duration::from_secs(options.warmup + options.seconds);
        self.population.outlives(run)?;
        let count = options.groups as usize * options.members as usize;
        let plan = group::Plan {
            targets: self.targets.clone(),
            people: self.population.people(count).await?.to_vec(),
            groups: options.groups as usize,
            window: options.window as usize,
            warmup: Duration::from_secs(options.warmup),
            measure: Duration::from_secs(options.seconds),
            content_bytes: options.bytes as usize,
        };
        group::run(&plan, &self.meter).await
    }

    async fn direct(
        &mut self,
        options: &DirectOptions,
        rate: Option<f64>,
        common: &Common,
    ) -> anyhow::Result<Run> {
        let plan = self.direct_plan(options, rate, common).await?;
        direct::run(plan, &self.meter).await
    }

    /// Those beside the pairs, as many as their rates need.
    async fn company(&mut self, options: &MixedOptions) -> anyhow::Result<mixed::Company> {
        let people = |rate: f64| if rate > 0.0 { COMPANY } else { 0 };
        Ok(mixed::Company {
            circles: self.population.circles(people(options.presence), 2).await?,
            typists: self.population.circles(people(options.typing), 2).await?,
            returning: self
                .population
                .people(people(options.reconnects))
                .await?
                .to_vec(),
            library: self.population.library(LIBRARY.0, LIBRARY.1).await?,
            accounts: self
                .population
                .accounts(people(options.logins).min(ACCOUNTS))
                .await?,
            targets: self.targets.clone(),
        })
    }

    async fn direct_plan(
        &mut self,
        options: &DirectOptions,
        rate: Option<f64>,
        common: &Common,
    ) -> anyhow::Result<direct::Plan> {
        self.population.outlives(options.whole_run())?;
        let load = match rate {
            None => Load::Window {
                messages: options.window as usize,
            },
            Some(per_second) => Load::Rate { per_second },
        };
        Ok(direct::Plan {
            targets: self.targets.clone(),
            couples: self.population.couples(options.users as usize / 2).await?,
            load,
            both_ways: options.both_ways,
            marks: options.marks,
            warmup: Duration::from_secs(options.warmup),
            measure: Duration::from_secs(options.seconds),
            format: common.format.into(),
            content_bytes: options.bytes as usize,
            threads: usize::from(common.threads),
        })
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
