//! A run, phase by phase.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rookery_oracle::{FinalState, History, Recorder, check};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::annex::{self, Annex};
use crate::faults::sentinels;
use crate::kinds::{self, Kind};
use crate::nemesis::Nemesis;
use crate::options::Options;
use crate::plan::Plan;
use crate::report::{About, Report};
use crate::watch::Watch;
use crate::world::World;
use crate::{rest, truth, workload};

const HISTORY: &str = "history.jsonl";
const STATE: &str = "state.json";

/// Starts a cluster, breaks it for the asked time, lets it come to rest, and judges. Writes the
/// report, and tells where it is.
///
/// # Errors
/// It could not be done: nothing was judged.
pub async fn run(options: Options) -> Result<Report> {
    let kinds = kinds::chosen(&options.kinds)?;
    let seed = options.seed.unwrap_or_else(seed_of_the_clock);
    let binary = binary(&options)?;
    let folder = options.report.join(format!("seed-{seed}"));
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    eprintln!("seed {seed}; the report goes to {}", folder.display());

    let recorder = Recorder::create(&folder.join(HISTORY), "chaos")?;
    let people = usize::from(options.people);
    let mut world = World::start(
        &binary,
        people,
        sentinels::are_needed(&kinds),
        recorder.clone(),
    )
    .await?;
    if annex::is_needed(&kinds) {
        world.annex = Some(Annex::start(&binary, &folder).await?);
    }
    let about = About::of(&options, seed, &binary, &world).await?;
    let (nemesis, watch) = (Nemesis::default(), Watch::default());
    let interrupted = faults(&world, &nemesis, &watch, (&options, seed, &kinds)).await;

    eprintln!("healing");
    recorder.mark("heal");
    rest::heal(&world).await?;
    recorder.mark("rest");
    let (settled_in, restless) = rest::settle(&world).await?;
    watch.look(&world, 0).await;
    eprintln!("judging");
    // Before the store is read: what is seen after that could not be judged.
    world.end_devices().await;
    recorder.finish()?;
    let state = truth::read(&world).await?;
    if let Some(annex) = &mut world.annex {
        annex.end().await?;
    }

    let verdict = judge(&folder.join(HISTORY), &state)?;
    let mut report = Report::new(about, &kinds, verdict);
    report.add_faults(nemesis.state(), interrupted);
    report.add_figures(&world.measure, watch.seen());
    report.add_rest(settled_in, restless);
    if let Some(annex) = &world.annex {
        report.add_annex(&annex.measure, annex.take_judged());
    }
    report.write(&folder)?;
    let keep = options.keep || !report.is_clean();
    if let Some(annex) = &world.annex {
        annex.leave(keep)?;
    }
    if keep {
        let state = serde_json::to_vec(&state)?;
        std::fs::write(folder.join(STATE), state)?;
        for (name, log) in logs(&world) {
            std::fs::write(folder.join(format!("{name}.txt")), log)?;
        }
    } else {
        std::fs::remove_file(folder.join(HISTORY))?;
    }
    eprintln!("{}", report.summary());
    Ok(report)
}

/// The safety phase: load and faults. Whether somebody interrupted it.
async fn faults(
    world: &World,
    nemesis: &Nemesis,
    watch: &Watch,
    (options, seed, kinds): (&Options, u64, &[&'static Kind]),
) -> bool {
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    let end = Instant::now() + options.time();
    let interrupt = tokio::spawn(interrupt(stop.clone()));
    let plan = Plan::new(seed, kinds.to_vec());
    let broken = async {
        nemesis.run(world, plan, end, &stop).await;
        // Without faults, or with few, the load goes on for as long as was asked.
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            () = stop.cancelled() => {}
        }
        over.cancel();
    };
    let beside = async {
        if let Some(annex) = &world.annex {
            workload::write(annex.writers(), seed, annex::RATE, &over).await;
        }
    };
    tokio::join!(
        broken,
        beside,
        workload::write(world.writers(), seed, options.rate, &over),
        workload::churn(world, seed, &over),
        watch.run(world, nemesis, end, &over),
    );
    interrupt.abort();
    stop.is_cancelled()
}

/// The first Ctrl-C ends the faults, and the run is judged as far as it came; the second one ends
/// everything.
async fn interrupt(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        eprintln!("\nstopping; once more to give up");
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}

/// Holds a history of everything that was sent to what became of it.
pub(crate) fn judge(history: &Path, state: &FinalState) -> Result<rookery_oracle::Report> {
    let options = rookery_oracle::Options {
        all_sends_recorded: true,
        ..rookery_oracle::Options::default()
    };
    let history = History::file(history);
    Ok(check(&[history], state, &options)?)
}

fn logs(world: &World) -> Vec<(String, String)> {
    let nodes = world.cluster.nodes().iter();
    nodes
        .map(|node| (node.name().to_owned(), node.log()))
        .collect()
}

fn binary(options: &Options) -> Result<PathBuf> {
    let path = match &options.binary {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("rookery"),
    };
    let built = "build it: cargo build -p rookery --features failpoints";
    path.canonicalize()
        .with_context(|| format!("there is no {}; {built}", path.display()))
}

fn seed_of_the_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs() % 1_000_000
}
