//! The primary: its pool of connections, with an end to every wait.
//!
//! The driver waits for an answer as long as the system keeps the connection, which is a quarter of
//! an hour when the other side vanished without a word. So every use of a connection has a limit
//! here, above those that the server keeps itself: it passes only when the server cannot say so any
//! more. Such a connection is closed, and whoever used it does not know what became of it.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgArguments, PgConnection, PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo,
};
use sqlx::query::QueryAs;
use sqlx::{Describe, Either, Error, Execute, Executor, FromRow, Postgres, SqlStr};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::reach::{self, Reach};
use super::turns::Turn;
use crate::metrics;
use crate::store::{Result, StoreError};

/// How long one statement outside a transaction may take. Reads take milliseconds.
const STATEMENT_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may take for each half of showing that it can be used again: to answer what
/// is under way on it with a rollback behind it, and then the pool's question whether it lives.
/// Beyond that it is closed.
const RETURN_WITHIN: Duration = Duration::from_secs(2);

/// What became of a statement that commits by itself.
pub(super) enum One<T> {
    Row(Option<T>),
    /// The connection broke, or no answer came in time: it may have been committed.
    InDoubt,
}

type Step = Either<PgQueryResult, PgRow>;

/// Runs single statements as an [`Executor`]; lends connections for more. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Primary {
    pub(super) pool: PgPool,
    pub(super) reach: Arc<Reach>,
}

impl Primary {
    /// A connection that is nobody else's.
    pub(super) async fn lease(&self) -> std::result::Result<Lease, Error> {
        self.reach.pass().await?;
        let acquired = tokio::select! {
            acquired = self.pool.acquire() => acquired,
            () = self.reach.gone() => return Err(reach::away()),
        };
        match acquired {
            Ok(connection) => Ok(Lease {
                connection: Some(connection),
                reach: Arc::clone(&self.reach),
                is_silent: false,
                in_transaction: false,
            }),
            Err(error) => {
                if matches!(error, Error::PoolTimedOut) {
                    metrics::store_timeouts_total().connection.increment(1);
                }
                self.reach.failed(&error);
                Err(error)
            }
        }
    }

    /// Runs a statement that is a transaction by itself. Only within
    /// [`crate::store::sql::detached`].
    pub(super) async fn commit_one<T>(
        &self,
        query: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> Result<One<T>>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut lease = self.lease().await?;
        let committed = timeout(STATEMENT_WITHIN, query.fetch_optional(&mut *lease)).await;
        match lease.note_timed(committed).map_err(StoreError::from) {
            Ok(row) => Ok(One::Row(row)),
            Err(StoreError::Unavailable(why)) => {
                tracing::debug!(why, "a statement is in doubt");
                metrics::store_unknown_outcomes_total().increment(1);
                Ok(One::InDoubt)
            }
            Err(error) => Err(error),
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
        if self.is_silent {
            // Closed at once, which makes room in the pool.
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
