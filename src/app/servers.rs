//! What a starting node waits for: the servers it cannot do without, which may be starting as well.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::store_options;
use crate::bus::connection;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::store::{self, StoreError};

/// Between two questions, at first and at most: a server is used soon after it is there, and a log
/// of a minute can be read. Jittered, since a cluster starts as one.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Why a server cannot be used.
enum No {
    /// It may be, later.
    NotYet(String),
    /// Not before somebody changes a setting.
    Never(String),
}

/// Waits until PostgreSQL and Redis can be used, those of them that the configuration names.
///
/// # Errors
/// One of them cannot be used in time, or refuses what it is asked.
pub(super) async fn wait_for_all(config: &Config) -> Result<(), Failure> {
    tokio::try_join!(wait_for_postgres(config), wait_for_redis(config))?;
    Ok(())
}

/// Waits until PostgreSQL can be used, if that is the database.
///
/// # Errors
/// As [`wait_for_all`].
pub(super) async fn wait_for_postgres(config: &Config) -> Result<(), Failure> {
    let options = store_options(config);
    if !options.is_postgres() {
        return Ok(());
    }
    let server = Server {
        name: "PostgreSQL",
        setting: "DATABASE_URL",
        address: store::address(&options)?,
    };
    server
        .wait(config.start.timeout, async || {
            store::knock(&options).await.map_err(|error| match error {
                StoreError::Unavailable(why) => No::NotYet(why),
                StoreError::Refused(error) => No::Never(error.to_string()),
                error => No::Never(error.to_string()),
            })
        })
        .await
}

async fn wait_for_redis(config: &Config) -> Result<(), Failure> {
    let Some(url) = config.redis.url.as_ref() else {
        return Ok(());
    };
    if config.start.without_redis {
        return Ok(());
    }
    let server = Server {
        name: "Redis",
        setting: "REDIS_URL",
        address: config.redis.address(),
    };
    server
        .wait(config.start.timeout, async || {
            let knocked = connection::knock(url.expose()).await;
            knocked.map_err(|no| {
                if no.passes {
                    No::NotYet(no.why)
                } else {
                    No::Never(no.why)
                }
            })
        })
        .await
}

struct Server {
    name: &'static str,
    setting: &'static str,
    address: String,
}

impl Server {
    /// Asks again and again, for so long.
    async fn wait(
        &self,
        patience: Duration,
        ask: impl AsyncFn() -> Result<(), No>,
    ) -> Result<(), Failure> {
        let Self { name, address, .. } = self;
        let began = Instant::now();
        let mut pause = PAUSE_MIN;
        for attempt in 1_u32.. {
            let why = match ask().await {
                Ok(()) if attempt == 1 => return Ok(()),
                Ok(()) => {
                    tracing::info!("{name} at {address} is there");
                    return Ok(());
                }
                Err(No::Never(why)) => return Err(self.refused(&why)),
                Err(No::NotYet(why)) => why,
            };
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(self.absent(patience, &why));
            }
            let left_seconds = left.as_secs();
            tracing::warn!(
                attempt,
                left_seconds,
                "waiting for {name} at {address}: {why}"
            );
            let jittered = pause.mul_f64(rand::rng().random_range(0.75..1.25));
            tokio::time::sleep(jittered.min(left)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        unreachable!("there is no last attempt")
    }

    fn refused(&self, why: &str) -> Failure {
        let Self {
            name,
            setting,
            address,
        } = self;
        let why = format!("{setting}: {name} at {address} refuses this node: {why}");
        Failure::new(Exit::Refused, why)
    }

    fn absent(&self, patience: Duration, why: &str) -> Failure {
        let Self {
            name,
            setting,
            address,
        } = self;
        let seconds = patience.as_secs();
        let why = format!(
            "{name} at {address} could not be used within {seconds} s \
             (ROOKERY_START_TIMEOUT_SECONDS): {why}; start it, or correct {setting}"
        );
        Failure::new(Exit::Away, why)
    }
}
