//! How a node goes away.

use std::time::Duration;

use serde_json::{Value, json};

use super::key::Key;
use super::sources::{Result, Sources, whole};

const DELAY_SECONDS: Key = Key::new("drain.delay_seconds").or("5");
const WINDOW_SECONDS: Key = Key::new("drain.window_seconds").or("20");
const TIMEOUT_SECONDS: Key = Key::new("drain.timeout_seconds").or("60");

pub(super) const KEYS: [Key; 3] = [DELAY_SECONDS, WINDOW_SECONDS, TIMEOUT_SECONDS];

/// A day: whoever waits longer has forgotten that it waits.
const SECONDS_MAX: u64 = 86_400;

#[derive(Clone, Debug)]
pub struct DrainConfig {
    /// `ROOKERY_DRAIN_DELAY_SECONDS`: from failing `/readyz` to closing the first socket, time for
    /// the load balancer to look elsewhere. Default: 5.
    pub delay: Duration,
    /// `ROOKERY_DRAIN_WINDOW_SECONDS`: over which the sockets are closed, in batches. Default: 20.
    pub window: Duration,
    /// `ROOKERY_DRAIN_TIMEOUT_SECONDS`: after which the process ends in any case; what stops it
    /// (systemd, Kubernetes) should wait longer. Default: 60.
    pub timeout: Duration,
}

impl DrainConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        let config = Self {
            delay: seconds(sources, &DELAY_SECONDS)?,
            window: seconds(sources, &WINDOW_SECONDS)?,
            timeout: seconds(sources, &TIMEOUT_SECONDS)?,
        };
        let least = config.delay.saturating_add(config.window);
        if config.timeout <= least {
            return Err(format!(
                "{} is {}, but delay and window alone take {}; set it higher",
                TIMEOUT_SECONDS.variable(),
                config.timeout.as_secs(),
                least.as_secs()
            ));
        }
        Ok(config)
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 3] {
        [self.delay, self.window, self.timeout].map(|time| json!(time.as_secs()))
    }
}

fn seconds(sources: &Sources<'_>, key: &Key) -> Result<Duration> {
    sources
        .value(key, whole(0..=SECONDS_MAX))
        .map(Duration::from_secs)
}
