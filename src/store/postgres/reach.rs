//! Whether the primary can be reached, as far as this node knows.
//!
//! An operation whose connection breaks, or whose answer does not come, casts a doubt. Then a probe
//! asks on a connection of its own, which tells a server that is away from a pool that is in use. A
//! server that counts as away is also asked on an idle connection: it may be back for those who are
//! in and let nobody else in. While it gets no answer, operations are refused after a short wait
//! instead of each finding out for itself, so that whoever waits for them can be told to try again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use rand::Rng;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{Connection, Error};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::PING_WITHIN;
use crate::metrics;

/// Operations that come within this time of the server's going wait for its return: most restarts
/// are short.
const PATIENCE: Duration = Duration::from_secs(1);
/// A server that does not let anybody in within this time counts as away, unless it answered somebody
/// who was in: over a slow way a log-in takes many times as long as a statement.
const PROBE_WITHIN: Duration = Duration::from_secs(3);
/// Between probes of a server that is away, at first and at most; each is jittered, so that many
/// nodes do not come back as one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Doubts within this time of a good probe wait for the next one: a pool that is in use for long
/// must not cost the server a log-in for each caller.
const TRUST: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Away { since: Instant },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reach {
    state: watch::Sender<State>,
    doubted: Arc<Notify>,
    /// How often a connection broke, and in milliseconds after `started` when it did last.
    troubles: AtomicU64,
    troubled_at: AtomicU64,
    answers: AtomicU64,
    started: Instant,
    /// Set once there is one.
    pool: OnceLock<PgPool>,
}

impl Reach {
    /// Starts the probe, which ends when this is dropped.
    pub(super) fn start(options: PgConnectOptions) -> Arc<Self> {
        let reach = Arc::new(Self {
            state: watch::Sender::new(State::Up),
            doubted: Arc::default(),
            troubles: AtomicU64::new(0),
            troubled_at: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            started: Instant::now(),
            pool: OnceLock::new(),
        });
        let probe = probe(Arc::downgrade(&reach), Arc::clone(&reach.doubted), options);
        #[expect(
            clippy::disallowed_methods,
            reason = "belongs to the store, which tests open without a node, and ends with it"
        )]
        tokio::spawn(probe);
        reach
    }

    /// Asks on this pool's idle connections, too, from now on.
    pub(super) fn ask_idle_ones_of(&self, pool: PgPool) {
        self.pool.get_or_init(|| pool);
    }

    /// Lets an operation begin.
    pub(super) async fn pass(&self) -> Result<(), Error> {
        let state = *self.state.borrow();
        let State::Away { since } = state else {
            return Ok(());
        };
        let mut states = self.state.subscribe();
        let back = states.wait_for(|state| *state == State::Up);
        match timeout_at(since + PATIENCE, back).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(away()),
        }
    }

    /// Resolves when the server has been away for longer than an operation waits for it.
    pub(super) async fn gone(&self) {
        let mut states = self.state.subscribe();
        loop {
            let state = *states.borrow_and_update();
            // The other end is here.
            let changed = async { states.changed().await.ok() };
            match state {
                State::Up => drop(changed.await),
                State::Away { since } => {
                    if timeout_at(since + PATIENCE, changed).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// The server answered.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if *self.state.borrow() != State::Up {
            self.set(State::Up);
        }
    }

    /// An operation failed; if not for a reason that only concerns it, the probe has a look.
    pub(super) fn failed(&self, error: &Error) {
        match error {
            // Everybody waits for a connection: the probe tells why.
            Error::PoolTimedOut => self.doubted.notify_one(),
            Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                if code.starts_with("57P0") || code.starts_with("08") {
                    self.trouble();
                }
            }
            Error::Io(_) | Error::Tls(_) | Error::Protocol(_) => self.trouble(),
            _ => {}
        }
    }

    /// A connection broke, or an answer did not come.
    pub(super) fn trouble(&self) {
        let now = self.started.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.troubled_at.fetch_max(now, Ordering::AcqRel);
        self.troubles.fetch_add(1, Ordering::AcqRel);
        self.doubted.notify_one();
    }

    pub(super) fn troubles(&self) -> u64 {
        self.troubles.load(Ordering::Acquire)
    }

    /// How long ago the last trouble was; the node's age if there was none.
    pub(super) fn untroubled_for(&self) -> Duration {
        let troubled_at = Duration::from_millis(self.troubled_at.load(Ordering::Acquire));
        self.started.elapsed().saturating_sub(troubled_at)
    }

    fn set(&self, state: State) {
        let changed = self.state.send_if_modified(|known| {
            let differs = (*known == State::Up) != (state == State::Up);
            if differs {
                *known = state;
            }
            differs
        });
        if changed && state == State::Up {
            tracing::info!("the database is back");
        } else if changed {
            metrics::store_outages_total().increment(1);
            tracing::warn!("the database is away; operations are refused until it answers");
        }
    }
}

/// What an operation fails with that is not tried.
pub(super) fn away() -> Error {
    let kind = io::ErrorKind::NotConnected;
    Error::Io(io::Error::new(kind, "the server is away"))
}

impl Drop for Reach {
    fn drop(&mut self) {
        // The probe wakes, and finds nobody to ask for.
        self.doubted.notify_one();
    }
}

async fn probe(reach: Weak<Reach>, doubted: Arc<Notify>, options: PgConnectOptions) {
    loop {
        doubted.notified().await;
        let mut pause = PAUSE_MIN;
        let count = || reach.upgrade().map(|r| r.answers.load(Ordering::Relaxed));
        loop {
            let before = count();
            if lets_in(&options).await || count() != before {
                break;
            }
            let Some(reach) = reach.upgrade() else { return };
            let since = Instant::now();
            reach.set(State::Away { since });
            let pool = reach.pool.get().cloned();
            drop(reach);
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if answers_those_who_are_in(pool).await {
                break;
            }
        }
        let Some(reach) = reach.upgrade() else { return };
        reach.set(State::Up);
        drop(reach);
        tokio::time::sleep(TRUST).await;
    }
}

/// Whether the server lets somebody in, or says why not: then it is there.
async fn lets_in(options: &PgConnectOptions) -> bool {
    let ask = async {
        let mut connection = PgConnection::connect_with(options).await?;
        connection.ping().await?;
        connection.close().await
    };
    match timeout(PROBE_WITHIN, ask).await {
        Ok(Ok(())) => true,
        // Starting up, or shutting down.
        Ok(Err(Error::Database(error))) => !error.code().unwrap_or_default().starts_with("57P0"),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Whether an idle connection is answered, if there is one.
async fn answers_those_who_are_in(pool: Option<PgPool>) -> bool {
    let Some(mut connection) = pool.and_then(|pool| pool.try_acquire()) else {
        return false;
    };
    let answer = timeout(PING_WITHIN, connection.ping()).await;
    let is_answered = matches!(answer, Ok(Ok(())));
    if !is_answered {
        // It owes an answer; closed at once, which makes room in the pool.
        drop(connection.detach());
    }
    is_answered
}
