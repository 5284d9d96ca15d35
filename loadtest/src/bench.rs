//! Runs the runs of a scenario one after the other, against one cluster or several, and keeps what
//! was found however that ends.

use anyhow::Context;

use crate::check;
use crate::cluster::Cluster;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::options::{Common, Kind};
use crate::peer::Peer;
use crate::report::{Compared, Report, Run, SCHEMA};
use crate::scenario::{Planned, Scenario};

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
/// Not all of it can be done, or the report cannot be written. What a run failed for is in the report,
/// and on stderr.
pub(crate) async fn run(scenario: &Scenario, common: &Common) -> anyhow::Result<(Report, Ending)> {
    let names = scenario.runs.iter().map(|run| run.name.clone());
    check::before(scenario, common, &names.collect::<Vec<_>>())?;
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
    pub(crate) fn run(self, planned: &str) -> String {
        match self {
            Self::Rookery => planned.to_owned(),
            Self::Compared(name, _) => format!("{planned}-{name}"),
        }
    }

    /// Those of a scenario that are for it.
    pub(crate) fn runs(self, scenario: &Scenario) -> impl Iterator<Item = &Planned> {
        let is_peer = self.peer().is_some();
        scenario
            .runs
            .iter()
            .filter(move |run| run.peers || !is_peer)
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

/// Adds all runs of a scenario to a report, as far as they get, and writes it after each where the
/// options say: however this program ends, what was measured before is there.
///
/// # Errors
/// It cannot be interrupted. What a run failed for is in the report.
pub(crate) async fn all(
    report: &mut Report,
    scenario: &Scenario,
    common: &Common,
    whose: Whose<'_>,
) -> anyhow::Result<Ending> {
    let mut cluster = None;
    let mut interrupt = Interrupt::new()?;
    let total = whose.runs(scenario).count();
    for (index, planned) in whose.runs(scenario).enumerate() {
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
            () = interrupt.comes() => None,
        };
        report.targets = cluster.as_ref().map_or(0, |cluster| cluster.targets.len());
        let disk = cluster.as_ref().and_then(Cluster::disk);
        report.machine.disk = disk.cloned().or(report.machine.disk.take());
        let calm = cluster.as_ref().and_then(Cluster::calm);
        report.machine.calm = calm.cloned().or(report.machine.calm.take());
        let (ending, problem) = match run {
            Some(Ok(run)) => {
                report.runs.push(work.signed(run, common));
                if index + 1 < total || matches!(whose, Whose::Compared(..)) {
                    keep(report, common);
                }
                continue;
            }
            Some(Err(error)) => (Ending::Failed, format!("{name}: {error:#}")),
            None => (Ending::Interrupted, format!("interrupted during {name}")),
        };
        report.add_problem(problem);
        let torso = cluster.as_mut().and_then(Cluster::torso);
        report
            .runs
            .extend(torso.map(|run| work.signed(run, common)));
        return Ok(ending);
    }
    Ok(Ending::Complete)
}

/// Writes what there is so far.
fn keep(report: &Report, common: &Common) {
    let Some(path) = &common.report else { return };
    let mut so_far = report.clone();
    so_far.add_problem(format!("ended after {} runs", report.runs.len()));
    if let Err(error) = so_far.write(path) {
        // The next attempt may succeed, and what is measured is still here.
        eprintln!("rookery-loadtest: {error:#}");
    }
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
        // Targets are as many as they are.
        let wanted = self.planned.nodes.filter(|_| common.target.is_empty());
        let nodes = wanted.unwrap_or(common.spawn.nodes);
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
    fn signed(&self, mut run: Run, common: &Common) -> Run {
        let targets = common.target.len();
        if let Some(nodes) = self.planned.nodes
            && targets > 0
            && usize::from(nodes) != targets
        {
            run.notes
                .push(format!("meant for {nodes} nodes, and driven on {targets}"));
        }
        run.growth.clone_from(&self.planned.growth);
        match self.whose {
            Whose::Compared(server, _) if self.planned.peers => {
                run.compared = Some(Compared {
                    run: self.planned.name.clone(),
                    server: server.to_owned(),
                });
            }
            Whose::Compared(..) => run.about.push_str("; Rookery alone"),
            Whose::Rookery => {}
        }
        run
    }
}
