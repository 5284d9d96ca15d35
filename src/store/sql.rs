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

use sqlx::error::DatabaseError;

use super::{Result, StoreError};

/// Runs a transaction in a task of its own, so that it ends even if nobody waits for it any more:
/// sqlx's `begin` is not cancel-safe, and a half-way transaction would hold its locks.
pub(super) async fn detached<T, F>(transaction: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself within the statement time-outs, and must outlive its caller"
    )]
    let task = tokio::spawn(transaction);
    match task.await {
        Ok(result) => result,
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        Err(_) => Err(StoreError::Unavailable(
            "the runtime is stopping".to_owned(),
        )),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
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
    // Connection gone, resources short, shutting down or starting up; serialization, deadlock,
    // lock time-out, statement time-out, a server that became read-only (a former primary), and
    // idle_in_transaction_session_timeout.
    let (class, whole) = (code.get(..2).unwrap_or_default(), code.as_ref());
    matches!(class, "08" | "53")
        || whole.starts_with("57P0")
        || matches!(
            whole,
            "40001" | "40P01" | "55P03" | "57014" | "25006" | "25P03"
        )
}

pub(super) fn corrupt(table: &'static str, column: &'static str, row: impl Display) -> StoreError {
    StoreError::Corrupt {
        table,
        column,
        row: row.to_string(),
    }
}

/// The pattern for `lower(…) like … escape '\'` that finds `query` anywhere, literally.
pub(super) fn contains_pattern(query: &str) -> String {
    let mut pattern = String::with_capacity(query.len() + 2);
    pattern.push('%');
    for character in query.to_lowercase().chars() {
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
        assert_eq!(contains_pattern(r"50%_\A"), r"%50\%\_\\a%");
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
            let mut call = std::pin::pin!(detached(async move {
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
