//! Pairs of users write to each other, the two of a pair on different nodes.
//!
//! Saturated, each pair keeps a window of messages in flight: a message leaves it when it has been
//! acknowledged *and* delivered. At a rate, messages are due at fixed times whatever the server
//! does, and their latency counts from when they were due (no coordinated omission).

mod bottleneck;
mod pacer;
mod pair;
mod witness;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rookery_client::Socket;
use rookery_oracle::pair::Verdict;
use rookery_protocol::Format;
use tokio::sync::{Barrier, Semaphore, mpsc, watch};
use tokio::task::LocalSet;

use crate::dialect::Dialect;
use crate::latency::Latencies;
use crate::meter::{CpuTimes, GENERATOR, Meter};
use crate::population::{Couple, Person};
use crate::progress;
use crate::report::Run;
use crate::schedule::{Counters, Counts, Schedule};
use pacer::{Due, Pacer};
use pair::Pair;
pub(crate) use witness::{Seen, Witness};

/// Connections that one thread opens at a time: quick, and far from a node's admission limit.
const CONNECTING: usize = 32;

/// How hard pairs are driven.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// Closed loop: each pair keeps this many messages in flight.
    Window { messages: usize },
    /// Open loop: this many messages a second over all pairs, at fixed times.
    Rate { per_second: f64 },
}

/// One run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub targets: Vec<String>,
    pub couples: Vec<Couple>,
    pub load: Load,
    /// Both of a pair write, not only the first.
    pub both_ways: bool,
    /// Each delivered message is answered with a read mark.
    pub marks: bool,
    pub warmup: Duration,
    pub measure: Duration,
    pub dialect: Dialect,
    /// Whether a socket that ends comes back to another node and resumes: not all servers can.
    pub returns: bool,
    pub content_bytes: usize,
    pub threads: usize,
    /// For a run in which something is done to the servers.
    pub witness: Option<Arc<Witness>>,
}

/// What all pairs share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    /// Names this run in every message.
    run: u64,
    counters: Vec<Counters>,
    /// Where pairs wait until all have what they sent: the last messages would come late, if a thousand
    /// sockets were closed meanwhile.
    settled: Barrier,
}

impl Shared {
    /// A connection to a target, of the user with this number.
    async fn open(
        &self,
        index: usize,
        target: usize,
        person: &Person,
        resume: bool,
    ) -> anyhow::Result<Socket> {
        let plan = &self.plan;
        let url = &plan.targets[target];
        plan.dialect.open(url, index, person, resume).await
    }
}

/// The latencies of one thread.
#[derive(Debug)]
struct Books {
    to_ack: Latencies,
    to_delivery: Latencies,
    /// From when a message was due to when it was written.
    late: Latencies,
}

impl Books {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            to_ack: Latencies::new()?,
            to_delivery: Latencies::new()?,
            late: Latencies::new()?,
        })
    }

    fn add(&mut self, other: &Self) {
        self.to_ack.add(&other.to_ack);
        self.to_delivery.add(&other.to_delivery);
        self.late.add(&other.late);
    }
}

/// How it went for a pair, or for all of them.
#[derive(Debug, Default)]
struct Tally {
    verdict: Verdict,
    /// Sockets that ended during the run, by close code.
    closed: BTreeMap<u16, u64>,
    /// Sends that went out once more.
    repeated: u64,
    /// Pairs that could not go on to the end.
    gave_up: u64,
    problem: Option<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.verdict += other.verdict;
        self.repeated += other.repeated;
        self.gave_up += other.gave_up;
        for (code, count) in other.closed {
            *self.closed.entry(code).or_default() += count;
        }
        self.problem = self.problem.take().or(other.problem);
    }
}

/// Runs the plan.
///
/// # Errors
/// No connection, or an open loop that this machine cannot keep up with. A broken promise is no
/// error: it stands in the report's verdict.
pub(crate) async fn run(plan: Plan, meter: &Meter) -> anyhow::Result<Run> {
    run_with(plan, meter, |_| {}).await
}

/// The same, and tells when it measures, once everybody is connected.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_with(
    plan: Plan,
    meter: &Meter,
    begins: impl FnOnce(Schedule),
) -> anyhow::Result<Run> {
    let threads = plan.threads.clamp(1, plan.couples.len().max(1));
    let counters = (0..threads).map(|_| Counters::default()).collect();
    let run = u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
    let shared = Arc::new(Shared {
        settled: Barrier::new(plan.couples.len()),
        plan,
        run,
        counters,
    });
    let (begin, started) = watch::channel(None);
    let (connected, connections) = mpsc::channel(1_024);
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let worker = Worker {
                shared: Arc::clone(&shared),
                thread,
                threads,
                started: started.clone(),
            };
            let connected = connected.clone();
            tokio::task::spawn_blocking(move || worker.run(connected))
        })
        .collect();
    drop(connected);
    all_connected(&shared.plan, connections).await?;
    let counted = Arc::clone(&shared);
    meter
        .gauges
        .set(move || Counters::total(&counted.counters).named());

    let schedule = Schedule::new(shared.plan.warmup, shared.plan.measure);
    begin
        .send(Some(schedule))
        .context("the connections were given up")?;
    begins(schedule);
    let measured = measure(&shared, &schedule, meter).await;
    let (mut tally, mut books) = (Tally::default(), Books::new()?);
    for worker in workers {
        let (its_tally, its_books) = worker.await??;
        tally.add(its_tally);
        books.add(&its_books);
    }
    Ok(report(&shared.plan, &measured, tally, &books, meter))
}

async fn all_connected(
    plan: &Plan,
    mut connections: mpsc::Receiver<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let wanted = plan.couples.len();
    let mut line = progress::Line::new("connecting", wanted as u64 * 2);
    for done in 1..=wanted {
        match connections.recv().await {
            Some(outcome) => outcome?,
            None => bail!("a thread of the load test ended"),
        }
        line.show(done as u64 * 2);
    }
    line.end();
    Ok(())
}

/// What was counted within the measured time.
struct Measured {
    seconds: f64,
    counts: Counts,
    /// At its begin and its end.
    cpu: [CpuTimes; 2],
}

/// Shows progress, and takes the measures at their times.
async fn measure(shared: &Shared, schedule: &Schedule, meter: &Meter) -> Measured {
    let look = || -> (Instant, Counts, CpuTimes) {
        (
            Instant::now(),
            Counters::total(&shared.counters),
            meter.cpu(),
        )
    };
    progress::until(schedule.measure_from, "warm-up", &shared.counters).await;
    let (from, before, cpu_before) = look();
    meter.gauges.measures();
    progress::until(schedule.measure_to, "measuring", &shared.counters).await;
    let (to, after, cpu_after) = look();
    Measured {
        seconds: to.duration_since(from).as_secs_f64(),
        counts: Counts {
            sent: after.sent - before.sent,
            acked: after.acked - before.acked,
            delivered: after.delivered - before.delivered,
        },
        cpu: [cpu_before, cpu_after],
    }
}

fn report(plan: &Plan, measured: &Measured, tally: Tally, books: &Books, meter: &Meter) -> Run {
    let mut run = Run::new("direct", "direct");
    let load = match plan.load {
        Load::Window { messages } => format!("{messages} in flight each"),
        Load::Rate { per_second } => format!("{per_second:.0} messages/s in all"),
    };
    run.about = format!(
        "{} pairs {}, {load}, {} bytes{}",
        plan.couples.len(),
        if plan.both_ways {
            "both ways"
        } else {
            "one way"
        },
        plan.content_bytes,
        match plan.dialect {
            // What is usual goes without saying.
            Dialect::Rookery(Format::Json) => String::new(),
            other => format!(", {}", other.name()),
        },
    );
    run.seconds = measured.seconds;
    for (name, count) in measured.counts.named() {
        run.put(&format!("{name}_per_s"), count as f64 / measured.seconds);
    }
    let [before, after] = &measured.cpu;
    let messages = measured.counts.delivered.max(1) as f64;
    run.put_roles("cpu_us_per_message", after.micros_per(before, messages));
    let cores = after.cores(before, measured.seconds);
    let own_cores = cores.get(GENERATOR).copied().unwrap_or_default();
    run.put_roles("cores", cores);
    let mib = |(role, bytes)| (role, bytes as f64 / 1_048_576.0);
    run.put_roles("memory_mib", meter.memory().into_iter().map(mib));
    run.put_latency("ack", books.to_ack.quantiles());
    run.put_latency("deliver", books.to_delivery.quantiles());
    let threads = plan.threads.min(plan.couples.len());
    bottleneck::put(&mut run, &books.late.quantiles(), own_cores, threads);
    if plan.witness.is_some() {
        let unsettled = tally.verdict.refused + tally.verdict.unanswered;
        run.put("failed_sends", unsettled as f64);
        run.put("repeated_sends", tally.repeated as f64);
    }
    run.judge(tally.verdict);
    run.promise("pairs that gave up", tally.gave_up);
    run.notes.extend(tally.problem);
    run.put_closed(tally.closed);
    run
}

/// One thread with a runtime of its own, and its share of the pairs.
struct Worker {
    shared: Arc<Shared>,
    thread: usize,
    threads: usize,
    started: watch::Receiver<Option<Schedule>>,
}

impl Worker {
    fn run(self, connected: mpsc::Sender<anyhow::Result<()>>) -> anyhow::Result<(Tally, Books)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let local = LocalSet::new();
        let connecting = Rc::new(Semaphore::new(CONNECTING));
        let books = Rc::new(RefCell::new(Books::new()?));
        let pairs = pacer::pairs_of(self.thread, self.threads, self.shared.plan.couples.len());
        let (pacer, dues) = Pacer::new(&self.shared.plan, pairs.clone());
        let pairs: Vec<_> = pairs
            .zip(dues)
            .map(|(index, due)| {
                let task = drive(
                    Arc::clone(&self.shared),
                    (index, self.thread),
                    due,
                    Rc::clone(&books),
                    Gate {
                        connecting: Rc::clone(&connecting),
                        connected: connected.clone(),
                        started: self.started.clone(),
                    },
                );
                local.spawn_local(task)
            })
            .collect();
        drop(connected);
        let mut started = self.started.clone();
        let pacing = pacer.map(|pacer| {
            local.spawn_local(async move {
                // It is never told when a connection was refused.
                let Ok(schedule) = started.wait_for(Option::is_some).await.map(|it| *it) else {
                    return Ok(());
                };
                match schedule {
                    Some(schedule) => pacer.run(&schedule).await,
                    None => Ok(()),
                }
            })
        });
        let tally = local.block_on(&runtime, async {
            let mut tally = Tally::default();
            for pair in pairs {
                tally.add(pair.await??);
            }
            if let Some(pacing) = pacing {
                pacing.await??;
            }
            anyhow::Ok(tally)
        })?;
        Ok((tally, books.replace(Books::new()?)))
    }
}

/// What a pair passes on its way to the start.
struct Gate {
    connecting: Rc<Semaphore>,
    connected: mpsc::Sender<anyhow::Result<()>>,
    started: watch::Receiver<Option<Schedule>>,
}

async fn drive(
    shared: Arc<Shared>,
    (index, thread): (usize, usize),
    due: Option<Due>,
    books: Rc<RefCell<Books>>,
    mut gate: Gate,
) -> anyhow::Result<Tally> {
    let permit = gate.connecting.acquire().await?;
    let pair = Pair::connect(Arc::clone(&shared), index, thread, due, books).await;
    drop(permit);
    let mut pair = match pair {
        Ok(pair) => {
            gate.connected.send(Ok(())).await?;
            pair
        }
        Err(error) => {
            // Fails only when another pair has failed before.
            let _ = gate.connected.send(Err(error)).await;
            return Ok(Tally::default());
        }
    };
    let Ok(schedule) = gate
        .started
        .wait_for(Option::is_some)
        .await
        .map(|schedule| *schedule)
    else {
        return Ok(Tally::default());
    };
    let Some(schedule) = schedule else {
        return Ok(Tally::default());
    };
    drop(gate);
    tokio::time::sleep_until(schedule.start.into()).await;
    // What is missing at the end is in the oracle's books.
    let _ = tokio::time::timeout_at(schedule.give_up.into(), pair.run(&schedule)).await;
    pair.close_books(&schedule);
    let _ = tokio::time::timeout_at(schedule.give_up.into(), shared.settled.wait()).await;
    Ok(pair.finish().await)
}
