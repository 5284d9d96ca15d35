//! The schema: migrations are embedded, run forward only, and one process at a time.
//!
//! `meta.schema_release` counts the releases that changed the schema; the last migration of such a
//! release sets it, and [`SCHEMA_RELEASE`] follows. Migrations only expand what the release before
//! them needs, so a binary works with a schema one release newer than itself (a rolling update),
//! and refuses one that is newer still.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection};

use super::sqlite::{file_options, not_opened, once_free};
use super::{Result, StoreError, StoreOptions, postgres};

/// The schema that this binary was written for.
const SCHEMA_RELEASE: i64 = 2;

const RELEASE: &str = "select value from meta where key = 'schema_release'";
const APPLIED: &str = "select version from _sqlx_migrations";

fn postgres_migrations() -> Migrator {
    forward_only(sqlx::migrate!("migrations/postgres"))
}

fn sqlite_migrations() -> Migrator {
    forward_only(sqlx::migrate!("migrations/sqlite"))
}

/// A schema one release newer has migrations that this binary does not know.
fn forward_only(mut migrator: Migrator) -> Migrator {
    migrator.set_ignore_missing(true);
    migrator
}

/// Applies what is missing. Processes that do so at the same time wait for each other.
///
/// # Errors
/// The database cannot be reached, a migration fails, or the schema is too new for this binary.
pub async fn migrate(options: &StoreOptions) -> Result<()> {
    if options.is_postgres() {
        let mut connection = connect_postgres(options).await?;
        check_release(postgres_release(&mut connection).await?)?;
        // Holds an advisory lock on the connection meanwhile.
        let migrated = postgres_migrations()
            .run_direct(None, &mut connection, false)
            .await;
        connection.close().await?;
        migrated.map_err(failed)
    } else {
        let mut connection = connect_sqlite(options).await?;
        // dialect: the migrator has no lock for SQLite; a writing transaction around it is one.
        let mut tx = connection.begin_with("begin immediate").await?;
        check_release(sqlite_release(&mut tx).await?)?;
        let migrated = sqlite_migrations().run_direct(None, &mut *tx, false).await;
        migrated.map_err(failed)?;
        tx.commit().await?;
        connection.close().await?;
        Ok(())
    }
}

/// A database that went away meanwhile is no fault of the schema.
fn failed(error: MigrateError) -> StoreError {
    let text = error.to_string();
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            match StoreError::from(error) {
                StoreError::Unavailable(_) => StoreError::Unavailable(text),
                denied @ StoreError::Denied(_) => denied,
                _ => StoreError::Schema(text),
            }
        }
        _ => StoreError::Schema(text),
    }
}

/// The migrations that [`migrate`] would apply, by file name without its ending.
///
/// # Errors
/// The database cannot be reached, or the schema is too new for this binary.
pub async fn pending(options: &StoreOptions) -> Result<Vec<String>> {
    let (migrator, applied) = if options.is_postgres() {
        let mut connection = connect_postgres(options).await?;
        let applied = match postgres_release(&mut connection).await? {
            None => Vec::new(),
            Some(release) => {
                check_release(Some(release))?;
                sqlx::query_scalar(APPLIED)
                    .fetch_all(&mut connection)
                    .await?
            }
        };
        connection.close().await?;
        (postgres_migrations(), applied)
    } else {
        let mut connection = connect_sqlite(options).await?;
        let applied = match sqlite_release(&mut connection).await? {
            None => Vec::new(),
            Some(release) => {
                check_release(Some(release))?;
                sqlx::query_scalar(APPLIED)
                    .fetch_all(&mut connection)
                    .await?
            }
        };
        connection.close().await?;
        (sqlite_migrations(), applied)
    };
    Ok(missing(&migrator, &applied))
}

fn missing(migrator: &Migrator, applied: &[i64]) -> Vec<String> {
    migrator
        .iter()
        .filter(|migration| !applied.contains(&migration.version))
        .map(|migration| format!("{:04}_{}", migration.version, migration.description))
        .collect()
}

fn check_release(release: Option<String>) -> Result<()> {
    let Some(release) = release else {
        return Ok(());
    };
    match release.parse::<i64>() {
        Ok(number) if number <= SCHEMA_RELEASE + 1 => Ok(()),
        _ => Err(StoreError::Schema(format!(
            "the schema is of release {release}, and this binary works with those up to {}: \
             run a newer one",
            SCHEMA_RELEASE + 1
        ))),
    }
}

// No pool and none of its time-outs: a migration may take long.
async fn connect_postgres(options: &StoreOptions) -> Result<PgConnection> {
    Ok(postgres::parsed(&options.url)?
        .application_name(&options.application_name)
        .connect()
        .await?)
}

async fn connect_sqlite(options: &StoreOptions) -> Result<SqliteConnection> {
    let file = file_options(&options.url)?;
    let opened = once_free(|| file.connect()).await;
    opened.map_err(|why| not_opened(&options.url, why))
}

/// The schema's release; `None` in a database without a schema.
async fn postgres_release(connection: &mut PgConnection) -> Result<Option<String>> {
    let has_meta: bool = sqlx::query_scalar("select to_regclass('meta') is not null")
        .fetch_one(&mut *connection)
        .await?;
    if !has_meta {
        return Ok(None);
    }
    Ok(sqlx::query_scalar(RELEASE)
        .fetch_optional(connection)
        .await?)
}

async fn sqlite_release(connection: &mut SqliteConnection) -> Result<Option<String>> {
    let has_meta: bool =
        sqlx::query_scalar("select exists (select 1 from sqlite_schema where name = 'meta')")
            .fetch_one(&mut *connection)
            .await?;
    if !has_meta {
        return Ok(None);
    }
    Ok(sqlx::query_scalar(RELEASE)
        .fetch_optional(connection)
        .await?)
}
