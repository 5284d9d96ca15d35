//! How to reach the database.

use std::error::Error;
use std::path::Path;
use std::str::FromStr;

use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use url::Url;

use super::key::Key;
use super::secret::{ENCODE, Secret, has_placeholder, is_cut, redact_url};
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
        "sqlite" if rest.contains("mode=ro") || rest.contains("immutable=") => {
            Err("a node writes to its database; set sqlite://path/to/file.db".to_owned())
        }
        "sqlite" if rest.trim_start_matches('/').is_empty() => {
            Err("the file is missing; set sqlite://path/to/file.db".to_owned())
        }
        "sqlite" if rest.starts_with("//") => check_sqlite(text).map(|()| Secret::new(text)),
        "postgres" | "postgresql" if rest.starts_with("//") => {
            check_postgres(text).map(|()| Secret::new(text))
        }
        // The text itself may be a password put into the wrong variable: it is not repeated.
        _ => Err("neither a sqlite:// nor a postgres:// URL".to_owned()),
    }
}

/// What may stand in the query of a `postgres://` URL; `options[…]` as well.
const PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// What other clients of PostgreSQL know, and no secret: the driver ignores it, with a warning. URLs
/// of managed databases have some of these.
const IGNORED: [&str; 17] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcompression",
    "sslnegotiation",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// The driver would drop what it does not know, with a warning that shows it, be it a password.
fn check_postgres(text: &str) -> Result<()> {
    let mut url = Url::parse(text).map_err(|e| format!("not a URL ({e}); {EXAMPLE}; {ENCODE}"))?;
    if is_cut(&url) {
        return Err(format!("not a URL of a database; {EXAMPLE}; {ENCODE}"));
    }
    let is_known = |name: &str| {
        PARAMETERS.contains(&name) || IGNORED.contains(&name) || name.starts_with("options[")
    };
    if url
        .query_pairs()
        .any(|(name, _)| name == "statement-cache-capacity")
    {
        return Err(
            "statement-cache-capacity does nothing there; set DATABASE_STATEMENT_CACHE".to_owned(),
        );
    }
    if !url.query_pairs().all(|(name, _)| is_known(&name)) {
        return Err(format!(
            "a parameter behind the ? is not known; there are {}",
            PARAMETERS.join(", ")
        ));
    }
    // With a password none is looked for in the user's file of passwords.
    url.query_pairs_mut().append_pair("password", "none");
    let parsed = PgConnectOptions::from_str(url.as_str());
    parsed.map(drop).map_err(|error| unusable(&error))
}

fn check_sqlite(text: &str) -> Result<()> {
    let parsed = SqliteConnectOptions::from_str(text);
    parsed.map(drop).map_err(|error| unusable(&error))
}

/// The driver's reason without the layers around it.
fn unusable(error: &sqlx::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    format!("it cannot be used: {cause}")
}
