//! Groups whose members are all connected: what a delivery costs, and how long until the last
//! member has a message. The first member of each group writes; a message leaves the window when it
//! is acknowledged and everybody else has it.
//!
//! Frames are not parsed: with hundreds of thousands of deliveries a second on a machine that the
//! servers share, looking for the `seq` is all that the generator can afford. Nobody else writes, so
//! the place of a message in the log is known when it is sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_client::Socket;
use rookery_oracle::pair::Side;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::dialect::{Dialect, Writer};
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::population::{Circle, Person};
use crate::progress;
use crate::report::Run;
use crate::wire::Tag;

/// Connections that are opened at a time.
const CONNECTING: usize = 64;
/// How long messages under way may take to arrive in the end.
const DRAIN: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Plan {
    pub targets: Vec<String>,
    pub dialect: Dialect,
    pub circles: Vec<Circle>,
    pub window: usize,
    pub warmup: Duration,
    pub measure: Duration,
    pub content_bytes: usize,
}

/// What is known of one group's messages.
struct Board {
    /// Entries before the first message.
    base: i64,
    others: usize,
    /// When each message was sent, and how many have it; an ack counts as one more.
    sent: Vec<(Instant, usize)>,
    complete: usize,
    deliveries: u64,
    to_last: Latencies,
    /// Since when latencies count.
    measuring: bool,
    disorder: u64,
    /// Sockets that ended.
    closed: u64,
    /// Nothing more is sent.
    over: bool,
    room: Arc<Notify>,
}

type Shared = Arc<Mutex<Board>>;

fn lock(board: &Shared) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    fn has(&mut self, seq: i64) {
        let Ok(index) = usize::try_from(seq - self.base - 1) else {
            return;
        };
        let Some((at, count)) = self.sent.get_mut(index) else {
            self.disorder += 1;
            return;
        };
        *count += 1;
        self.deliveries += 1;
        if *count == self.others + 1 {
            self.complete += 1;
            if self.measuring {
                self.to_last.record(at.elapsed());
            }
            self.room.notify_one();
        }
    }

    fn wants_more(&self, window: usize) -> bool {
        !self.over && self.under_way() < window
    }

    fn under_way(&self) -> usize {
        self.sent.len() - self.complete
    }
}

/// Runs the plan.
///
/// # Errors
/// A group is not made, or a connection refused.
pub(crate) async fn run(plan: &Plan, meter: &Meter) -> anyhow::Result<Run> {
    let members = plan.circles.first().map_or(0, |circle| circle.people.len());
    let mut tasks = JoinSet::new();
    let mut boards = Vec::new();
    for (index, circle) in plan.circles.iter().enumerate() {
        boards.push(begin(plan, index, circle, &mut tasks).await?);
    }
    let counted = boards.clone();
    meter.gauges.set(move || {
        let (messages, deliveries) = counts(&counted);
        vec![("messages", messages), ("deliveries", deliveries)]
    });
    progress::wait(plan.warmup, "warm-up").await;
    boards.iter().for_each(|board| lock(board).measuring = true);
    let (before, cpu_before, begun) = (counts(&boards), meter.cpu(), Instant::now());
    progress::wait(plan.measure, "measuring").await;
    let (after, cpu, seconds) = (counts(&boards), meter.cpu(), begun.elapsed().as_secs_f64());
    drain(&boards).await;

    let mut to_last = Latencies::new()?;
    let (mut incomplete, mut disorder, mut closed) = (0, 0, 0);
    for board in &boards {
        let board = lock(board);
        to_last.add(&board.to_last);
        incomplete += board.under_way() as u64;
        disorder += board.disorder;
        closed += board.closed;
    }
    let deliveries = (after.1 - before.1) as f64;
    let mut run = Run::new("group", "group");
    run.about = format!(
        "{} of {members} members, {} in flight each",
        plan.circles.len(),
        plan.window
    );
    run.seconds = seconds;
    run.put("messages_per_s", (after.0 - before.0) as f64 / seconds);
    run.put("deliveries_per_s", deliveries / seconds);
    let each = cpu.micros_per(&cpu_before, deliveries.max(1.0));
    run.put_roles("cpu_us_per_delivery", each);
    run.put_roles("cores", cpu.cores(&cpu_before, seconds));
    run.put_latency("last_delivery", to_last.quantiles());
    run.promise("messages lost to somebody", incomplete);
    run.promise("messages doubled or out of order", disorder);
    run.promise("members' sockets closed", closed);
    Ok(run)
}

/// Connects the members of one group and lets the first of them write.
async fn begin(
    plan: &Plan,
    index: usize,
    circle: &Circle,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Shared> {
    let board = Arc::new(Mutex::new(Board {
        base: circle.base,
        others: circle.people.len() - 1,
        sent: Vec::new(),
        complete: 0,
        deliveries: 0,
        to_last: Latencies::new()?,
        measuring: false,
        disorder: 0,
        closed: 0,
        over: false,
        room: Arc::new(Notify::new()),
    }));
    let mut sockets = connect(plan, circle).await?.into_iter();
    let writer = sockets.next().context("a group without members")?;
    for socket in sockets {
        tasks.spawn(read(socket, plan.dialect, Arc::clone(&board)));
    }
    let tag = Tag {
        run: u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?,
        pair: u32::try_from(index)?,
        from: Side::A,
        counter: 0,
    };
    let frames = plan
        .dialect
        .writer(circle.conversation, plan.content_bytes, tag)
        .for_group();
    tasks.spawn(write(
        (writer, frames),
        plan.dialect,
        Arc::clone(&board),
        plan.window,
    ));
    Ok(board)
}

/// Messages that everybody has, and deliveries.
fn counts(boards: &[Shared]) -> (u64, u64) {
    let add = |sum: (u64, u64), board: &Shared| {
        let board = lock(board);
        (sum.0 + board.complete as u64, sum.1 + board.deliveries)
    };
    boards.iter().fold((0, 0), add)
}

/// Nothing more is sent; waits for what is under way.
async fn drain(boards: &[Shared]) {
    for board in boards {
        let mut board = lock(board);
        (board.measuring, board.over) = (false, true);
    }
    let begun = Instant::now();
    while boards.iter().any(|board| lock(board).under_way() > 0) && begun.elapsed() < DRAIN {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Connects the members, the writer first.
async fn connect(plan: &Plan, circle: &Circle) -> anyhow::Result<Vec<Socket>> {
    let open = async |(index, person): (usize, &Person)| -> anyhow::Result<Socket> {
        let url = &plan.targets[index % plan.targets.len()];
        let mut socket = plan.dialect.open(url, index, person, false).await?;
        let joined = plan.dialect.join(&mut socket, circle.conversation, person);
        joined.await?;
        Ok(socket)
    };
    let mut people = circle.people.iter().enumerate();
    let writer = people.next().context("a group without members")?;
    let mut sockets = vec![open(writer).await?];
    let mut others = stream::iter(people).map(open).buffered(CONNECTING);
    while let Some(socket) = others.try_next().await? {
        sockets.push(socket);
    }
    drop(others);
    Ok(sockets)
}

/// Reads to the end of the connection; every message has to be the next one.
async fn read(mut socket: Socket, dialect: Dialect, board: Shared) {
    let mut last = None;
    while let Ok(frame) = socket.recv_raw().await {
        if let Some(answer) = dialect.answer(&frame) {
            // Its failure shows when reading.
            let _ = socket.send_raw(answer).await;
        }
        let data = frame.into_data();
        let Some(seq) = dialect.delivered(&data) else {
            continue;
        };
        let mut board = lock(&board);
        if last.is_some_and(|last: i64| seq != last + 1) {
            board.disorder += 1;
        }
        last = Some(seq);
        board.has(seq);
    }
    lock(&board).closed += 1;
}

async fn write(
    (mut socket, frames): (Socket, Writer),
    dialect: Dialect,
    board: Shared,
    window: usize,
) {
    let room = Arc::clone(&lock(&board).room);
    for counter in 0.. {
        while !lock(&board).wants_more(window) {
            tokio::select! {
                () = room.notified() => {}
                frame = socket.recv_raw() => {
                    let Ok(frame) = frame else { return };
                    if let Some(answer) = dialect.answer(&frame) {
                        let _ = socket.send_raw(answer).await;
                    }
                    if let Some(seq) = dialect.acked(&frame.into_data()) {
                        lock(&board).has(seq);
                    }
                }
            }
        }
        lock(&board).sent.push((Instant::now(), 0));
        if socket.send_raw(frames.send(counter)).await.is_err() {
            return;
        }
    }
}
