//! How much one client may ask.

use serde_json::{Value, json};

use super::key::Key;
use super::sources::{Result, Sources, boolean, whole};

const ENABLED: Key = Key::new("rates.enabled").or("true");
const MESSAGES_PER_SECOND: Key = Key::new("rates.messages_per_second").or("20");
const MESSAGES_BURST: Key = Key::new("rates.messages_burst").or("60");

pub(super) const KEYS: [Key; 3] = [ENABLED, MESSAGES_PER_SECOND, MESSAGES_BURST];

#[derive(Clone, Debug)]
pub struct RatesConfig {
    /// `ROOKERY_RATES_ENABLED`: false turns all rates off, with the upgrade bucket and the cap per
    /// address; for load tests. Default: true.
    pub enabled: bool,
    /// `ROOKERY_RATES_MESSAGES_PER_SECOND`: sends of one socket in the long run. Default: 20.
    pub messages_per_second: u32,
    /// `ROOKERY_RATES_MESSAGES_BURST`: sends of one socket at once. Default: 60.
    pub messages_burst: u32,
}

impl RatesConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        Ok(Self {
            enabled: sources.value(&ENABLED, boolean)?,
            messages_per_second: sources.value(&MESSAGES_PER_SECOND, whole(1..=1_000_000))?,
            messages_burst: sources.value(&MESSAGES_BURST, whole(1..=1_000_000))?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 3] {
        [
            json!(self.enabled),
            json!(self.messages_per_second),
            json!(self.messages_burst),
        ]
    }
}
