//! Connections that do nothing: what each of them costs in memory, and in CPU for its heartbeats.
//!
//! Two looks, at some connections and at all of them: the difference is what a connection costs,
//! whatever a node needs for itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_client::{ClientCommand, Connect, ServerEvent, Socket};
use rookery_protocol::Format;
use rookery_protocol::command::Ping;
use tokio::task::JoinSet;

use crate::meter::{CpuTimes, GATEWAY, Meter};
use crate::population::Person;
use crate::progress;
use crate::report::Idle;
use crate::source::{self, READ_BUFFER_BYTES};

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
    pub format: Format,
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
pub(crate) async fn run(plan: &Plan, meter: &Meter) -> anyhow::Result<Idle> {
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
    let first_resident_bytes = meter.resident(GATEWAY);

    let (cpu_before, begun) = (meter.cpu(), Instant::now());
    crowd.grow(plan, first..count).await?;
    let connecting = begun.elapsed().as_secs_f64();
    let added = (count - first) as f64;
    let cpu_us_per_connect = micros_per(&meter.cpu(), &cpu_before, added);
    progress::wait(SETTLE, "settling").await;
    let resident_bytes = meter.resident(GATEWAY);

    let (cpu_before, begun) = (meter.cpu(), Instant::now());
    progress::wait(plan.watch, "idle").await;
    let idle_seconds = begun.elapsed().as_secs_f64();
    let cpu = meter.cpu();
    let grown = resident_bytes.saturating_sub(first_resident_bytes);
    Ok(Idle {
        connections: count,
        first_connections: first,
        conversations_each: plan.conversations_each,
        first_resident_bytes,
        resident_bytes,
        resident_bytes_per_connection: grown as f64 / added,
        connects_per_second: added / connecting,
        cpu_us_per_connect,
        idle_seconds,
        cpu_cores: micros_per(&cpu, &cpu_before, idle_seconds * 1_000_000.0),
        cpu_us_per_connection_second: micros_per(&cpu, &cpu_before, idle_seconds * count as f64),
        closed: crowd.closed(),
    })
}

fn micros_per(now: &CpuTimes, before: &CpuTimes, parts: f64) -> BTreeMap<String, f64> {
    let share = |(role, time): (String, Duration)| (role, time.as_secs_f64() * 1_000_000.0 / parts);
    now.since(before).into_iter().map(share).collect()
}

impl Crowd {
    async fn grow(&mut self, plan: &Plan, range: std::ops::Range<usize>) -> anyhow::Result<()> {
        let mut line = progress::Line::new("connections", range.end as u64);
        let mut done = range.start as u64;
        let mut sockets = stream::iter(range)
            .map(|index| open(plan, index))
            .buffer_unordered(CONNECTING);
        while let Some(socket) = sockets.try_next().await? {
            self.tasks.spawn(hold(socket, Arc::clone(&self.closed)));
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
    let how = Connect {
        format: plan.format,
        source: source::address(url, index),
        read_buffer_bytes: READ_BUFFER_BYTES,
        ..Connect::with_token(&plan.people[index].token)
    };
    let mut socket = Socket::connect(url, &how)
        .await
        .with_context(|| format!("connecting to {url}"))?;
    socket
        .ready()
        .await
        .with_context(|| format!("waiting for ready from {url}"))?;
    socket.send(&ClientCommand::Ping(Ping::default())).await?;
    while !matches!(socket.recv().await?, ServerEvent::Pong(_)) {}
    Ok(socket)
}

async fn hold(mut socket: Socket, closed: Closed) {
    let error = loop {
        if let Err(error) = socket.recv_raw().await {
            break error;
        }
    };
    let code = error.close_code().unwrap_or(0);
    *closed
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(code)
        .or_default() += 1;
}
