//! Publishes what waits in the queue, in pipelines: as many at once as waited while the last were
//! under way.
//!
//! A connection of its own, without fred, which makes, clones and moves a command and an answer for
//! each PUBLISH; see `docs/decisions/0010-publishing-without-a-client-library.md`. One task owns it:
//! it writes a pipeline in one go, counts the answers (`pipeline.rs`), and replaces the connection
//! at the first doubt. Nothing is sent twice.

mod pipeline;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

pub(super) use self::queue::{Queue, Waiting, queue};

use self::queue::{Lost, Publication};
use super::CONFIRM_TIMEOUT;
use super::sentinels::Follower;
use super::socket::{Address, Cut, Place, Purpose, Socket};
use super::wire::Unexpected;
use crate::lifecycle::Tasks;
use crate::metrics;

/// Publications in one pipeline; beyond it the first of them would wait for the last.
const PIPELINE_MAX: usize = 512;
/// Bytes of one pipeline, likewise: the buffer it is written from counts as much as what waits.
const PIPELINE_BYTES_MAX: usize = 1 << 20;
/// First and longest pause before another attempt to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Answers are short: most are four bytes long.
const PURPOSE: Purpose = Purpose {
    name: "rookery-publisher",
    room: 4 << 10,
};

/// What others know of the publisher, and may ask of it.
pub(super) struct Publisher {
    standing: Mutex<Standing>,
    /// Counts the requests for a new connection.
    renewals: watch::Sender<u64>,
    questions: mpsc::Sender<Question>,
}

/// Whether Redis is a replica.
type Question = oneshot::Sender<bool>;

enum Standing {
    /// Connected to this server.
    Up(Place),
    /// Redis fell silent, and whether it answers a new connection is not known yet.
    Doubtful,
    Down,
}

/// Makes a publisher and the task for it; nothing is connected before that runs.
pub(super) fn publisher(address: Address, waiting: Waiting) -> (Arc<Publisher>, Task) {
    let (renewals, renewed) = watch::channel(0);
    // There is one who asks, and waits for the answer.
    let (questions, asked) = mpsc::channel(1);
    let publisher = Arc::new(Publisher {
        standing: Mutex::new(Standing::Down),
        renewals,
        questions,
    });
    let task = Task {
        publisher: Arc::clone(&publisher),
        address,
        waiting,
        batch: Vec::with_capacity(PIPELINE_MAX),
        renewed,
        asked,
        pause: Duration::ZERO,
        is_told: false,
    };
    (publisher, task)
}

impl Publisher {
    pub(super) fn is_connected(&self) -> bool {
        matches!(*self.standing(), Standing::Up(_))
    }

    /// Whether it is known that nothing can be published; in doubt it is not.
    pub(super) fn is_down(&self) -> bool {
        matches!(*self.standing(), Standing::Down)
    }

    /// Has the present connection replaced, if there is one. Does not wait.
    pub(super) fn renew(&self) {
        self.renewals.send_modify(|count| *count += 1);
    }

    /// Asks the Redis that it is connected to; `None` if it does not answer.
    pub(super) async fn is_replica(&self, patience: Duration) -> Option<bool> {
        let (question, answer) = oneshot::channel();
        self.questions.try_send(question).ok()?;
        timeout(patience, answer).await.ok()?.ok()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Arc<Publisher> {
    fn server(&self) -> Option<Place> {
        match &*self.standing() {
            Standing::Up(place) => Some(place.clone()),
            Standing::Doubtful | Standing::Down => None,
        }
    }

    fn move_on(&self, _tasks: &Tasks) {
        self.renew();
    }
}

/// The one who connects and publishes.
pub(super) struct Task {
    publisher: Arc<Publisher>,
    address: Address,
    waiting: Waiting,
    batch: Vec<Publication>,
    renewed: watch::Receiver<u64>,
    asked: mpsc::Receiver<Question>,
    /// Before the next attempt to connect: none after a connection that was of use.
    pause: Duration,
    /// The present trouble is in the log.
    is_told: bool,
}

impl Task {
    /// Runs until all that publish have stopped and the queue is empty.
    pub(super) async fn run(mut self, tasks: Tasks) {
        loop {
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = tasks.stopping_late().cancelled() => return,
            };
            let Some((mut socket, place)) = connected else {
                return;
            };
            self.renewed.mark_unchanged();
            self.stands(Standing::Up(place));
            let Err(cut) = self.serve(&mut socket, &tasks).await else {
                return;
            };
            self.tell(&cut);
            self.stands(match cut {
                Cut::Silent => Standing::Doubtful,
                _ => Standing::Down,
            });
        }
    }

    /// Connects, however often it takes. What waits when a connection is lost waits for the first
    /// attempt; after that it is dropped, until there is one. None if nobody publishes any more.
    async fn connect(&mut self) -> Option<(Socket, Place)> {
        let mut is_first = true;
        loop {
            let made = self.attempt(is_first).await?;
            // Whatever comes of it, the next attempt waits, unless this one is of use.
            self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            is_first = false;
            match made {
                Ok(connected) => return Some(connected),
                Err(cut) => self.tell(&cut),
            }
            self.stands(Standing::Down);
        }
    }

    /// Attempts it once, after the pause; see [`Self::connect`].
    async fn attempt(&mut self, holds: bool) -> Option<Result<(Socket, Place), Cut>> {
        let attempt = async {
            sleep(self.pause).await;
            self.address.connect(&PURPOSE).await
        };
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                made = &mut attempt => return Some(made),
                taken = self.waiting.take(&mut self.batch, PIPELINE_MAX), if !holds => {
                    if taken == 0 {
                        return None;
                    }
                    self.waiting.settle(&self.batch, 0, Lost::Down);
                    self.batch.clear();
                }
            }
        }
    }

    /// Works on one connection, until that ends; `Ok` if there is nothing left to do.
    async fn serve(&mut self, socket: &mut Socket, tasks: &Tasks) -> Result<(), Cut> {
        loop {
            tokio::select! {
                biased;
                question = self.asked.recv() => {
                    let asked = timeout(CONFIRM_TIMEOUT, socket.is_replica()).await;
                    let is_replica = asked.map_err(|_| Cut::Silent)??;
                    if let Some(question) = question {
                        question.send(is_replica).ok();
                    }
                }
                _ = self.renewed.changed() => return Err(Cut::Renewed),
                taken = self.waiting.take(&mut self.batch, PIPELINE_MAX) => {
                    if taken == 0 {
                        return Ok(());
                    }
                    let published = self.publish(socket).await;
                    self.batch.clear();
                    published?;
                }
                cut = ended(socket) => return Err(cut),
                () = tasks.stopping_late().cancelled() => return Ok(()),
            }
        }
    }

    /// Publishes the batch. On a connection that fails nobody knows what became of the rest.
    async fn publish(&mut self, socket: &mut Socket) -> Result<(), Cut> {
        let mut rest = self.batch.as_slice();
        while !rest.is_empty() {
            let (first, later) = rest.split_at(pipeline_of(rest));
            let (began, mut confirmed) = (Instant::now(), 0);
            let published = tokio::select! {
                published = timeout(CONFIRM_TIMEOUT, pipeline::publish(socket, first, &mut confirmed)) => {
                    published.unwrap_or(Err(Cut::Silent))
                }
                _ = self.renewed.changed() => Err(Cut::Renewed),
            };
            match published {
                Ok(refusal) => {
                    metrics::bus_publish_seconds().record(began.elapsed());
                    self.waiting.settle(first, confirmed, Lost::Failed);
                    self.pause = Duration::ZERO;
                    match refusal {
                        Some(why) if !self.is_told => {
                            tracing::warn!(why, "Redis refuses what is published");
                            self.is_told = true;
                        }
                        Some(_) => {}
                        None => self.is_told = false,
                    }
                }
                Err(cut) => {
                    self.waiting.settle(rest, confirmed, Lost::Failed);
                    return Err(cut);
                }
            }
            rest = later;
        }
        Ok(())
    }

    fn stands(&self, standing: Standing) {
        *self.publisher.standing() = standing;
    }

    /// Once for each trouble: the attempts go on every second.
    fn tell(&mut self, cut: &Cut) {
        if self.is_told {
            tracing::debug!(%cut, "no connection to publish on");
        } else {
            tracing::warn!(%cut, "no connection to publish on; trying again");
            self.is_told = true;
        }
    }
}

/// Waits for the end of a connection on which nothing is under way.
async fn ended(socket: &mut Socket) -> Cut {
    match socket.fill().await {
        Ok(()) => Unexpected.into(),
        Err(cut) => cut,
    }
}

/// How many of these make one pipeline; one at least.
fn pipeline_of(publications: &[Publication]) -> usize {
    let mut size = 0;
    let fits = publications.iter().take_while(|(_, payload)| {
        let has_room = size < PIPELINE_BYTES_MAX;
        size += payload.len();
        has_room
    });
    fits.count()
}
