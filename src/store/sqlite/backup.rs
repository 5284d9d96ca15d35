//! A copy of the database, taken while nodes write to it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::{file_options, once_free};
use crate::store::{StoreError, StoreOptions};

/// Whoever holds the copy can read every message.
const ONLY_THIS_USER: u32 = 0o600;
/// A database that is set back may give out numbers again that devices have seen: under a new name of
/// this incarnation they start over.
const NEW_EPOCH: &str = "update meta set value = lower(hex(randomblob(16))) where key = 'epoch'";

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(
        "DATABASE_URL is PostgreSQL, which brings its own: pg_dump, or pg_basebackup with archived WAL"
    )]
    Postgres,
    #[error("{} is there already; name a file that is not", .0.display())]
    Exists(PathBuf),
    #[error("{} cannot be written: {error}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("there is no database to copy: {0}")]
    NoDatabase(String),
    #[error("the copy was not made: {0}")]
    Copy(#[source] StoreError),
    #[error("the copy was interrupted, and removed")]
    Interrupted,
    #[error("the copy is not whole, and was removed: {0}")]
    Broken(String),
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Copy(error.into())
    }
}

fn write_error(path: &Path, error: io::Error) -> BackupError {
    let path = path.to_owned();
    BackupError::Write { path, error }
}

/// Copies the database to a new file, as it is at one moment, and checks the copy; returns its size.
/// Whoever writes meanwhile is not held up.
///
/// # Errors
/// The file is there already or cannot be written, there is no database, or the copy is not whole.
pub async fn back_up(options: &StoreOptions, to: &Path) -> Result<u64, BackupError> {
    if options.is_postgres() {
        return Err(BackupError::Postgres);
    }
    let source = file_options(&options.url)
        .map_err(BackupError::Copy)?
        .create_if_missing(false);
    let mut source = once_free(|| source.connect())
        .await
        .map_err(|error| BackupError::NoDatabase(error.to_string()))?;
    if to.try_exists().map_err(|error| write_error(to, error))? {
        return Err(BackupError::Exists(to.to_owned()));
    }
    // Whatever ends this half-way leaves nothing under the name: a file of half a copy, or an empty
    // one, would pass for a database.
    let draft = Draft::of(to)?;
    copy(&mut source, &draft.path).await?;
    check(&draft.path).await?;
    let size = draft.keep_as(to)?;
    source.close().await?;
    Ok(size)
}

async fn copy(source: &mut SqliteConnection, to: &Path) -> Result<(), BackupError> {
    let name = to.to_str().ok_or_else(|| {
        let error = io::Error::new(ErrorKind::InvalidInput, "the name is not UTF-8");
        write_error(to, error)
    })?;
    // Reads in one transaction, as others may while somebody writes.
    sqlx::query("vacuum into ?")
        .bind(name)
        .execute(source)
        .await?;
    Ok(())
}

/// Looks through all of the copy, and gives it an epoch of its own.
async fn check(copy: &Path) -> Result<(), BackupError> {
    let options = SqliteConnectOptions::new().filename(copy);
    let mut copy = options.connect().await?;
    let found: Vec<String> = sqlx::query_scalar("pragma integrity_check")
        .fetch_all(&mut copy)
        .await?;
    if found != ["ok"] {
        return Err(BackupError::Broken(found.join("; ")));
    }
    let changed = sqlx::query(NEW_EPOCH).execute(&mut copy).await;
    let changed = changed.map_err(|error| BackupError::NoDatabase(error.to_string()))?;
    if changed.rows_affected() != 1 {
        return Err(BackupError::NoDatabase("it has no epoch".to_owned()));
    }
    copy.close().await?;
    Ok(())
}

/// The file beside the copy's name that is written to, and was not there before; removed when it is
/// dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn of(copy: &Path) -> Result<Self, BackupError> {
        let mut name = copy.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(ONLY_THIS_USER)
            .open(&path);
        match made {
            Ok(_) => Ok(Self { path }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(BackupError::Exists(path))
            }
            Err(error) => Err(write_error(copy, error)),
        }
    }

    /// Gives what is in it the name, when it is on the disk and if nobody has that name; returns its
    /// size.
    fn keep_as(self, name: &Path) -> Result<u64, BackupError> {
        let keep = || {
            let file = File::open(&self.path)?;
            file.sync_all()?;
            std::fs::hard_link(&self.path, name)?;
            let folder = name.parent().filter(|name| !name.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(file.metadata()?.len())
        };
        keep().map_err(|error: io::Error| match error.kind() {
            ErrorKind::AlreadyExists => BackupError::Exists(name.to_owned()),
            _ => write_error(name, error),
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // SQLite's own beside it is there for as long as the copy is being made.
        let mut journal = self.path.clone().into_os_string();
        journal.push("-journal");
        for path in [&self.path, Path::new(&journal)] {
            std::fs::remove_file(path).ok();
        }
    }
}
