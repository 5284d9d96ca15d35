//! Connections that do nothing: what each of them costs in memory, and in CPU for its heartbeats.
//!
//! Two looks, at some connections and at all of them: the difference is what a connection costs,
//! whatever a node needs for itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_client::Socket;
use tokio::task::JoinSet;

use crate::dialect::Dialect;
use crate::meter::{GATEWAY, Meter};
use crate::population::Person;
use crate::progress;
use crate::report::Run;
use crate::steady::{Steady, put_growth};

/// Connections that are opened at a time.
const CONNECTING: usize = 64;
/// Until what a burst of connects left behind is put away.
const SETTLE: Duration = Duration::from_secs(5);
/// The first look is at this share of the connections.
const FIRST_SHARE: usize = 5;

/// Said of targets whose processes are not known.
const NO_PROCESSES: &str = "memory and CPU of the nodes were not measured: that takes their process \
                            ids, for instance --pids gateway=12,13";

#[derive(Debug)]
pub(crate) struct Plan {
    pub targets: Vec<String>,
    pub people: Vec<Person>,
    pub conversations_each: usize,
    /// How long to watch them idle: longer than a heartbeat, 25 s.
    pub watch: Duration,
    pub dialect: Dialect,
}

/// Sockets that ended, by close code.
type Closed = Arc<Mutex<BTreeMap<u16, u64>>>;

/// Open connections, each read by a task of its own, which also answers pings.
struct Crowd {
    tasks: JoinSet<()>,
    closed: Closed,
    opened: Arc<AtomicU64>,
}

/// Runs the plan.
///
/// # Errors
/// A connection is refused.
pub(crate) async fn run(plan: &Plan, meter: &Meter) -> anyhow::Result<Run> {
    let count = plan.people.len();
    let first = (count / FIRST_SHARE).max(1);
    let mut crowd = Crowd {
        tasks: JoinSet::new(),
        closed: Closed::default(),
        opened: Arc::default(),
    };
    let opened = Arc::clone(&crowd.opened);
    meter
        .gauges
        .set(move || vec![("connects", opened.load(Relaxed))]);
    let mut notes = Vec::new();
    crowd.grow(plan, 0..first).await?;
    let (first_cores, _, first_resident_bytes) = watch(plan, meter, &mut notes).await;

    let (cpu_before, begun) = (meter.cpu(), Instant::now());
    crowd.grow(plan, first..count).await?;
    let connecting = begun.elapsed().as_secs_f64();
    let added = (count - first) as f64;
    let cpu_us_per_connect = meter.cpu().micros_per(&cpu_before, added);

    let (cores, idle_seconds, resident_bytes) = watch(plan, meter, &mut notes).await;
    let mut run = Run::new("idle", "idle");
    run.about = format!(
        "{count} connections, {} conversations each",
        plan.conversations_each
    );
    run.seconds = idle_seconds;
    run.notes = notes;
    match meter.has(GATEWAY) {
        true => {
            put_growth(&mut run, [first_resident_bytes, resident_bytes], added);
            run.put("resident_mib", resident_bytes as f64 / 1_048_576.0);
            run.memory_by_connections =
                vec![(first, first_resident_bytes), (count, resident_bytes)];
        }
        false => run.notes.push(NO_PROCESSES.to_owned()),
    }
    run.put("connects_per_s", added / connecting);
    run.put_roles("cpu_us_per_connect", cpu_us_per_connect);
    put_idle_cpu(&mut run, [&first_cores, &cores], added);
    run.put_roles("cores", cores.clone());
    let closed = crowd.closed();
    run.promise("idle sockets closed", closed.values().sum());
    run.put_closed(closed);
    Ok(run)
}

/// What each of so many connections adds to the CPU that a role uses while nothing happens. A role
/// that used less with them than without has no such metric: what they cost is lost in the rest.
fn put_idle_cpu(run: &mut Run, [first, all]: [&BTreeMap<String, f64>; 2], added: f64) {
    for (role, cores) in all {
        let more = cores - first.get(role).copied().unwrap_or_default();
        let name = format!("cpu_us_per_connection_s.{role}");
        match more >= 0.0 {
            true => run.put(&name, more * 1_000_000.0 / added),
            false => run.notes.push(format!(
                "{name} was not measured: with these connections {role} used less than before"
            )),
        }
    }
}

/// Cores that each role used while nothing happened, for how many seconds that was, and the nodes'
/// resident bytes at its end: only then have the heartbeats used what they use, and is put away what
/// a burst of connects took.
async fn watch(
    plan: &Plan,
    meter: &Meter,
    notes: &mut Vec<String>,
) -> (BTreeMap<String, f64>, f64, u64) {
    let mut memory = Steady::new(meter, plan.people.len());
    memory.watch(SETTLE, "settling").await;
    let (before, begun) = (meter.cpu(), Instant::now());
    memory.watch(plan.watch, "idle").await;
    let resident = match meter.has(GATEWAY) {
        true => memory.settled(notes).await,
        false => 0,
    };
    let seconds = begun.elapsed().as_secs_f64();
    (meter.cpu().cores(&before, seconds), seconds, resident)
}

impl Crowd {
    async fn grow(&mut self, plan: &Plan, range: std::ops::Range<usize>) -> anyhow::Result<()> {
        let mut line = progress::Line::new("connections", range.end as u64);
        let mut done = range.start as u64;
        let mut sockets = stream::iter(range)
            .map(|index| open(plan, index))
            .buffer_unordered(CONNECTING);
        while let Some(socket) = sockets.try_next().await? {
            self.tasks
                .spawn(hold(socket, plan.dialect, Arc::clone(&self.closed)));
            self.opened.fetch_add(1, Relaxed);
            done += 1;
            line.show(done);
        }
        line.end();
        Ok(())
    }

    fn closed(&self) -> BTreeMap<u16, u64> {
        self.closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Connects, and asks once: a connection that was never used would look cheaper than it is.
async fn open(plan: &Plan, index: usize) -> anyhow::Result<Socket> {
    let url = &plan.targets[index % plan.targets.len()];
    let person = &plan.people[index];
    let mut socket = plan.dialect.open(url, index, person, false).await?;
    plan.dialect.ask(&mut socket).await?;
    Ok(socket)
}

async fn hold(mut socket: Socket, dialect: Dialect, closed: Closed) {
    let error = loop {
        match socket.recv_raw().await {
            Ok(frame) => {
                if let Some(answer) = dialect.answer(&frame) {
                    // Its failure shows when reading.
                    let _ = socket.send_raw(answer).await;
                }
            }
            Err(error) => break error,
        }
    };
    let code = error.close_code().unwrap_or(0);
    *closed
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(code)
        .or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_cost_less_than_nothing() {
        let cores = |gateway, redis| {
            let cores = [("gateway".to_owned(), gateway), ("redis".to_owned(), redis)];
            BTreeMap::from(cores)
        };
        let mut run = Run::new("idle", "idle");
        put_idle_cpu(
            &mut run,
            [&cores(0.5, 0.25), &cores(1.0, 0.125)],
            1_000_000.0,
        );
        let metrics: Vec<_> = run.metrics.into_iter().collect();
        assert_eq!(
            metrics,
            [("cpu_us_per_connection_s.gateway".to_owned(), 0.5)]
        );
        let [note] = &run.notes[..] else {
            panic!("{:?}", run.notes)
        };
        assert!(
            note.starts_with("cpu_us_per_connection_s.redis was not measured"),
            "{note}"
        );
    }
}
