//! A storm of connections from a cold start, as fast as they are admitted: how long until all are
//! ready, what that costs, and whether the memory comes back when they have all gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, stream};
use rookery_client::{ConnectError, Socket};
use rookery_protocol::Format;
use tokio::task::JoinSet;

use crate::latency::Latencies;
use crate::meter::{GATEWAY, Meter};
use crate::population::Person;
use crate::progress::Line;
use crate::report::Run;
use crate::source;
use crate::steady::{Steady, put_growth};

/// Until what is left of the connections is put away, at least: nodes hear a user's channel for 30 s
/// after the last socket. Memory is read once it is flat.
const SETTLE: Duration = Duration::from_secs(40);
/// A node that is full says how long to wait; one that says nothing is asked again after this.
const LATER: Duration = Duration::from_millis(100);
/// Who is not admitted by then is an error.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Plan {
    pub targets: Vec<String>,
    pub people: Vec<Person>,
    /// Connections under way at once.
    pub at_once: usize,
    pub format: Format,
}

/// What the storm came to.
#[derive(Debug, Default)]
struct Seen {
    /// Times that a node asked to come later.
    put_off: AtomicU64,
    ready: AtomicU64,
}

/// Runs the plan.
///
/// # Errors
/// Nobody got a connection.
pub(crate) async fn run(plan: &Plan, meter: &Meter) -> anyhow::Result<Run> {
    let count = plan.people.len();
    let seen = Arc::new(Seen::default());
    let counted = Arc::clone(&seen);
    meter
        .gauges
        .set(move || vec![("ready", counted.ready.load(Relaxed))]);
    let mut notes = Vec::new();
    let fresh = settled(meter, count, Duration::ZERO, &mut notes).await;
    let (cpu, begun) = (meter.cpu(), Instant::now());
    let mut held = JoinSet::new();
    let mut latencies = Latencies::new()?;
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    let mut line = Line::new("ready", count as u64);
    let mut storm = stream::iter(0..count)
        .map(|index| open(plan, index, &seen))
        .buffer_unordered(plan.at_once);
    while let Some(opened) = storm.next().await {
        match opened {
            Ok((socket, took)) => {
                latencies.record(took);
                let ready = seen.ready.fetch_add(1, Relaxed) + 1;
                line.show(ready);
                held.spawn(hold(socket));
            }
            Err(error) => *failures.entry(format!("{error:#}")).or_default() += 1,
        }
    }
    drop(storm);
    let seconds = begun.elapsed().as_secs_f64();
    let used = meter.cpu();
    line.end();
    let ready = seen.ready.load(Relaxed);
    if let Some(failure) = failures.keys().next().filter(|_| ready == 0) {
        anyhow::bail!("nobody got a connection: {failure}");
    }
    let peak = meter.resident(GATEWAY);
    // Closing all sockets at once is what a proxy does that goes away.
    held.shutdown().await;
    let after = settled(meter, count, SETTLE, &mut notes).await;

    let mut run = Run::new("storm", "storm");
    run.about = format!(
        "{count} connections from a cold start, {} at once",
        plan.at_once
    );
    run.seconds = seconds;
    run.notes = notes;
    run.put_latency("connect", latencies.quantiles());
    run.put("ready_seconds", seconds);
    run.put("connects_per_s", ready as f64 / seconds);
    run.put("put_off", seen.put_off.load(Relaxed) as f64);
    run.put_roles("cpu_us_per_connect", used.micros_per(&cpu, ready as f64));
    if meter.has(GATEWAY) {
        memory(&mut run, ready, [fresh, peak, after]);
    }
    run.promise("connections failed", failures.values().sum());
    let notes = failures
        .into_iter()
        .map(|(failure, count)| format!("{count} times: {failure}"));
    run.notes.extend(notes);
    Ok(run)
}

/// The nodes' memory, flat and not before so long; none, if nothing is known of it.
async fn settled(meter: &Meter, count: usize, least: Duration, notes: &mut Vec<String>) -> u64 {
    if !meter.has(GATEWAY) {
        return 0;
    }
    let mut memory = Steady::new(meter, count);
    memory.watch(least, "all gone").await;
    memory.settled(notes).await
}

fn memory(run: &mut Run, ready: u64, [fresh, peak, after]: [u64; 3]) {
    for (name, bytes) in [("fresh", fresh), ("peak", peak), ("after", after)] {
        run.put(&format!("{name}_mib"), bytes as f64 / 1_048_576.0);
    }
    run.put("memory_ratio_after", after as f64 / fresh as f64);
    put_growth(run, [fresh, peak], ready as f64);
}

/// A socket that is ready, and how long that took from the first attempt.
async fn open(plan: &Plan, index: usize, seen: &Seen) -> anyhow::Result<(Socket, Duration)> {
    let url = &plan.targets[index % plan.targets.len()];
    let how = source::connect(url, index, &plan.people[index].token, plan.format);
    let begun = Instant::now();
    loop {
        match Socket::connect(url, &how).await {
            Ok(mut socket) => {
                socket.ready().await.context("waiting for ready")?;
                return Ok((socket, begun.elapsed()));
            }
            Err(ConnectError::Refused {
                status: 503,
                retry_after,
                ..
            }) if begun.elapsed() < PATIENCE => {
                seen.put_off.fetch_add(1, Relaxed);
                tokio::time::sleep(retry_after.unwrap_or(LATER)).await;
            }
            Err(error) => return Err(error).context("connecting"),
        }
    }
}

/// Reads, which answers pings, to the end of the connection.
async fn hold(mut socket: Socket) {
    while socket.recv_raw().await.is_ok() {}
}
