//! How to reach the database.

use std::path::Path;

use serde_json::{Value, json};

use super::key::Key;
use super::secret::{Secret, has_placeholder, redact_url};
use super::sources::{Result, Sources, whole};

pub(super) const URL: Key = Key::new("database.url")
    .variable_name("DATABASE_URL")
    .secret();
pub(super) const REPLICA_URL: Key = Key::new("database.replica_url")
    .variable_name("DATABASE_REPLICA_URL")
    .secret();
const POOL_MAX: Key = Key::new("database.pool_max")
    .variable_name("DATABASE_POOL_MAX")
    .or("20");
const STATEMENT_CACHE: Key = Key::new("database.statement_cache")
    .variable_name("DATABASE_STATEMENT_CACHE")
    .or("100");

pub(super) const KEYS: [Key; 4] = [URL, REPLICA_URL, POOL_MAX, STATEMENT_CACHE];

#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`: `sqlite://path` or `postgres://user:password@host/name`. Default:
    /// `rookery.db` in the data directory.
    pub url: Secret,
    /// `DATABASE_REPLICA_URL`: a PostgreSQL replica that may answer for history. Default: none.
    pub replica_url: Option<Secret>,
    /// `DATABASE_POOL_MAX`: connections of this node at the most. Default: 20, enough for group
    /// commit, and ten nodes stay below PostgreSQL's usual few hundred.
    pub pool_max: u32,
    /// `DATABASE_STATEMENT_CACHE`: prepared statements kept on each connection; 0 behind a PgBouncer
    /// that pools transactions. Default: 100.
    pub statement_cache: usize,
}

impl DatabaseConfig {
    pub(super) fn read(sources: &Sources<'_>, data_dir: &Path) -> Result<Self> {
        let url = match sources.optional(&URL, database_url)? {
            Some(url) => url,
            None => default_url(data_dir)?,
        };
        let config = Self {
            url,
            replica_url: sources.optional(&REPLICA_URL, database_url)?,
            pool_max: sources.value(&POOL_MAX, whole(2..=10_000))?,
            statement_cache: sources.value(&STATEMENT_CACHE, whole(0..=10_000))?,
        };
        match &config.replica_url {
            Some(replica) if config.is_sqlite() || is_sqlite(replica.expose()) => Err(
                "DATABASE_REPLICA_URL needs PostgreSQL on both sides; unset it, or set \
                     DATABASE_URL to a postgres:// URL"
                    .to_owned(),
            ),
            _ => Ok(config),
        }
    }

    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        is_sqlite(self.url.expose())
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 4] {
        [
            json!(redact_url(self.url.expose())),
            json!(
                self.replica_url
                    .as_ref()
                    .map(|url| redact_url(url.expose()))
            ),
            json!(self.pool_max),
            json!(self.statement_cache),
        ]
    }
}

const EXAMPLE: &str = "set postgres://user:password@host:5432/name";

fn is_sqlite(url: &str) -> bool {
    url.starts_with("sqlite:")
}

fn default_url(data_dir: &Path) -> Result<Secret> {
    let path = data_dir.join("rookery.db");
    let path = path
        .to_str()
        .filter(|path| !path.contains(['?', '#', '%']))
        .ok_or(
            "DATA_DIR has characters that no database URL can carry; choose another, or set \
         DATABASE_URL",
        )?;
    Ok(Secret::new(format!("sqlite://{path}")))
}

fn database_url(text: &str) -> Result<Secret> {
    if has_placeholder(text) {
        return Err(format!("its password is an example's; {EXAMPLE}"));
    }
    let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
    match scheme {
        "sqlite" if rest.contains(":memory:") || rest.contains("mode=memory") => {
            Err("a database in memory forgets everything; set sqlite://path/to/file.db".to_owned())
        }
        "sqlite" if rest.trim_start_matches('/').is_empty() => {
            Err("the file is missing; set sqlite://path/to/file.db".to_owned())
        }
        "sqlite" if rest.starts_with("//") => Ok(Secret::new(text)),
        "postgres" | "postgresql" => url::Url::parse(text)
            .map(|_| Secret::new(text))
            .map_err(|e| format!("not a URL ({e}); {EXAMPLE}")),
        // The text itself may be a password put into the wrong variable: it is not repeated.
        _ => Err("neither a sqlite:// nor a postgres:// URL".to_owned()),
    }
}
