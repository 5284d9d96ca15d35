//! Without Redis nodes cannot tell each other anything, so a database without one belongs to one
//! node at a time: this is the claim on it, given up when it is dropped or the process ends.

use std::fs::File;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

use super::sqlite::{not_opened, path_in};
use super::{Result, StoreError, StoreOptions, postgres};

/// Names the claim among PostgreSQL's advisory locks: "rookery" in ASCII.
const ADVISORY_LOCK: i64 = 0x72_6f_6f_6b_65_72_79;

/// A held claim.
#[derive(Debug)]
pub enum SingleNode {
    /// The session that holds the advisory lock.
    Postgres(Box<PgConnection>),
    /// The locked file beside the database.
    Sqlite(File),
}

impl SingleNode {
    /// Claims the database for this node.
    ///
    /// # Errors
    /// Another node has it, in a sentence that says what to set; or the database does not answer.
    pub async fn claim(options: &StoreOptions) -> Result<Self> {
        if options.is_postgres() {
            Self::claim_postgres(options).await
        } else {
            Self::claim_sqlite(options)
        }
    }

    async fn claim_postgres(options: &StoreOptions) -> Result<Self> {
        let unavailable = |error: sqlx::Error| StoreError::Unavailable(error.to_string());
        let options = postgres::parsed(&options.url)?
            .application_name("rookery/single-node")
            .disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options)
            .await
            .map_err(unavailable)?;
        let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(ADVISORY_LOCK)
            .fetch_one(&mut connection)
            .await
            .map_err(unavailable)?;
        if !free {
            return Err(StoreError::InUse);
        }
        Ok(Self::Postgres(Box::new(connection)))
    }

    fn claim_sqlite(options: &StoreOptions) -> Result<Self> {
        let file = File::create(format!("{}.lock", path_in(&options.url)))
            .map_err(|why| not_opened(&options.url, why))?;
        file.try_lock().map_err(|_| StoreError::InUse)?;
        Ok(Self::Sqlite(file))
    }
}
