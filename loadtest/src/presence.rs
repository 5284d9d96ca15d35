//! Changes of presence, and of typing: from when one was due until everybody who watches, on another
//! node, has seen it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, bail};
use rookery_client::{ClientCommand, ServerEvent, Socket};
use rookery_protocol::command::{PresenceSet, PresenceWatch, Typing};
use rookery_protocol::user::{ChosenStatus, PresenceStatus};
use rookery_protocol::{ConversationId, Format, UserId};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::meter::Meter;
use crate::options::PresenceOptions;
use crate::pace::{Outcome, Pace, WARM_UP};
use crate::population::{Circle, Person};
use crate::progress::{self, Line};
use crate::report::Run;
use crate::source;

/// A change that no watcher has seen by then is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sightings that may wait: one change is under way for each person, and its repeats.
const SIGHTINGS: usize = 64;

/// Runs it.
///
/// # Errors
/// No connection.
pub(crate) async fn run(
    targets: &[String],
    circles: &[Circle],
    options: &PresenceOptions,
    meter: &Meter,
) -> anyhow::Result<Run> {
    let stage = Stage::connect(Signal::Presence, targets, circles).await?;
    let measuring = Duration::from_secs(options.seconds);
    let warming_up = Pace::new(options.rate, WARM_UP);
    show(meter, &[&warming_up]);
    let (warm_up, ()) = tokio::join!(
        stage.run(&warming_up),
        progress::gauges(WARM_UP, "warm-up", &meter.gauges),
    );
    let warm_up = warm_up?;
    let pace = Pace::new(options.rate, measuring);
    show(meter, &[&warming_up, &pace]);
    meter.gauges.measures();
    let (cpu, begun) = (meter.cpu(), std::time::Instant::now());
    let (seen, ()) = tokio::join!(
        stage.run(&pace),
        progress::gauges(measuring, "measuring", &meter.gauges),
    );
    let seen = seen?.after(warm_up);
    let seconds = begun.elapsed().as_secs_f64();
    let used = meter.cpu();
    let mut run = Run::new("presence", "presence");
    run.about = format!(
        "{} changes a second of {} people with {} watchers each on {}",
        options.rate,
        options.groups,
        options.watchers,
        place(targets.len())
    );
    run.seconds = seconds;
    seen.put(&mut run, "seen");
    let sightings = pace.answered.load(Relaxed) as f64 * f64::from(options.watchers);
    run.put_roles("cpu_us_per_sighting", used.micros_per(&cpu, sightings));
    run.put_roles("cores", used.cores(&cpu, seconds));
    Ok(run)
}

/// Counts the changes of all these.
fn show(meter: &Meter, paces: &[&Pace]) {
    let answered: Vec<_> = paces
        .iter()
        .map(|pace| Arc::clone(&pace.answered))
        .collect();
    meter.gauges.set(move || {
        let changes = answered.iter().map(|count| count.load(Relaxed)).sum();
        vec![("changes", changes)]
    });
}

/// Where those who watch are.
fn place(targets: usize) -> &'static str {
    match targets {
        1 => "the same target",
        _ => "another target",
    }
}

/// What changes and is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Away, and back.
    Presence,
    /// Typing, and no more.
    Typing,
}

/// Somebody of whom something changes, and what their watchers see.
struct Subject {
    signal: Signal,
    conversation: ConversationId,
    socket: Socket,
    /// Away or typing: true.
    sightings: mpsc::Receiver<bool>,
    watchers: usize,
    state: bool,
}

/// All that are connected. Dropping it ends the watchers.
pub(crate) struct Stage {
    subjects: Vec<Mutex<Subject>>,
    _watchers: JoinSet<()>,
}

impl Stage {
    /// Connects everybody: the first of each circle to one target, those who watch them to the next;
    /// with one target all are on it.
    ///
    /// # Errors
    /// No connection, or a refused subscription.
    pub(crate) async fn connect(
        signal: Signal,
        targets: &[String],
        circles: &[Circle],
    ) -> anyhow::Result<Self> {
        let mut line = Line::new("watching", circles.len() as u64);
        let (mut subjects, mut tasks, mut sockets) = (Vec::new(), JoinSet::new(), 0);
        for (index, circle) in circles.iter().enumerate() {
            let (person, watchers) = circle.people.split_first().context("an empty circle")?;
            let socket = open(&targets[index % targets.len()], person, sockets).await?;
            let (seen, sightings) = mpsc::channel(SIGHTINGS.max(watchers.len() * 2));
            for watcher in watchers {
                sockets += 1;
                let target = &targets[(index + 1) % targets.len()];
                let mut socket = open(target, watcher, sockets).await?;
                if signal == Signal::Presence {
                    subscribe(&mut socket, person).await?;
                }
                tasks.spawn(watch(signal, socket, person.user_id, seen.clone()));
            }
            sockets += 1;
            subjects.push(Mutex::new(Subject {
                signal,
                conversation: circle.conversation,
                socket,
                sightings,
                watchers: watchers.len(),
                state: false,
            }));
            line.show(index as u64 + 1);
        }
        line.end();
        Ok(Self {
            subjects,
            _watchers: tasks,
        })
    }

    pub(crate) async fn run(&self, pace: &Pace) -> anyhow::Result<Outcome> {
        let change = async |number: usize| -> anyhow::Result<()> {
            let mut subject = self.subjects[number % self.subjects.len()].lock().await;
            tokio::time::timeout(PATIENCE, subject.change())
                .await
                .context("somebody did not see a change")?
        };
        pace.run(change).await
    }
}

impl Subject {
    /// There or back, until all watchers have seen it.
    async fn change(&mut self) -> anyhow::Result<()> {
        self.state = !self.state;
        match self.signal {
            Signal::Presence => self.set_presence().await?,
            Signal::Typing => {
                let typing = Typing {
                    reference: None,
                    conversation_id: self.conversation,
                    active: self.state,
                };
                self.socket.send(&ClientCommand::Typing(typing)).await?;
            }
        }
        let mut missing = self.watchers;
        while missing > 0 {
            // Read as well: pings want answers.
            let seen = tokio::select! {
                seen = self.sightings.recv() => seen.context("a watcher was closed")?,
                event = self.socket.recv() => match event? {
                    ServerEvent::Error(error) => bail!("{}", error.message),
                    _ => continue,
                }
            };
            missing -= usize::from(seen == self.state);
        }
        Ok(())
    }

    async fn set_presence(&mut self) -> anyhow::Result<()> {
        let set = PresenceSet {
            reference: None,
            status: match self.state {
                true => ChosenStatus::Away,
                false => ChosenStatus::Online,
            },
        };
        self.socket.send(&ClientCommand::PresenceSet(set)).await?;
        loop {
            match self.socket.recv().await? {
                ServerEvent::Ok(_) => return Ok(()),
                ServerEvent::Error(error) => bail!("{}", error.message),
                _ => {}
            }
        }
    }
}

async fn open(target: &str, person: &Person, index: usize) -> anyhow::Result<Socket> {
    let how = source::connect(target, index, &person.token, Format::Json);
    source::open(target, &how).await
}

async fn subscribe(socket: &mut Socket, person: &Person) -> anyhow::Result<()> {
    let watch = PresenceWatch {
        reference: None,
        user_ids: vec![person.user_id],
    };
    socket
        .send(&ClientCommand::PresenceSubscribe(watch))
        .await?;
    loop {
        match socket.recv().await? {
            ServerEvent::PresenceState(state) if state.users.is_empty() => {
                bail!("a watcher may not see the one who is watched")
            }
            ServerEvent::PresenceState(_) => return Ok(()),
            ServerEvent::Error(error) => bail!("{}", error.message),
            _ => {}
        }
    }
}

/// Passes on what is seen of them, to the end of the connection.
async fn watch(signal: Signal, mut socket: Socket, of: UserId, seen: mpsc::Sender<bool>) {
    while let Ok(event) = socket.recv().await {
        let state = match (signal, event) {
            (Signal::Presence, ServerEvent::Presence(presence)) if presence.user_id == of => {
                presence.status == PresenceStatus::Away
            }
            (Signal::Typing, ServerEvent::Typing(typing)) if typing.user_id == of => typing.active,
            _ => continue,
        };
        if seen.send(state).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_one_target_nobody_is_elsewhere() {
        assert_eq!(place(1), "the same target");
        assert_eq!(place(2), "another target");
    }
}
