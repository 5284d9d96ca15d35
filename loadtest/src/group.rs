//! Groups whose members are all connected: what a delivery costs, and how long until the last
//! member has a message. The first member of each group writes; a message leaves the window when it
//! is acknowledged and everybody else has it.
//!
//! Frames are not parsed, but those of one member in each group: with hundreds of thousands of
//! deliveries a second on a machine that the servers share, looking for the `seq` is all that the
//! generator can afford. Nobody else writes, so the place of a message in the log is known when it is
//! sent.

mod board;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use rookery_client::Socket;
use rookery_client::socket::RawMessage;
use rookery_oracle::pair::Side;
use tokio::task::JoinSet;

use crate::dialect::{Dialect, Writer};
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::population::{Circle, Person};
use crate::progress;
use crate::report::Run;
use crate::wire::{self, Light, Payload, Tag};
use board::{Board, Shared, lock};

/// Connections that are opened at a time.
const CONNECTING: usize = 64;
/// After a refusal: a server that sheds load is not to be asked again at once.
const REFUSED: Duration = Duration::from_millis(100);
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
    progress::gauges(plan.warmup, "warm-up", &meter.gauges).await;
    meter.gauges.measures();
    boards.iter().for_each(|board| lock(board).measuring = true);
    let (before, cpu_before, begun) = (counts(&boards), meter.cpu(), Instant::now());
    progress::gauges(plan.measure, "measuring", &meter.gauges).await;
    let (after, cpu, seconds) = (counts(&boards), meter.cpu(), begun.elapsed().as_secs_f64());
    drain(&boards).await;

    let mut to_last = Latencies::new()?;
    let mut found = board::Found::default();
    for board in &boards {
        let mut board = lock(board);
        board.close();
        to_last.add(&board.to_last);
        found.add(&board.found);
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
    found.put(&mut run);
    Ok(run)
}

/// Connects the members of one group and lets the first of them write.
async fn begin(
    plan: &Plan,
    index: usize,
    circle: &Circle,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Shared> {
    let board = Board::new(circle.base, circle.people.len() - 1)?;
    let board = Arc::new(Mutex::new(board));
    let mut sockets = connect(plan, circle).await?.into_iter();
    let writer = sockets.next().context("a group without members")?;
    let tag = Tag {
        run: u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?,
        pair: u32::try_from(index)?,
        from: Side::A,
        counter: 0,
    };
    // One of them reads all that it gets. Peers, who are not judged, may name things otherwise.
    let judged = matches!(plan.dialect, Dialect::Rookery(_));
    let mut reading = judged.then(|| Reading {
        conversation: circle.conversation.to_string(),
        content_bytes: plan.content_bytes,
        next: tag,
    });
    for socket in sockets {
        let board = Arc::clone(&board);
        tasks.spawn(read(socket, plan.dialect, board, reading.take()));
    }
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

/// What a member who reads all of it expects.
#[derive(Debug)]
struct Reading {
    conversation: String,
    content_bytes: usize,
    /// No message before this one comes any more.
    next: Tag,
}

impl Reading {
    /// Whether this is what the writer wrote, after all that came before.
    fn is_as_written(&mut self, light: Option<Light<'_>>) -> bool {
        let Some(Payload::Message(message)) = light.map(|light| light.message) else {
            return false;
        };
        let Some(tag) = Tag::of_message_id(message.message_id) else {
            return false;
        };
        let counter = tag.counter;
        let known = Tag {
            counter,
            ..self.next
        };
        let is_as_written = tag == known
            && counter >= self.next.counter
            && message.conversation_id == self.conversation
            && message.content == wire::content(tag, self.content_bytes);
        self.next.counter = counter + 1;
        is_as_written
    }
}

/// Reads to the end of the connection; every message has to be the next one.
async fn read(mut socket: Socket, dialect: Dialect, board: Shared, mut reading: Option<Reading>) {
    let mut last = None;
    while let Ok(frame) = socket.recv_raw().await {
        if let Some(answer) = dialect.answer(&frame) {
            // Its failure shows when reading.
            let _ = socket.send_raw(answer).await;
        }
        let data = frame.clone().into_data();
        let Some(seq) = dialect.delivered(&data) else {
            continue;
        };
        let reading = reading.as_mut();
        let as_written = reading.is_none_or(|it| it.is_as_written(dialect.read(&frame)));
        let mut board = lock(&board);
        board.found.foreign += u64::from(!as_written);
        if last.is_some_and(|last: i64| seq != last + 1) {
            board.found.disorder += 1;
        }
        last = Some(seq);
        board.delivered(seq);
    }
    lock(&board).found.closed += 1;
}

/// Writes until its connection ends.
async fn write(
    (mut socket, frames): (Socket, Writer),
    dialect: Dialect,
    board: Shared,
    window: usize,
) {
    let room = Arc::clone(&lock(&board).room);
    'writing: for counter in 0.. {
        while !lock(&board).wants_more(window) {
            tokio::select! {
                () = room.notified() => {}
                frame = socket.recv_raw() => {
                    let Ok(frame) = frame else { break 'writing };
                    if let Some(answer) = dialect.answer(&frame) {
                        let _ = socket.send_raw(answer).await;
                    }
                    on_answer(&frame, dialect, &board).await;
                }
            }
        }
        lock(&board).sent(counter);
        if socket.send_raw(frames.send(counter)).await.is_err() {
            break;
        }
    }
    lock(&board).found.closed += 1;
}

/// An acknowledgement, or a refusal.
async fn on_answer(frame: &RawMessage, dialect: Dialect, board: &Shared) {
    if let Some(seq) = dialect.acked(&frame.clone().into_data()) {
        lock(board).acked(seq);
        return;
    }
    let Some(light) = dialect.read(frame).filter(|light| light.kind == "error") else {
        return;
    };
    let sentence = match &light.message {
        Payload::Sentence(sentence) => sentence.as_str(),
        _ => "",
    };
    let problem = format!("{}: {sentence}", light.code.unwrap_or("error"));
    let tag = light.message_id.and_then(Tag::of_message_id);
    lock(board).refused(tag.map(|tag| tag.counter), problem);
    tokio::time::sleep(REFUSED).await;
}

#[cfg(test)]
mod tests {
    use rookery_protocol::ConversationId;
    use uuid::Uuid;

    use super::*;
    use crate::wire::LightMessage;

    #[test]
    fn what_is_not_as_it_was_written_is_noticed() {
        let tag = Tag {
            run: 1_790_000_000_000,
            pair: 7,
            from: Side::A,
            counter: 3,
        };
        let id = |tag: Tag| tag.message_id().to_string();
        let group = ConversationId::from_uuid(Uuid::from_u128(1)).to_string();
        let content = wire::content(tag, 100);
        let other = Tag { counter: 2, ..tag };
        let elsewhere = Tag { pair: 8, ..tag };
        for (message_id, conversation, text, wanted) in [
            (id(tag), &group[..], content.clone(), true),
            (id(tag), &group[..], content.clone() + ".", false),
            (id(tag), "another", content.clone(), false),
            (id(other), &group[..], wire::content(other, 100), false),
            (
                id(elsewhere),
                &group[..],
                wire::content(elsewhere, 100),
                false,
            ),
            ("no id".to_owned(), &group[..], content.clone(), false),
        ] {
            let mut reading = Reading {
                conversation: group.clone(),
                content_bytes: 100,
                next: tag,
            };
            let light = Light {
                message: Payload::Message(LightMessage {
                    seq: 1,
                    conversation_id: conversation,
                    message_id: &message_id,
                    content: text.clone().into(),
                }),
                ..Light::of("message.new")
            };
            assert_eq!(
                reading.is_as_written(Some(light)),
                wanted,
                "{message_id} {text}"
            );
        }
    }
}
