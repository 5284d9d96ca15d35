//! Rookery and its peers, one after the other through the same runs: each with a PostgreSQL and a
//! Redis of its own, on a machine that does nothing else meanwhile.

use anyhow::ensure;

use crate::bench::{self, Ending, Whose};
use crate::check;
use crate::options::{Common, CompareOptions};
use crate::peer::Peer;
use crate::report::{Report, ServerFacts};
use crate::scenario::Scenario;

/// How Rookery is named among its peers.
const ROOKERY: &str = "rookery";

/// Compares them. A peer that is not installed, or fails, does not keep the others from being
/// measured.
///
/// # Errors
/// The scenario or a peer is none, or the report cannot be written.
pub(crate) async fn run(
    options: &CompareOptions,
    common: &Common,
) -> anyhow::Result<(Report, Ending)> {
    let mut scenario = Scenario::load(&options.scenario)?;
    for planned in &scenario.runs {
        ensure!(
            planned.kind.suits_peers(),
            "{}: peers can be compared by direct (one way, without marks), group and idle only",
            planned.name
        );
    }
    ensure!(
        common.target.is_empty(),
        "a comparison starts its servers by itself: leave out --target"
    );
    let peers = Peer::load(&options.peers, &options.only)?;
    if !options.only.is_empty() {
        // Bounds on peers that nobody asked for.
        let asked = |run: &str| {
            let server = run.rsplit_once('-').map_or(run, |(_, server)| server);
            server == ROOKERY || peers.iter().any(|peer| peer.name == server)
        };
        let bounds = &mut scenario.thresholds;
        bounds.retain(|bound| bound.runs().all(asked));
    }
    let peer_names = peers.iter().map(|peer| peer.name.as_str());
    let names = std::iter::once(ROOKERY).chain(peer_names);
    let names = names.flat_map(|server| {
        let runs = scenario.runs.iter();
        runs.map(move |planned| Whose::Compared(server, None).run(&planned.name))
    });
    check::before(&scenario, common, &names.collect::<Vec<_>>())?;
    let mut report = bench::begin(&scenario);
    let mut worst = Ending::Complete;
    for peer in std::iter::once(None).chain(peers.iter().map(Some)) {
        let facts = facts(peer, &report);
        let name = facts.name.clone();
        report.servers.push(facts);
        let (ending, problem) = match peer.map_or(Ok(()), Peer::is_installed) {
            Ok(()) => {
                let before = report.problem.take();
                let whose = Whose::Compared(&name, peer);
                let ending = bench::all(&mut report, &scenario, common, whose).await?;
                let problem = std::mem::replace(&mut report.problem, before);
                (ending, problem)
            }
            Err(error) => (Ending::Failed, Some(error.to_string())),
        };
        if let Some(problem) = problem {
            eprintln!("rookery-loadtest: {problem}");
            if let Some(facts) = report.servers.last_mut() {
                facts.problem = Some(problem.clone());
            }
            report.add_problem(problem);
        }
        if ending != Ending::Complete {
            worst = ending;
        }
        if ending == Ending::Interrupted {
            break;
        }
    }
    bench::conclude(&mut report, &scenario, common)?;
    Ok((report, worst))
}

fn facts(peer: Option<&Peer>, report: &Report) -> ServerFacts {
    match peer {
        None => ServerFacts {
            name: ROOKERY.to_owned(),
            about: "Rookery: Rust, tokio, PostgreSQL, Redis".to_owned(),
            version: format!(
                "Rookery {} at {}",
                report.machine.version, report.machine.commit
            ),
            persistence: "fsync before the ack and before delivery, many messages a transaction; \
                          its own place in the log"
                .to_owned(),
            problem: None,
        },
        Some(peer) => ServerFacts {
            name: peer.name.clone(),
            about: peer.about.clone(),
            version: peer.version(),
            persistence: peer.persistence.clone(),
            problem: None,
        },
    }
}
