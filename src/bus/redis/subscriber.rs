//! Hears what is published on the channels that this node wants.
//!
//! A connection of its own, without fred, see `docs/decisions/0020-subscribing-without-a-client-library.md`.
//! One task owns it and all it knows: it hands on what arrives and does nothing else for long, since
//! Redis gives up on a subscriber that is too far behind. A connection is used from its birth to the
//! first doubt. It is in step once Redis has confirmed on it every channel that was wanted when it was
//! made (`changes.rs`).

mod changes;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, sleep_until, timeout};

use self::changes::{Changes, Done, Verb, Waiter};
use super::link::Link;
use super::sentinels::Follower;
use super::socket::{Address, Cut, Place, Purpose, Socket};
use super::wire::{Answer, Unexpected};
use super::{CONFIRM_TIMEOUT, connection};
use crate::bus::{BreakReason, BusDown, Channel, Ingress};
use crate::failpoint::{self, Failpoint};
use crate::lifecycle::Tasks;
use crate::metrics;
use crate::sparse;

/// One read for a hundred messages. The allocator keeps pieces of this size at hand.
const PURPOSE: Purpose = Purpose {
    name: "rookery-subscriber",
    room: 32 << 10,
};
/// Changes that may wait to be taken up. Those who want them are few, and each waits for its answer.
const CHANGES: usize = 16;
/// How long a change may take: others may be in front of it. Longer than one chunk may take, so that
/// who waits for a connection that fails is told by its end.
const PATIENCE: Duration = CONFIRM_TIMEOUT.saturating_mul(2);
/// First and longest pause before another attempt to connect. The longest is part of how long a node
/// is without news after Redis came back, which is to be 2 s at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A connection that was in step for so long was of use: the next attempt is made at once.
const USEFUL: Duration = Duration::from_secs(1);
/// How often at the most a trouble that changes its looks is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What others know of the subscriber, and may ask of it.
pub(super) struct Subscriber {
    /// The server that it is connected to.
    place: Mutex<Option<Place>>,
    /// Counts the requests for a new connection.
    renewals: watch::Sender<u64>,
    changes: mpsc::Sender<Change>,
    wanted: Arc<AtomicUsize>,
}

/// These channels are wanted from now on, or no longer.
struct Change {
    verb: Verb,
    channels: Vec<Channel>,
    done: Done,
}

/// A subscriber, and what its task will be told by it; nothing is connected yet.
pub(super) fn subscriber() -> (Arc<Subscriber>, Orders) {
    let (renewals, renewed) = watch::channel(0);
    let (changes, asked) = mpsc::channel(CHANGES);
    let subscriber = Subscriber {
        place: Mutex::new(None),
        renewals,
        changes,
        wanted: Arc::default(),
    };
    (Arc::new(subscriber), Orders { renewed, asked })
}

impl Subscriber {
    /// Waits until Redis has confirmed these, for some seconds at most. They stay wanted even if this
    /// fails.
    pub(super) async fn subscribe(&self, channels: Vec<Channel>) -> Result<(), BusDown> {
        self.change(Verb::Subscribe, channels).await
    }

    /// Does not wait for Redis.
    pub(super) async fn unsubscribe(&self, channels: Vec<Channel>) {
        // Fails only when the node stops.
        self.change(Verb::Unsubscribe, channels).await.ok();
    }

    async fn change(&self, verb: Verb, channels: Vec<Channel>) -> Result<(), BusDown> {
        if channels.is_empty() {
            return Ok(());
        }
        let (done, answered) = oneshot::channel();
        let change = Change {
            verb,
            channels,
            done,
        };
        let confirmed = async {
            self.changes.send(change).await.map_err(|_| BusDown)?;
            answered.await.unwrap_or(Err(BusDown))
        };
        let confirmed = timeout(PATIENCE, confirmed).await;
        confirmed.unwrap_or(Err(BusDown))
    }

    /// Has the present connection replaced, if there is one. Does not wait.
    pub(super) fn renew(&self) {
        self.renewals.send_modify(|count| *count += 1);
    }

    /// How many channels are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Arc<Subscriber> {
    fn server(&self) -> Option<Place> {
        self.place().clone()
    }

    fn move_on(&self, _tasks: &Tasks) {
        self.renew();
    }
}

/// What a subscriber is told to do.
pub(super) struct Orders {
    renewed: watch::Receiver<u64>,
    asked: mpsc::Receiver<Change>,
}

/// The one who connects and listens.
pub(super) struct Task {
    link: Arc<Link>,
    address: Address,
    orders: Orders,
    wanted: Wanted,
    /// The run of the Redis that it was in step with last.
    run_id: Option<String>,
    /// The other side closed a connection that was in step.
    was_closed: bool,
    /// Before the next attempt to connect: none after a connection that was of use.
    pause: Duration,
    /// What of the present trouble is in the log, and since when.
    told: Option<(String, Instant)>,
}

impl Task {
    /// Wants this node's own canary, to begin with.
    pub(super) fn new(link: Arc<Link>, address: Address, orders: Orders) -> Self {
        let mut wanted = Wanted {
            channels: HashMap::new(),
            count: Arc::clone(&link.subscriber.wanted),
        };
        wanted.change(Verb::Subscribe, &[link.canary.channel().clone()]);
        Self {
            link,
            address,
            orders,
            wanted,
            run_id: None,
            was_closed: false,
            pause: Duration::ZERO,
            told: None,
        }
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self, tasks: Tasks) {
        tokio::select! {
            () = self.live() => {}
            () = tasks.stopping().cancelled() => {}
        }
    }

    async fn live(&mut self) {
        loop {
            match self.connect().await {
                Ok(connection) => self.use_up(connection).await,
                Err(cut) => {
                    if matches!(cut, Cut::Replica) {
                        self.link.answered();
                    }
                    self.tell(&cut);
                }
            }
        }
    }

    /// Attempts it once, after the pause; what is wanted may change meanwhile.
    async fn connect(&mut self) -> Result<Connection, Cut> {
        let pause = self.pause;
        // Whatever comes of it, the next attempt waits, unless this one is of use.
        self.pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let attempt = async {
            sleep(pause).await;
            let (mut socket, place) = self.address.connect(&PURPOSE).await?;
            let asked = timeout(connection::IDENTITY_TIMEOUT, socket.run_id()).await;
            let run_id = asked.map_err(|_| Cut::Silent)??;
            Ok::<_, Cut>((socket, place, run_id))
        };
        tokio::pin!(attempt);
        let (socket, place, run_id) = loop {
            tokio::select! {
                made = &mut attempt => break made?,
                Some(change) = self.orders.asked.recv() => {
                    self.wanted.change(change.verb, &change.channels);
                    change.done.send(change.verb.while_down()).ok();
                }
            }
        };
        self.orders.renewed.mark_unchanged();
        *self.link.subscriber.place() = Some(place);
        self.link.answered();
        let mut changes = Changes::default();
        changes.push(Verb::Subscribe, &self.wanted.all(), Waiter::Connection);
        Ok(Connection {
            socket,
            run_id,
            changes,
            made: Instant::now(),
            in_step_since: None,
        })
    }

    /// Works on one connection, until that ends.
    async fn use_up(&mut self, mut connection: Connection) {
        let Err(cut) = self.serve(&mut connection).await;
        *self.link.subscriber.place() = None;
        self.link.lost();
        if let Some(since) = connection.in_step_since {
            self.was_closed |= matches!(cut, Cut::Closed | Cut::Io(_));
            if since.elapsed() >= USEFUL {
                self.pause = Duration::ZERO;
            }
        } else {
            metrics::bus_resubscriptions_total().failed.increment(1);
        }
        self.tell(&cut);
    }

    async fn serve(&mut self, connection: &mut Connection) -> Result<Infallible, Cut> {
        loop {
            connection.ask().await?;
            let deadline = connection.changes.asked_at().map(|at| at + CONFIRM_TIMEOUT);
            tokio::select! {
                biased;
                _ = self.orders.renewed.changed() => return Err(Cut::Renewed),
                Some(change) = self.orders.asked.recv() => {
                    self.wanted.change(change.verb, &change.channels);
                    connection.change(change);
                }
                filled = connection.socket.fill() => {
                    filled?;
                    self.take(connection).await?;
                }
                () = sleep_until(deadline.unwrap_or(connection.made).into()), if deadline.is_some() => {
                    return Err(Cut::Unconfirmed);
                }
            }
        }
    }

    /// Takes what has arrived.
    async fn take(&mut self, connection: &mut Connection) -> Result<(), Cut> {
        while let Some(answer) = connection.socket.arrived()? {
            match answer {
                Answer::Message { channel, payload } => {
                    failpoint::pass(Failpoint::BusReceived).await;
                    self.link.take(&channel, payload);
                    // A read brings many; others want their turn.
                    consume_budget().await;
                }
                Answer::Changed => {
                    if connection.changes.answered()? {
                        self.found(connection);
                    }
                }
                Answer::Refused(why) => return Err(Cut::refused(&why)),
                Answer::Word | Answer::Number | Answer::Text(_) => return Err(Unexpected.into()),
            }
        }
        Ok(())
    }

    /// The connection is in step: reports that there was a break.
    fn found(&mut self, connection: &mut Connection) {
        let took = connection.made.elapsed();
        connection.in_step_since = Some(Instant::now());
        self.told = None;
        self.link.canary.rearm();
        self.link.neighbours.rearm(Instant::now());
        self.link.found();
        metrics::bus_resubscriptions_total().confirmed.increment(1);
        metrics::bus_resubscribe_seconds().record(took.as_secs_f64());
        tracing::info!(
            channels = self.wanted.channels.len(),
            ?took,
            "the bus is up"
        );
        // If it is the same run of Redis, that was there all the time.
        let is_same = connection.run_id.is_some() && connection.run_id == self.run_id;
        self.run_id = connection.run_id.take();
        let reason = if std::mem::take(&mut self.was_closed) && is_same {
            BreakReason::CutOff
        } else {
            BreakReason::Reconnected
        };
        (self.link.sink)(Ingress::Break(reason));
    }

    /// What is new of a trouble: the attempts go on twice a second.
    fn tell(&mut self, cut: &Cut) {
        let why = cut.to_string();
        let is_told = |(told, at): &(String, Instant)| *told == why || at.elapsed() < TELL_EVERY;
        if self.told.as_ref().is_some_and(is_told) {
            tracing::debug!(why, "no connection to hear news on");
        } else {
            tracing::warn!(why, "no connection to hear news on; trying again");
            self.told = Some((why, Instant::now()));
        }
    }
}

/// One connection, from its birth to the first doubt.
struct Connection {
    socket: Socket,
    /// Of the Redis at the other end; none if it does not tell.
    run_id: Option<String>,
    changes: Changes,
    made: Instant,
    in_step_since: Option<Instant>,
}

impl Connection {
    /// Asks for the next changes, if the last were confirmed.
    async fn ask(&mut self) -> Result<(), Cut> {
        let asked = timeout(CONFIRM_TIMEOUT, self.changes.ask(&mut self.socket)).await;
        asked.map_err(|_| Cut::Silent)?
    }

    /// Adds a change. Only what is wanted is waited for.
    fn change(&mut self, change: Change) {
        let waiter = match change.verb {
            Verb::Subscribe => Waiter::Caller(change.done),
            Verb::Unsubscribe => {
                change.done.send(Ok(())).ok();
                Waiter::Nobody
            }
        };
        self.changes.push(change.verb, &change.channels, waiter);
    }
}

/// The channels that this node wants to hear.
struct Wanted {
    /// With nothing to each, since maps are what `sparse` shrinks.
    channels: HashMap<Channel, ()>,
    /// How many they are, for others to read.
    count: Arc<AtomicUsize>,
}

impl Wanted {
    fn change(&mut self, verb: Verb, channels: &[Channel]) {
        match verb {
            Verb::Subscribe => {
                let wanted = channels.iter().map(|channel| (channel.clone(), ()));
                self.channels.extend(wanted);
            }
            Verb::Unsubscribe => {
                for channel in channels {
                    self.channels.remove(channel);
                }
                sparse::shrink(&mut self.channels);
            }
        }
        self.count.store(self.channels.len(), Ordering::Relaxed);
    }

    fn all(&self) -> Vec<Channel> {
        self.channels.keys().cloned().collect()
    }
}
