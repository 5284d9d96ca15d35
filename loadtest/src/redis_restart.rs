//! Redis is killed under load and comes back empty: how long until the nodes are subscribed to
//! everything again and have told what was missed, as they say themselves and as people see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use tokio::sync::oneshot;

use crate::direct::{self, Witness};
use crate::meter::{Meter, REDIS};
use crate::options::rate;
use crate::progress;
use crate::report::Run;
use crate::schedule::Schedule;
use crate::spawn::{Metrics, Ops, Rig};

/// Of the load, before Redis is killed.
const BEFORE: Duration = Duration::from_secs(2);
/// Of the load, after Redis is back.
const AFTER: Duration = Duration::from_secs(8);
/// Nodes that are not repaired by then will not be.
const REPAIR_WITHIN: Duration = Duration::from_secs(60);
/// How often nodes are asked meanwhile, and so how exact the times are.
const LOOK: Duration = Duration::from_millis(20);

const CONFIRMED: &str = "rookery_bus_resubscriptions_total{result=\"confirmed\"}";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RedisRestartOptions {
    /// Users, each with a connection; every two are a pair that writes in turns
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub users: u32,
    /// Messages a second over all pairs, at fixed times
    #[arg(long, default_value_t = 500.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds that Redis is away
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub down: u64,
    /// Seconds of load before anything is measured
    #[arg(long, default_value_t = 5)]
    pub warmup: u64,
}

impl RedisRestartOptions {
    /// How long is measured.
    pub(crate) fn measure(&self) -> Duration {
        BEFORE + Duration::from_secs(self.down) + AFTER
    }
}

/// What the nodes said.
struct Found {
    /// When Redis was started again.
    back_at: Instant,
    /// From then on, until the last node had everything confirmed, and had told what was missed.
    resubscribed: Duration,
    repaired: Duration,
    /// Of the slowest node: from its new connection to having everything confirmed on it.
    resubscribing_seconds: f64,
    channels: f64,
    sockets: f64,
}

/// Runs it.
///
/// # Errors
/// As `direct`, and if a node says nothing or does not recover.
pub(crate) async fn run(
    mut plan: direct::Plan,
    rig: &mut Rig,
    options: &RedisRestartOptions,
    meter: &Meter,
) -> anyhow::Result<Run> {
    let witness = Arc::new(Witness::default());
    plan.witness = Some(Arc::clone(&witness));
    let (begins, begun) = oneshot::channel();
    let restart = async {
        // Ends without a word when the pairs could not connect: their error is the one that counts.
        match begun.await {
            Ok(schedule) => restart(schedule, rig, options, (&witness, meter))
                .await
                .map(Some),
            Err(_) => Ok(None),
        }
    };
    let direct = direct::run_with(plan, meter, |schedule| {
        // Fails only when the other side has failed, which ends the run.
        let _ = begins.send(schedule);
    });
    let (mut run, found) = tokio::try_join!(direct, restart)?;
    let found = found.context("Redis was never killed")?;
    run.about = format!(
        "{}; Redis away for {} s and back empty",
        run.about, options.down
    );
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    run.put("resubscribed_ms", ms(found.resubscribed));
    run.put("repaired_ms", ms(found.repaired));
    run.put("resubscribing_ms", found.resubscribing_seconds * 1_000.0);
    run.put("sockets", found.sockets);
    run.put("channels", found.channels);
    let seen = witness.look();
    let last = seen.last_arrival.context("nothing arrived meanwhile")?;
    run.put(
        "arrived_ms",
        ms(last.saturating_duration_since(found.back_at)),
    );
    run.put("missed_messages", seen.arrived as f64);
    run.put("missed_devices", seen.devices.len() as f64);
    Ok(run)
}

async fn restart(
    schedule: Schedule,
    rig: &mut Rig,
    options: &RedisRestartOptions,
    (witness, meter): (&Witness, &Meter),
) -> anyhow::Result<Found> {
    tokio::time::sleep_until((schedule.measure_from + BEFORE).into()).await;
    let nodes = rig.ops();
    let before = ask(&nodes).await?;
    witness.begin();
    rig.kill_redis();
    progress::say("Redis is killed");
    tokio::time::sleep(Duration::from_secs(options.down)).await;
    // Counts from the start of the process: it answers some milliseconds later.
    let back_at = Instant::now();
    meter.adopt(REDIS, &rig.start_redis().await?);
    progress::say("Redis is back, empty");
    let mut resubscribed = None;
    let after = loop {
        let now = ask(&nodes).await?;
        if resubscribed.is_none() && all(&before, &now, has_resubscribed)? {
            resubscribed = Some(back_at.elapsed());
            // From here on the bus brings everything.
            witness.end();
        }
        if resubscribed.is_some() && all(&before, &now, |_, now| is_repaired(now))? {
            break now;
        }
        ensure!(
            back_at.elapsed() < REPAIR_WITHIN,
            "{} s after Redis came back a node is not repaired",
            REPAIR_WITHIN.as_secs()
        );
        tokio::time::sleep(LOOK).await;
    };
    let repaired = back_at.elapsed();
    progress::say(&format!(
        "all is repaired after {} ms",
        repaired.as_millis()
    ));
    let mut found = Found {
        back_at,
        resubscribed: resubscribed.unwrap_or(repaired),
        repaired,
        resubscribing_seconds: 0.0,
        channels: 0.0,
        sockets: 0.0,
    };
    for (before, after) in before.iter().zip(&after) {
        let grown = |series| anyhow::Ok(after.get(series)? - before.get(series)?);
        let seconds = grown("rookery_bus_resubscribe_seconds_sum")?;
        let mean = seconds / grown("rookery_bus_resubscribe_seconds_count")?;
        found.resubscribing_seconds = found.resubscribing_seconds.max(mean);
        found.channels += after.get("rookery_bus_subscriptions")?;
        found.sockets += after.get("rookery_sockets")?;
    }
    Ok(found)
}

async fn ask(nodes: &[Ops]) -> anyhow::Result<Vec<Metrics>> {
    try_join_all(nodes.iter().map(Ops::metrics)).await
}

/// Whether it is so for every node, from its metrics before and now.
fn all(
    before: &[Metrics],
    now: &[Metrics],
    is_so: impl Fn(&Metrics, &Metrics) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    for (before, now) in before.iter().zip(now) {
        if !is_so(before, now)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Everything is confirmed on a new connection, and that is known as a break of the news.
fn has_resubscribed(before: &Metrics, now: &Metrics) -> anyhow::Result<bool> {
    let mut grown = now.get(CONFIRMED)? > before.get(CONFIRMED)?;
    let reconnects = |metrics: &Metrics| -> anyhow::Result<f64> {
        let of = |reason| format!("rookery_ingress_breaks_total{{reason=\"{reason}\"}}");
        Ok(metrics.get(&of("reconnect"))? + metrics.get(&of("cut_off"))?)
    };
    grown &= reconnects(now)? > reconnects(before)?;
    Ok(grown)
}

/// A whole look at the journal has followed every break.
fn is_repaired(now: &Metrics) -> anyhow::Result<bool> {
    let breaks = now.sum("rookery_ingress_breaks_total")?;
    Ok(now.get("rookery_breaks_repaired_total")? >= breaks)
}
