//! What PostgreSQL and SQLite share: statements both dialects understand, rows and their
//! conversion, and one body a noun for the methods that are the same but for the type of the
//! database (`macro_rules!`, since code that is generic over `sqlx::Database` drowns in bounds).
//!
//! In a body, `super::Tx`, `super::list` and the constants marked `// dialect:` are those of the
//! database that the body is used for.

pub(super) mod append;
pub(super) mod blocks;
pub(super) mod changes;
pub(super) mod conversations;
pub(super) mod groups;
pub(super) mod journal;
pub(super) mod messages;
pub(super) mod presence;
pub(super) mod receipts;
pub(super) mod sessions;
pub(super) mod users;

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use rand::Rng;
use sqlx::error::DatabaseError;
use tokio::time::{Instant, timeout};

use super::{Result, StoreError};
use crate::metrics;

const DEADLOCK: &str = "a deadlock";
/// How often, and for how long, a transaction is repeated that another one was in the way of.
const RETRIES_MAX: u32 = 3;
const RETRIES_WITHIN: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Runs a transaction in a task of its own, so that it ends even if nobody waits for it any more:
/// a half-way transaction would hold its locks. One that takes longer than `within` is given up; if
/// it was about to be committed, nobody knows whether it was.
pub(super) async fn detached<T, F>(within: Duration, transaction: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself within the statement time-outs, and must outlive its caller"
    )]
    let task = tokio::spawn(timeout(within, transaction));
    match task.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            metrics::store_timeouts_total().transaction.increment(1);
            let why = "a transaction did not end in time";
            Err(StoreError::Unavailable(why.to_owned()))
        }
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        Err(_) => Err(StoreError::Unavailable(
            "the runtime is stopping".to_owned(),
        )),
    }
}

/// A transaction with everything that it needs around it: [`detached`], and [`repeated`] where it
/// has to be.
pub(super) async fn transact<T, F>(within: Duration, transaction: impl Fn() -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    repeated(|| detached(within, transaction())).await
}

/// Repeats a transaction that another one was in the way of. Both were asked for in good faith, and
/// the one that the database chose to end has left nothing behind.
pub(super) async fn repeated<T, F>(transaction: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let began = Instant::now();
    for attempt in 1.. {
        let why = match transaction().await {
            Err(StoreError::Collided(why)) => why,
            result => return result,
        };
        let retries = metrics::store_retries_total();
        if attempt > RETRIES_MAX || began.elapsed() > RETRIES_WITHIN {
            return Err(StoreError::Unavailable(why.to_owned()));
        } else if why == DEADLOCK {
            retries.deadlock.increment(1);
        } else {
            retries.serialization.increment(1);
        }
        // Whoever collided with it must not do so again.
        let pause = RETRY_PAUSE.mul_f64(rand::rng().random_range(0.5..2.0));
        tokio::time::sleep(pause).await;
    }
    unreachable!("there is no last attempt")
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        if let Error::Database(database) = &error {
            match database.code().as_deref() {
                Some("40P01") => return Self::Collided(DEADLOCK),
                Some("40001") => return Self::Collided("a serialization failure"),
                Some("42501") => return Self::Denied(database.message().to_owned()),
                _ => {}
            }
        }
        let passes = match &error {
            Error::Database(database) => passes(database.as_ref()),
            Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed
            | Error::BeginFailed => true,
            _ => false,
        };
        if passes {
            Self::Unavailable(error.to_string())
        } else {
            Self::Refused(error)
        }
    }
}

/// Whether what the database complains of may be over when the same statement is repeated.
fn passes(error: &dyn DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    if error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        // Extended codes carry the primary one in the low byte: busy, locked, no memory,
        // interrupted, I/O, full, cannot open, lock protocol.
        let primary = code.parse::<i32>().unwrap_or_default() & 0xff;
        return matches!(primary, 5 | 6 | 7 | 9 | 10 | 13 | 14 | 15);
    }
    // Connection gone, resources short, shutting down or starting up; lock time-out, statement
    // time-out, a server that became read-only (a former primary), and
    // idle_in_transaction_session_timeout.
    let (class, whole) = (code.get(..2).unwrap_or_default(), code.as_ref());
    matches!(class, "08" | "53")
        || whole.starts_with("57P0")
        || matches!(whole, "55P03" | "57014" | "25006" | "25P03")
}

pub(super) fn corrupt(table: &'static str, column: &'static str, row: impl Display) -> StoreError {
    StoreError::Corrupt {
        table,
        column,
        row: row.to_string(),
    }
}

/// The pattern for `lower(…) like lower(…) escape '\'` that finds `query` anywhere, literally. The database
/// folds both sides, since each folds other letters than Rust does: SQLite only those of ASCII.
pub(super) fn contains_pattern(query: &str) -> String {
    let mut pattern = String::with_capacity(query.len() + 2);
    pattern.push('%');
    for character in query.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_a_query_are_plain_characters() {
        assert_eq!(contains_pattern(r"50%_\A"), r"%50\%\_\\A%");
        assert_eq!(contains_pattern(""), "%%");
    }

    #[test]
    fn failures_of_the_connection_pass_and_others_do_not() {
        assert!(matches!(
            sqlx::Error::PoolTimedOut.into(),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(
            sqlx::Error::RowNotFound.into(),
            StoreError::Refused(_)
        ));
    }

    #[tokio::test]
    async fn a_transaction_goes_on_when_its_caller_is_gone() {
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
        let (finished, has_finished) = tokio::sync::oneshot::channel();
        {
            let mut call = std::pin::pin!(detached(Duration::MAX, async move {
                started.send(()).ok();
                may_go_on.await.ok();
                finished.send(()).ok();
                Ok(())
            }));
            tokio::select! {
                _ = &mut call => panic!("it waits for a word that was not given"),
                _ = has_started => {}
            }
        }
        go_on.send(()).expect("the task is alive");
        has_finished.await.expect("the task ran to its end");
    }
}
