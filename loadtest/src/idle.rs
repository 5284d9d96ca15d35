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

/// Connections that are opened at a time.
const CONNECTING: usize = 64;
/// Until what a burst of connects left behind is put away.
const SETTLE: Duration = Duration::from_secs(5);
/// The first look is at this share of the connections.
const FIRST_SHARE: usize = 5;

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
    crowd.grow(plan, 0..first).await?;
    progress::wait(SETTLE, "settling").await;
    let (first_cores, _) = watch(plan, meter).await;
    // After the watch: an allocator takes some ten seconds to give back what a burst of connects took,
    // and what it still has would hide the memory of those that come next.
    let first_resident_bytes = meter.resident(GATEWAY);

    let (cpu_before, begun) = (meter.cpu(), Instant::now());
    crowd.grow(plan, first..count).await?;
    let connecting = begun.elapsed().as_secs_f64();
    let added = (count - first) as f64;
    let cpu_us_per_connect = meter.cpu().micros_per(&cpu_before, added);
    progress::wait(SETTLE, "settling").await;

    let (cores, idle_seconds) = watch(plan, meter).await;
    let resident_bytes = meter.resident(GATEWAY);
    let mut run = Run::new("idle", "idle");
    run.about = format!(
        "{count} connections, {} conversations each",
        plan.conversations_each
    );
    run.seconds = idle_seconds;
    let grown = resident_bytes.saturating_sub(first_resident_bytes) as f64;
    run.put("kib_per_connection", grown / added / 1_024.0);
    run.put("resident_mib", resident_bytes as f64 / 1_048_576.0);
    run.put("connects_per_s", added / connecting);
    run.put_roles("cpu_us_per_connect", cpu_us_per_connect);
    let each = cores.iter().map(|(role, cores)| {
        let first = first_cores.get(role).copied().unwrap_or_default();
        (role.clone(), (cores - first) * 1_000_000.0 / added)
    });
    run.put_roles("cpu_us_per_connection_s", each);
    run.put_roles("cores", cores.clone());
    run.memory_by_connections = vec![(first, first_resident_bytes), (count, resident_bytes)];
    for (code, count) in crowd.closed() {
        let closed = format!("{count} idle sockets closed with {code}");
        run.broken.push(closed);
    }
    Ok(run)
}

/// Cores that each role used while nothing happened, and for how many seconds that was.
async fn watch(plan: &Plan, meter: &Meter) -> (BTreeMap<String, f64>, f64) {
    let (before, begun) = (meter.cpu(), Instant::now());
    progress::wait(plan.watch, "idle").await;
    let seconds = begun.elapsed().as_secs_f64();
    (meter.cpu().cores(&before, seconds), seconds)
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
