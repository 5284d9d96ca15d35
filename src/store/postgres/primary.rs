//! The primary: its pool of connections, with an end to every wait.
//!
//! The driver waits for an answer as long as the system keeps the connection, which is a quarter of
//! an hour when the other side vanished without a word. So every use of a connection has a limit
//! here, above those that the server keeps itself: it passes only when the server cannot say so any
//! more. Such a connection is closed, and whoever used it does not know what became of it.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgArguments, PgConnection, PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo,
};
use sqlx::query::QueryScalar;
use sqlx::{Connection, Describe, Either, Error, Execute, Executor, FromRow, Postgres, SqlStr};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use super::TRUSTED_IDLE;
use super::reach::{self, Reach};
use super::turns::Turn;
use crate::metrics;
use crate::store::Result;
use crate::store::waiting::Waiting;

/// How long one statement outside a transaction may take. Reads take milliseconds.
const STATEMENT_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may take for each half of showing that it can be used again: to answer what
/// is under way on it with a rollback behind it, and then the pool's question whether it lives.
/// Beyond that it is closed.
const RETURN_WITHIN: Duration = Duration::from_secs(2);

/// What became of a statement that commits by itself.
pub(super) enum One<T> {
    Value(T),
    /// The connection broke, or no answer came in time: it may have been committed.
    InDoubt,
}

/// The smallest pool of which one connection is kept for sends.
const KEPT_FROM: u32 = 8;
/// How long it is kept out of the pool.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

type Step = Either<PgQueryResult, PgRow>;

/// Runs single statements as an [`Executor`]; lends connections for more. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Primary {
    pub(super) pool: PgPool,
    pub(super) reach: Arc<Reach>,
    kept: Kept,
}

/// The connection on which the lane of sends commits, between two commits: the pool hands its
/// connections out in turn, and a backend that works all the time has warm caches.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Option<KeptLease>>>);

#[derive(Debug)]
struct KeptLease {
    lease: Lease,
    /// Out of the pool since then.
    since: Instant,
    idle_since: Instant,
}

impl Kept {
    fn take(&self) -> Option<KeptLease> {
        self.slot().take()
    }

    fn slot(&self) -> MutexGuard<'_, Option<KeptLease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Primary {
    pub(super) fn new(pool: PgPool, reach: Arc<Reach>) -> Self {
        Self {
            pool,
            reach,
            kept: Kept::default(),
        }
    }

    /// A connection that is nobody else's.
    pub(super) async fn lease(&self) -> std::result::Result<Lease, Error> {
        self.reach.pass().await?;
        self.give_back_kept();
        let waiting = Waiting::begin();
        let acquired = tokio::select! {
            acquired = self.pool.acquire() => acquired,
            () = self.reach.gone() => return Err(reach::away()),
        };
        match acquired {
            Ok(connection) => {
                waiting.succeeded();
                Ok(Lease {
                    connection: Some(connection),
                    reach: Arc::clone(&self.reach),
                    is_silent: false,
                    in_transaction: false,
                })
            }
            Err(error) => {
                if matches!(error, Error::PoolTimedOut) {
                    metrics::store_timeouts_total().connection.increment(1);
                }
                self.reach.failed(&error);
                Err(error)
            }
        }
    }

    /// Runs a statement that is a transaction by itself. The driver reads on until the server is
    /// ready, so what it returns is committed. Only within [`crate::store::sql::detached`].
    pub(super) async fn commit_one<T>(
        &self,
        query: QueryScalar<'_, Postgres, T, PgArguments>,
    ) -> Result<One<T>>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
        T: Send + Unpin,
    {
        let (mut lease, since) = match self.take_kept() {
            Some(kept) => (kept.lease, kept.since),
            None => (self.lease().await?, Instant::now()),
        };
        let committed = timeout(STATEMENT_WITHIN, query.fetch_one(&mut *lease)).await;
        let committed = lease.note_timed(committed);
        match committed {
            Ok(value) => {
                self.keep(lease, since);
                Ok(One::Value(value))
            }
            Err(Error::Database(error)) if !ends_the_session(error.as_ref()) => {
                lease.settle().await;
                Err(Error::Database(error).into())
            }
            Err(error) => {
                tracing::debug!(%error, "a statement is in doubt");
                metrics::store_unknown_outcomes_total().increment(1);
                Ok(One::InDoubt)
            }
        }
    }

    /// Unless it was idle for long, or others broke since: the pool asks such a one whether it lives.
    fn take_kept(&self) -> Option<KeptLease> {
        let kept = self.kept.take()?;
        let trusted = TRUSTED_IDLE.min(self.reach.untroubled_for());
        (kept.idle_since.elapsed() < trusted).then_some(kept)
    }

    /// Not of a small pool, whose connections are needed by all, and not for ever: the pool replaces
    /// those that are old.
    fn keep(&self, lease: Lease, since: Instant) {
        let is_large = self.pool.options().get_max_connections() >= KEPT_FROM;
        if is_large && since.elapsed() < KEPT_FOR {
            *self.kept.slot() = Some(KeptLease {
                lease,
                since,
                idle_since: Instant::now(),
            });
        }
    }

    /// Somebody needs a connection, and there is none but the one that waits for the next send.
    fn give_back_kept(&self) {
        let max = self.pool.options().get_max_connections();
        if self.pool.num_idle() == 0 && self.pool.size() >= max {
            drop(self.kept.take());
        }
    }

    /// A transaction. Only within [`crate::store::sql::detached`], which limits its time.
    pub(super) async fn begin(&self) -> Result<Tx> {
        match self.try_begin().await {
            // The connection had broken unseen. Now all idle ones are asked before they are used.
            Err(Error::Io(_) | Error::Database(_)) => Ok(self.try_begin().await?),
            begun => Ok(begun?),
        }
    }

    async fn try_begin(&self) -> std::result::Result<Tx, Error> {
        let mut lease = self.lease().await?;
        // From before it is sent: it may arrive even if nobody waits for the answer.
        lease.in_transaction = true;
        let begun = lease.execute("BEGIN").await;
        lease.note(begun)?;
        Ok(Tx { lease, turn: None })
    }
}

/// A connection on loan. It goes back to the pool when it shows that it can be used again.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Option<PoolConnection<Postgres>>,
    reach: Arc<Reach>,
    /// It owes an answer that did not come in time.
    is_silent: bool,
    in_transaction: bool,
}

const LENT: &str = "the connection is there until the lease is dropped";

impl Lease {
    /// Learns from how an operation ended.
    pub(super) fn note<T>(
        &self,
        result: std::result::Result<T, Error>,
    ) -> std::result::Result<T, Error> {
        match &result {
            Ok(_) => self.reach.answered(),
            Err(error) => self.reach.failed(error),
        }
        result
    }

    /// Waits until the server is ready again after an error: it tells of the error first, and lets
    /// go of the transaction's locks then.
    async fn settle(&mut self) {
        let ready = timeout(RETURN_WITHIN, self.ping()).await;
        self.is_silent |= !matches!(ready, Ok(Ok(())));
    }

    /// As [`Self::note`], of an operation with a limit.
    fn note_timed<T>(
        &mut self,
        result: std::result::Result<std::result::Result<T, Error>, Elapsed>,
    ) -> std::result::Result<T, Error> {
        match result {
            Ok(result) => self.note(result),
            Err(_) => {
                self.is_silent = true;
                metrics::store_timeouts_total().statement.increment(1);
                let error = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
                self.note(Err(Error::Io(error)))
            }
        }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect(LENT)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect(LENT)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.is_silent || Handle::try_current().is_err() {
            // Closed at once, which makes room in the pool; there is none any more without a runtime.
            drop(connection.detach());
            return;
        }
        let in_transaction = self.in_transaction;
        #[expect(
            clippy::disallowed_methods,
            reason = "ends within its limits, as what the pool would start itself would not"
        )]
        tokio::spawn(async move {
            if in_transaction && !rolls_back(&mut connection).await {
                drop(connection.detach());
                return;
            }
            // The pool would wait for the connection's answer without end, and the place would be
            // lost. Whatever is cut off here has left the pool.
            timeout(RETURN_WITHIN, connection.return_to_pool())
                .await
                .ok();
        });
    }
}

/// Whether an error ends the session. An administrator may end one while its commit waits for a
/// standby, and then it has happened here; after any other error nothing was committed.
fn ends_the_session(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("57P0"))
}

/// Ends the transaction of a connection that may owe the answer to a statement.
async fn rolls_back(connection: &mut PgConnection) -> bool {
    let rolled_back = async {
        // The error may be the answer that was owed: then the rollback was not sent. Nothing else
        // would see that the transaction goes on, the pool's own test least of all.
        connection.execute("ROLLBACK").await.is_ok() || connection.execute("ROLLBACK").await.is_ok()
    };
    timeout(RETURN_WITHIN, rolled_back).await.unwrap_or(false)
}

/// A transaction; rolled back when it is dropped before its commit.
#[derive(Debug)]
pub(super) struct Tx {
    lease: Lease,
    turn: Option<Turn>,
}

impl Tx {
    /// Keeps a turn until the transaction is over.
    pub(super) fn holding(mut self, turn: Turn) -> Self {
        self.turn = Some(turn);
        self
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        let committed = self.lease.execute("COMMIT").await;
        match &committed {
            Ok(_) => self.lease.in_transaction = false,
            Err(Error::Database(_)) => {}
            Err(_) => metrics::store_unknown_outcomes_total().increment(1),
        }
        self.lease.note(committed)?;
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<()> {
        let rolled_back = self.lease.execute("ROLLBACK").await;
        self.lease.in_transaction = rolled_back.is_err();
        self.lease.note(rolled_back)?;
        Ok(())
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.lease
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.lease
    }
}

impl<'p> Executor<'p> for &'_ Primary {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, std::result::Result<Step, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let primary = self.clone();
        let steps = async move {
            let mut lease = primary.lease().await?;
            let steps = lease.fetch_many(query).try_collect::<Vec<Step>>();
            let steps = timeout(STATEMENT_WITHIN, steps).await;
            lease.note_timed(steps)
        };
        let steps = steps.map_ok(|steps| stream::iter(steps).map(Ok));
        steps.try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, std::result::Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let primary = self.clone();
        Box::pin(async move {
            let mut lease = primary.lease().await?;
            let row = timeout(STATEMENT_WITHIN, lease.fetch_optional(query)).await;
            lease.note_timed(row)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, std::result::Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        let primary = self.clone();
        Box::pin(async move {
            let mut lease = primary.lease().await?;
            let statement = timeout(STATEMENT_WITHIN, lease.prepare_with(sql, parameters)).await;
            lease.note_timed(statement)
        })
    }

    fn describe<'e>(
        self,
        sql: SqlStr,
    ) -> BoxFuture<'e, std::result::Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let primary = self.clone();
        Box::pin(async move {
            let mut lease = primary.lease().await?;
            let described = timeout(STATEMENT_WITHIN, lease.describe(sql)).await;
            lease.note_timed(described)
        })
    }
}
