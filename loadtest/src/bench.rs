//! Runs the runs of a scenario one after the other, against one cluster or several, and keeps what
//! was found however that ends.

use anyhow::{Context, ensure};

use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::meter;
use crate::options::{Common, Kind};
use crate::peer::Peer;
use crate::report::{Compared, Report, Run, SCHEMA};
use crate::scenario::{Planned, Scenario};

/// Files that a run needs besides its sockets.
const SPARE_FILES: u64 = 200;

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
    let mut report = begin(scenario);
    let ending = all(&mut report, scenario, common, Whose::Rookery).await?;
    conclude(&mut report, scenario, common)?;
    Ok((report, ending))
}

/// Whose nodes are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    Rookery,
    /// One of several servers that are compared, by name; none: Rookery.
    Compared(&'a str, Option<&'a Peer>),
}

impl Whose<'_> {
    /// The name of a run of it.
    fn run(self, planned: &str) -> String {
        match self {
            Self::Rookery => planned.to_owned(),
            Self::Compared(name, _) => format!("{planned}-{name}"),
        }
    }

    fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Rookery => None,
            Self::Compared(_, peer) => *peer,
        }
    }
}

/// A report without runs.
pub(crate) fn begin(scenario: &Scenario) -> Report {
    Report {
        schema: SCHEMA,
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        machine: Machine::here(),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        ..Report::default()
    }
}

/// Adds all runs of a scenario to a report, as far as they get.
///
/// # Errors
/// None: what a run failed for is in the report.
pub(crate) async fn all(
    report: &mut Report,
    scenario: &Scenario,
    common: &Common,
    whose: Whose<'_>,
) -> anyhow::Result<Ending> {
    let mut cluster = None;
    let total = scenario.runs.len();
    for (index, planned) in scenario.runs.iter().enumerate() {
        let name = whose.run(&planned.name);
        eprintln!("{name} ({} of {total})", index + 1);
        let half_of = planned.half_of.as_ref().map(|earlier| whose.run(earlier));
        let kind = planned.kind.at_half_of(half_of.as_deref(), &report.runs);
        let work = Work {
            name: &name,
            planned,
            kind: &kind,
            whose,
        };
        let run = tokio::select! {
            run = work.run(common, &mut cluster) => Some(run),
            signal = tokio::signal::ctrl_c() => {
                signal?;
                None
            }
        };
        report.targets = cluster.as_ref().map_or(0, |cluster| cluster.targets.len());
        let disk = cluster.as_ref().and_then(Cluster::disk);
        report.machine.disk = disk.cloned().or(report.machine.disk.take());
        let (ending, problem) = match run {
            Some(Ok(run)) => {
                report.runs.push(work.signed(run));
                continue;
            }
            Some(Err(error)) => (Ending::Failed, format!("{name}: {error:#}")),
            None => (Ending::Interrupted, format!("interrupted during {name}")),
        };
        report.add_problem(problem);
        let torso = cluster.as_mut().and_then(Cluster::torso);
        report.runs.extend(torso.map(|run| work.signed(run)));
        return Ok(ending);
    }
    Ok(Ending::Complete)
}

/// Judges a report by its thresholds, prints it, and writes it where the options say.
///
/// # Errors
/// It cannot be written.
pub(crate) fn conclude(
    report: &mut Report,
    scenario: &Scenario,
    common: &Common,
) -> anyhow::Result<()> {
    let of_command_line = common.threshold.iter().cloned();
    let thresholds: Vec<_> = scenario
        .thresholds
        .iter()
        .cloned()
        .chain(of_command_line)
        .collect();
    report.check(&thresholds);
    print!("{}", crate::report::table::text(report));
    if let Some(path) = &common.report {
        report.write(path)?;
    }
    if let Some(problem) = &report.problem {
        eprintln!("rookery-loadtest: {problem}");
    }
    Ok(())
}

/// One run that is to be done.
struct Work<'a> {
    name: &'a str,
    planned: &'a Planned,
    kind: &'a Kind,
    whose: Whose<'a>,
}

impl Work<'_> {
    /// Runs it; starts a cluster where there is none that fits.
    async fn run(&self, common: &Common, cluster: &mut Option<Cluster>) -> anyhow::Result<Run> {
        enough_files(self.kind.sockets())?;
        if let Some(harm) = self.kind.does_harm() {
            ensure!(
                common.target.is_empty(),
                "{} {harm}, and may do so only to servers of its own: leave out --target",
                self.kind.name()
            );
        }
        let nodes = self.planned.nodes.unwrap_or(common.spawn.nodes);
        ensure!(
            self.planned.nodes.is_none() || common.target.is_empty(),
            "this run is about a cluster of {nodes} nodes of its own: leave out --target"
        );
        let fits = |cluster: &Cluster| cluster.nodes == nodes && !cluster.is_harmed;
        if self.planned.fresh || !cluster.as_ref().is_some_and(fits) {
            // The old one first: its processes would be measured along.
            *cluster = None;
            *cluster = Some(Cluster::start(common, nodes, self.whose.peer()).await?);
        }
        let cluster = cluster.as_mut().context("no cluster")?;
        cluster.sampled(self.name, self.kind, common).await
    }

    /// The run with what it was about.
    fn signed(&self, mut run: Run) -> Run {
        run.growth.clone_from(&self.planned.growth);
        if let Whose::Compared(server, _) = self.whose {
            run.compared = Some(Compared {
                run: self.planned.name.clone(),
                server: server.to_owned(),
            });
        }
        run
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
