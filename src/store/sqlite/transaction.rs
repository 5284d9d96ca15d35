//! A transaction of the one writer.
//!
//! SQLite ends a transaction by itself when the disk is full or fails. The driver's own transactions
//! would go on to count it as open, and no other could begin on the connection any more.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{Executor, Sqlite};

use crate::store::Result;
use crate::store::waiting::Waiting;

/// Rolled back when it is dropped before its commit.
#[derive(Debug)]
pub(super) struct Tx {
    connection: Option<PoolConnection<Sqlite>>,
    is_over: bool,
}

const HELD: &str = "the connection is there until the transaction is dropped";

impl Tx {
    /// Waits for the writer. Only within [`crate::store::sql::detached`].
    pub(super) async fn begin(writer: &SqlitePool) -> Result<Self> {
        let waiting = Waiting::begin();
        let connection = writer.acquire().await?;
        waiting.succeeded();
        // From here on it is dropped with a rollback, whether or not it has begun.
        let mut tx = Self {
            connection: Some(connection),
            is_over: false,
        };
        // dialect: a transaction that begins by reading could not become a writing one when
        // somebody else has written meanwhile, and would fail at once instead of waiting.
        tx.execute("begin immediate").await?;
        Ok(tx)
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        self.execute("commit").await?;
        self.is_over = true;
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<()> {
        self.execute("rollback").await?;
        self.is_over = true;
        Ok(())
    }
}

impl Deref for Tx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection.as_ref().expect(HELD)
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect(HELD)
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.is_over {
            return;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with one statement, behind which the next writer waits"
        )]
        tokio::spawn(async move {
            // It fails where nothing is open, which is just as well.
            connection.execute("rollback").await.ok();
        });
    }
}
