//! Configuration: a file per concern, everything checked before anything starts.
//!
//! A value comes from the environment, else from the TOML file (`--config`), else from its
//! default. In the file it is called `section.name`; its variable is `ROOKERY_<SECTION>_<NAME>`
//! unless the key has a well-known name of its own (`DATABASE_URL`). Secrets are also read from the
//! file that `<VARIABLE>_FILE` names. What is set and not known is refused, so that a slip of the
//! pen never passes for a default.
//!
//! A new setting: add its [`Key`] to `KEYS` and its value to `values` in the file of its concern,
//! read it there, and add its row to `docs/OPERATIONS.md` (a test compares the two).

mod auth;
mod database;
mod drain;
mod environment;
mod fanout;
mod file;
mod http;
mod key;
mod limits;
mod log;
mod node;
mod rates;
mod redis;
mod secret;
mod sources;
mod start;
#[cfg(test)]
mod tests;
mod traces;

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

pub use auth::AuthConfig;
pub use database::DatabaseConfig;
pub use drain::DrainConfig;
pub use environment::Environment;
pub use fanout::FanoutConfig;
pub use http::HttpConfig;
pub use key::Key;
pub use limits::LimitsConfig;
pub use log::{LogConfig, LogFormat};
pub use node::NodeConfig;
pub use rates::RatesConfig;
pub use redis::RedisConfig;
pub use secret::Secret;
pub use start::StartConfig;
pub use traces::TracesConfig;

use sources::{Origin, Problem, Sources};

/// Everything an operator decides, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub http: HttpConfig,
    pub auth: AuthConfig,
    pub limits: LimitsConfig,
    pub rates: RatesConfig,
    pub fanout: FanoutConfig,
    pub start: StartConfig,
    pub drain: DrainConfig,
    pub log: LogConfig,
    pub traces: TracesConfig,
    pub node: NodeConfig,
    /// `TOKIO_WORKER_THREADS`: threads that run tasks. Default: one a core.
    pub worker_threads: usize,
}

const SECTIONS: [&[Key]; 12] = [
    &database::KEYS,
    &redis::KEYS,
    &http::KEYS,
    &auth::KEYS,
    &limits::KEYS,
    &rates::KEYS,
    &fanout::KEYS,
    &start::KEYS,
    &drain::KEYS,
    &log::KEYS,
    &traces::KEYS,
    &node::KEYS,
];

/// Every setting there is, in the order in which they are printed.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.into_iter().flatten()
}

/// Why a configuration was refused: each problem is a sentence that says what to set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot work:\n  {}", .problems.join("\n  "))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

impl Config {
    /// Reads and checks everything a node needs to run. Makes the data directory when something is
    /// to be kept there, and the token secret on the first start of a single node.
    ///
    /// # Errors
    /// Whatever cannot work, at most one problem a section at a time.
    pub fn load(file: Option<&Path>, env: &Environment) -> Result<Self, ConfigError> {
        let mut config = Self::check(file, env)?;
        config.prepare().map_err(|problem| ConfigError {
            problems: vec![problem],
        })?;
        Ok(config)
    }

    /// Reads and checks like [`Config::load`], and touches nothing: before the first start of a
    /// single node without `JWT_SECRET`, `auth.keys` stays empty.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn check(file: Option<&Path>, env: &Environment) -> Result<Self, ConfigError> {
        let sources = Self::sources(file, env)?;
        Self::check_sources(&sources, env)
    }

    /// The effective configuration as TOML, secrets redacted, each line with its variable and where
    /// its value comes from. Touches nothing.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn show(file: Option<&Path>, env: &Environment) -> Result<String, ConfigError> {
        let sources = Self::sources(file, env)?;
        let config = Self::check_sources(&sources, env)?;
        Ok(config.render(&sources))
    }

    fn sources<'a>(file: Option<&Path>, env: &'a Environment) -> Result<Sources<'a>, ConfigError> {
        Sources::read(file, env).map_err(|problem| ConfigError {
            problems: vec![problem],
        })
    }

    fn check_sources(sources: &Sources<'_>, env: &Environment) -> Result<Self, ConfigError> {
        let mut problems = sources.unknown();
        let config = Self::read(sources, env, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError { problems }),
        }
    }

    fn read(sources: &Sources<'_>, env: &Environment, problems: &mut Vec<Problem>) -> Option<Self> {
        let node = keep(problems, NodeConfig::read(sources, env));
        let redis = keep(problems, RedisConfig::read(sources));
        let http = keep(problems, HttpConfig::read(sources));
        let auth = keep(problems, AuthConfig::read(sources));
        let limits = keep(problems, LimitsConfig::read(sources));
        let rates = keep(problems, RatesConfig::read(sources));
        let fanout = keep(problems, FanoutConfig::read(sources));
        let start = keep(problems, StartConfig::read(sources));
        let drain = keep(problems, DrainConfig::read(sources));
        let log = keep(problems, LogConfig::read(sources));
        let traces = keep(problems, TracesConfig::read(sources));
        let worker_threads = keep(problems, env.worker_threads());
        let node = node?;
        let database = keep(problems, DatabaseConfig::read(sources, &node.data_dir));
        let mut config = Self {
            database: database?,
            redis: redis?,
            http: http?,
            auth: auth?,
            limits: limits?,
            rates: rates?,
            fanout: fanout?,
            start: start?,
            drain: drain?,
            log: log?,
            traces: traces?,
            worker_threads: worker_threads?,
            node,
        };
        problems.extend(config.contradictions());
        if config.auth.keys.is_empty() && !config.is_cluster() {
            keep(problems, config.auth.use_kept_secret(&config.node.data_dir));
        }
        Some(config)
    }

    /// Whether other nodes may run beside this one.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.redis.url.is_some()
    }

    /// The variables of what differs in `newer` and does not change before a restart. The node's id
    /// is left out, since one that is made up differs each time.
    #[must_use]
    pub fn waits_for_restart(&self, newer: &Self) -> Vec<String> {
        let values = self.values().into_iter().zip(newer.values());
        let shown = keys()
            .zip(values)
            .filter(|(key, (old, new))| old != new && !key.live && key.path != node::ID_PATH);
        let mut variables: Vec<String> = shown.map(|(key, _)| key.variable()).collect();
        // Passwords do not show.
        for (key, old, new) in [
            (
                &database::URL,
                Some(&self.database.url),
                Some(&newer.database.url),
            ),
            (
                &database::REPLICA_URL,
                self.database.replica_url.as_ref(),
                newer.database.replica_url.as_ref(),
            ),
            (
                &redis::URL,
                self.redis.url.as_ref(),
                newer.redis.url.as_ref(),
            ),
        ] {
            let variable = key.variable();
            if old != new && !variables.contains(&variable) {
                variables.push(variable);
            }
        }
        variables
    }

    /// What each section allows and their combination does not.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.is_cluster() && self.database.is_sqlite() {
            problems.push(
                "REDIS_URL is set, but SQLite serves a single node; set DATABASE_URL to a \
                 postgres:// URL, or unset REDIS_URL"
                    .to_owned(),
            );
        }
        if self.is_cluster() && self.auth.keys.is_empty() {
            problems.push(
                "REDIS_URL is set, and the nodes of a cluster must share their secret; set \
                 JWT_SECRET to the same text on each, at least 32 bytes"
                    .to_owned(),
            );
        }
        problems
    }

    /// Makes what has to be there before a node starts.
    fn prepare(&mut self) -> Result<(), Problem> {
        let secret_missing = self.auth.keys.is_empty();
        if secret_missing || self.database.is_sqlite() {
            auth::make_private_dir(&self.node.data_dir)?;
        }
        if secret_missing {
            self.auth.make_secret(&self.node.data_dir)?;
        }
        Ok(())
    }

    fn render(&self, sources: &Sources<'_>) -> String {
        let mut text = String::new();
        let mut section = "";
        for (key, value) in keys().zip(self.values()) {
            if key.section() != section {
                section = key.section();
                let gap = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{section}]");
            }
            let line = match value {
                Value::Null => format!("# {} is not set", key.name()),
                // What JSON writes for texts, numbers and lists of texts is TOML as well.
                value => format!("{} = {value}", key.name()),
            };
            let variable = key.variable();
            let origin = match sources.origin(key) {
                Origin::Default => "default".to_owned(),
                Origin::File => "from the file".to_owned(),
                Origin::Environment => "from the environment".to_owned(),
                Origin::SecretFile(path) => format!("from {path}"),
            };
            let _ = writeln!(text, "{line:<48} # {variable}, {origin}");
        }
        text
    }

    /// In the order of [`keys`].
    fn values(&self) -> Vec<Value> {
        let mut values = Vec::new();
        values.extend(self.database.values());
        values.extend(self.redis.values());
        values.extend(self.http.values());
        values.extend(self.auth.values());
        values.extend(self.limits.values());
        values.extend(self.rates.values());
        values.extend(self.fanout.values());
        values.extend(self.start.values());
        values.extend(self.drain.values());
        values.extend(self.log.values());
        values.extend(self.traces.values());
        values.extend(self.node.values());
        values
    }
}

fn keep<T>(problems: &mut Vec<Problem>, result: Result<T, Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}
