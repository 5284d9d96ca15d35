//! A node is asked to end under load: how its people are sent away, whether they are back on another
//! node when they should be, and whether any of their sends failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rookery_protocol::CloseCode;
use tokio::sync::oneshot;

use crate::direct::{self, Seen, Witness};
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::options::rate;
use crate::progress;
use crate::report::Run;
use crate::schedule::Schedule;
use crate::spawn::Rig;

/// Of the load, before the node is asked to end.
const BEFORE: Duration = Duration::from_secs(2);
/// How often the node is looked after.
const LOOK: Duration = Duration::from_millis(20);
/// The node that goes.
const GOES: usize = 0;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DrainOptions {
    /// Users over all nodes, each with a connection; every two are a pair that writes in turns
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub users: u32,
    /// Messages a second over all pairs, at fixed times
    #[arg(long, default_value_t = 1_000.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds of load that are measured: longer than the drain takes
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(5..))]
    pub seconds: u64,
    /// Seconds of load before them
    #[arg(long, default_value_t = 5)]
    pub warmup: u64,
}

/// What the node did.
struct Ended {
    after: Duration,
    code: i32,
}

/// Runs it.
///
/// # Errors
/// As `direct`, and if the node has not ended when the load does.
pub(crate) async fn run(mut plan: direct::Plan, rig: &Rig, meter: &Meter) -> anyhow::Result<Run> {
    ensure!(
        plan.targets.len() > 1,
        "a drain needs a second node to go to: --nodes 2"
    );
    let witness = Arc::new(Witness::default());
    plan.witness = Some(Arc::clone(&witness));
    let (begins, begun) = oneshot::channel();
    let drain = async {
        // Ends without a word when the pairs could not connect: their error is the one that counts.
        match begun.await {
            Ok(schedule) => drain(schedule, rig).await.map(Some),
            Err(_) => Ok(None),
        }
    };
    let direct = direct::run_with(plan, meter, |schedule| {
        // Fails only when the other side has failed, which ends the run.
        let _ = begins.send(schedule);
    });
    let (mut run, ended) = tokio::try_join!(direct, drain)?;
    let ended = ended.context("the node was never asked to end")?;
    run.about = format!("{}; one node drained meanwhile", run.about);
    run.put("exit_seconds", ended.after.as_secs_f64());
    run.promise("exit codes other than 0", u64::from(ended.code != 0));
    report(&mut run, &witness.look())?;
    Ok(run)
}

async fn drain(schedule: Schedule, rig: &Rig) -> anyhow::Result<Ended> {
    tokio::time::sleep_until((schedule.measure_from + BEFORE).into()).await;
    let begun = Instant::now();
    rig.terminate_node(GOES)?;
    progress::say("a node is asked to end");
    loop {
        if let Some(code) = rig.exit_code_of_node(GOES) {
            progress::say(&format!(
                "it ended with {code} after {:.1} s",
                begun.elapsed().as_secs_f64()
            ));
            return Ok(Ended {
                after: begun.elapsed(),
                code,
            });
        }
        ensure!(
            Instant::now() < schedule.measure_to,
            "the load ended before the drain did: more --seconds"
        );
        tokio::time::sleep(LOOK).await;
    }
}

fn report(run: &mut Run, seen: &Seen) -> anyhow::Result<()> {
    let first = *seen
        .hints
        .first()
        .context("nobody was told that the node goes")?;
    let closes: Vec<Instant> = seen.closes.iter().map(|close| close.0).collect();
    let last = *closes.last().context("no socket was closed")?;
    let otherwise = |close: &&(Instant, u16)| close.1 != CloseCode::ServiceRestart.code();
    let otherwise = seen.closes.iter().filter(otherwise).count();
    run.put("sockets", closes.len() as f64);
    run.put("closed_otherwise", otherwise as f64);
    run.put("hinted", seen.hints.len() as f64);
    run.put("seconds", (last - first).as_secs_f64());
    run.put("most_closed_per_s", most_within_a_second(&closes) as f64);
    run.put("returned", seen.returns.len() as f64);
    let mut away = Latencies::new()?;
    seen.returns.iter().for_each(|time| away.record(*time));
    run.put_latency("away", away.quantiles());
    run.promise(
        "sockets that did not return",
        (seen.closes.len() - seen.returns.len()) as u64,
    );
    Ok(())
}

/// The most of these times, which are in order, that lie within any second.
fn most_within_a_second(times: &[Instant]) -> usize {
    let from = |index: usize| {
        let end = times[index] + Duration::from_secs(1);
        times[index..].partition_point(|time| *time < end)
    };
    (0..times.len()).map(from).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_may_begin_anywhere() {
        let start = Instant::now();
        let times = [0, 800, 900, 1_700, 1_900, 3_000].map(|ms| start + Duration::from_millis(ms));
        assert_eq!(most_within_a_second(&times), 3);
        assert_eq!(most_within_a_second(&[]), 0);
    }
}
