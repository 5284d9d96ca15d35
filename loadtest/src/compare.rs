//! Rookery and its peers, one after the other through the same runs: each with a PostgreSQL and a
//! Redis of its own, on a machine that does nothing else meanwhile.

use anyhow::ensure;

use crate::bench::{self, Ending, Whose};
use crate::check;
use crate::options::{Common, CompareOptions};
use crate::peer::Peer;
use crate::report::{Report, ServerFacts};
use crate::scenario::{Planned, Scenario};

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
            !planned.peers || planned.kind.suits_peers(),
            "{}: peers can be compared by direct (one way, without marks), group and idle only; \
             what Rookery does alone has peers = false",
            planned.name
        );
    }
    ensure!(
        common.target.is_empty(),
        "a comparison starts its servers by itself: leave out --target"
    );
    let peers = Peer::load(&options.peers, &options.only)?;
    leave_out(&mut scenario, &options.only);
    check::before(&scenario, common, &names(&scenario, &peers))?;
    let mut report = bench::begin(&scenario);
    let mut worst = Ending::Complete;
    for peer in servers(&peers) {
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

/// Rookery, and its peers.
fn servers(peers: &[Peer]) -> impl Iterator<Item = Option<&Peer>> {
    std::iter::once(None).chain(peers.iter().map(Some))
}

/// All runs that there will be.
fn names(scenario: &Scenario, peers: &[Peer]) -> Vec<String> {
    let of = |peer: Option<&Peer>| {
        let server = peer.map_or(ROOKERY, |peer| &peer.name);
        let whose = Whose::Compared(server, peer);
        let runs = whose.runs(scenario).map(|run| whose.run(&run.name));
        runs.collect::<Vec<_>>()
    };
    servers(peers).flat_map(of).collect()
}

/// Leaves out the bounds on what peers would do that nobody asked for.
fn leave_out(scenario: &mut Scenario, only: &[String]) {
    if only.is_empty() {
        return;
    }
    let mut bounds = std::mem::take(&mut scenario.thresholds);
    let is_left_out = |run: &str| {
        parts(scenario, run).is_some_and(|(planned, server)| {
            let asked = server == ROOKERY || only.iter().any(|peer| peer == server);
            planned.peers && !asked
        })
    };
    bounds.retain(|bound| !bound.runs().any(is_left_out));
    scenario.thresholds = bounds;
}

/// What a run of a comparison is named after: what was planned, and the server.
fn parts<'a>(scenario: &'a Scenario, run: &'a str) -> Option<(&'a Planned, &'a str)> {
    let named = scenario.runs.iter().filter_map(|planned| {
        let server = run.strip_prefix(&planned.name)?.strip_prefix('-')?;
        Some((planned, server))
    });
    // `rate-late-ws` is of `rate-late` if there is that, and not of `rate`.
    named.max_by_key(|(planned, _)| planned.name.len())
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What is left of these bounds of the scenario `compare`.
    fn left(bounds: &[&str], only: &[&str]) -> Vec<String> {
        let mut scenario = Scenario::load("compare").unwrap();
        scenario.thresholds = bounds.iter().map(|bound| bound.parse().unwrap()).collect();
        let only: Vec<_> = only.iter().map(|&name| name.to_owned()).collect();
        leave_out(&mut scenario, &only);
        let bounds = scenario.thresholds.iter();
        bounds.map(ToString::to_string).collect()
    }

    #[test]
    fn bounds_on_peers_that_nobody_asked_for_are_left_out() {
        let all = [
            "half-rookery.deliver_p99_ms<=12",
            "rate-rookery.deliver_p99_ms<=1*rate-socketio.deliver_p99_ms",
            "rate-ws.deliver_p99_ms<=9",
        ];
        assert_eq!(left(&all, &[]), all);
        assert_eq!(left(&all, &["socketio"]), all[..2]);
        assert_eq!(left(&all, &["ws"]), [all[0], all[2]]);
        // Nobody could have asked for these: they stay, to be refused.
        let wrong = [
            "presence-socketio.seen_p99_ms<=12",
            "presence.seen_p99_ms<=12",
        ];
        assert_eq!(left(&wrong, &["ws"]), wrong);
    }

    #[test]
    fn a_peer_has_no_part_in_what_is_for_rookery_alone() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let peers = Peer::load(&folder, &["ws".to_owned()]).unwrap();
        let scenario = Scenario::load("compare").unwrap();
        let names = names(&scenario, &peers);
        let (ours, theirs) = names.split_at(scenario.runs.len());
        assert!(ours.contains(&"presence-rookery".to_owned()), "{ours:?}");
        let wanted = ["idle-ws", "saturated-ws", "half-ws", "rate-ws", "group-ws"];
        assert_eq!(theirs, wanted);
    }

    #[test]
    fn one_comparison_checks_every_budget_of_the_standard_report() {
        let compare = Scenario::load("compare").unwrap();
        let bounds = compare.thresholds.iter();
        let bounds: Vec<_> = bounds.map(ToString::to_string).collect();
        for budget in Scenario::load("bench").unwrap().thresholds {
            let wanted = budget.to_string().replacen('.', "-rookery.", 1);
            assert!(bounds.contains(&wanted), "{wanted} is missing");
        }
    }
}
