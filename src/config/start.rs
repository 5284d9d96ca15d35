//! How a node begins.

use std::time::Duration;

use serde_json::{Value, json};

use super::key::Key;
use super::sources::{Result, Sources, boolean, whole};

const TIMEOUT_SECONDS: Key = Key::new("start.timeout_seconds").or("60");
const WITHOUT_REDIS: Key = Key::new("start.without_redis").or("false");

pub(super) const KEYS: [Key; 2] = [TIMEOUT_SECONDS, WITHOUT_REDIS];

/// A day: whoever waits longer has forgotten that it waits.
const SECONDS_MAX: u64 = 86_400;

#[derive(Clone, Debug)]
pub struct StartConfig {
    /// `ROOKERY_START_TIMEOUT_SECONDS`: how long a node waits for a PostgreSQL and a Redis that do
    /// not answer yet; 0: it asks once. Default: 60, more than either takes to start with it.
    pub timeout: Duration,
    /// `ROOKERY_START_WITHOUT_REDIS`: true lets a node serve though its Redis is away. Default:
    /// false, so that an update with a wrong address ends at its first node.
    pub without_redis: bool,
}

impl StartConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        let timeout = sources.value(&TIMEOUT_SECONDS, whole(0..=SECONDS_MAX))?;
        Ok(Self {
            timeout: Duration::from_secs(timeout),
            without_redis: sources.value(&WITHOUT_REDIS, boolean)?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 2] {
        [json!(self.timeout.as_secs()), json!(self.without_redis)]
    }
}
