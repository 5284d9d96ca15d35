//! The store in one SQLite file, for a single node: one writer, any number of readers.

mod backup;
mod blocks;
mod conversations;
mod groups;
mod journal;
mod messages;
mod presence;
mod receipts;
mod sessions;
#[cfg(test)]
mod tests;
mod transaction;
mod users;

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rookery_protocol::ConversationId;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use uuid::Uuid;

pub use self::backup::{BackupError, back_up};
use self::transaction::Tx;
use super::{Result, StoreError, StoreOptions};

/// How long a statement waits for another process that writes to the file.
const BUSY_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait before a busy file is opened again.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// The result code (sqlite.org/rescode.html#busy).
const SQLITE_BUSY: u32 = 5;
/// How long a caller queues for the writer: longer than that one may wait for the file.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(10);

/// Longer than a transaction may queue and wait: only a disk that hangs reaches it.
const TRANSACTION_WITHIN: Duration = Duration::from_secs(30);

/// Cloning shares the pools.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    /// One connection: within this process, writers queue here and never meet in the file.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, and makes it if it is missing; its folder must exist.
    ///
    /// # Errors
    /// The URL cannot be read, or the file cannot be opened.
    pub async fn connect(options: &StoreOptions) -> Result<Self> {
        let file = file_options(&options.url)?;
        let opened = once_free(|| Self::open(file.clone(), options.pool_max)).await;
        opened.map_err(|why| not_opened(&options.url, why))
    }

    async fn open(file: SqliteConnectOptions, readers_max: u32) -> sqlx::Result<Self> {
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_WITHIN)
            // Nothing but this process can break it.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(file.clone())
            .await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(readers_max)
            .acquire_timeout(ACQUIRE_WITHIN)
            .test_before_acquire(false)
            .connect_with(file.create_if_missing(false).pragma("query_only", "on"))
            .await?;
        Ok(Self { writer, readers })
    }

    fn reader(&self) -> &SqlitePool {
        &self.readers
    }

    fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// As [`Self::begin`]: there is one writer, whatever it locks.
    async fn begin_on(&self, _id: ConversationId) -> Result<Tx> {
        self.begin().await
    }

    /// Only within [`super::sql::detached`].
    async fn begin(&self) -> Result<Tx> {
        Tx::begin(&self.writer).await
    }
}

/// How every connection opens the file: what is committed survives a power cut.
pub(super) fn file_options(url: &str) -> Result<SqliteConnectOptions> {
    Ok(SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_WITHIN))
}

/// Opens, and again while another process opens or closes the file: the change to the write-ahead log
/// and the last close of one need the file alone, and SQLite calls it busy without waiting
/// (sqlite.org/wal.html, "Sometimes queries return SQLITE_BUSY in WAL mode").
pub(super) async fn once_free<T, F>(open: impl Fn() -> F) -> sqlx::Result<T>
where
    F: Future<Output = sqlx::Result<T>>,
{
    let until = Instant::now() + BUSY_WITHIN;
    loop {
        match open().await {
            Err(error) if is_busy(&error) && Instant::now() < until => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    // Extended codes have the plain one in their lowest byte.
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == SQLITE_BUSY)
}

/// The file that a URL names.
#[must_use]
pub fn path_in(url: &str) -> &str {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path);
    path.split('?').next().unwrap_or(path)
}

/// What is to be done about a file that cannot be opened.
pub(super) fn not_opened(url: &str, why: impl Display) -> StoreError {
    let path = path_in(url);
    StoreError::Unavailable(format!(
        "{path} cannot be opened ({why}): its folder must be there, and this user must be allowed \
         to write to both; or set another file with DATABASE_URL, or another folder with DATA_DIR"
    ))
}

// dialect: a list is a JSON array; `value` reads its numbers.
fn numbers(numbers: &[i64]) -> String {
    serde_json::Value::from(numbers).to_string()
}

// dialect: a list is a JSON array; `value` reads its texts.
fn texts(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

// dialect: a list is a JSON array of hexadecimal ids; `unhex(value)` reads them.
fn list<'a>(ids: impl Iterator<Item = &'a Uuid>) -> String {
    let mut json = String::from("[");
    for (place, id) in ids.enumerate() {
        if place > 0 {
            json.push(',');
        }
        json.push('"');
        json.push_str(id.as_simple().encode_lower(&mut Uuid::encode_buffer()));
        json.push('"');
    }
    json.push(']');
    json
}
