//! What one node takes on.

use serde_json::{Value, json};

use super::key::Key;
use super::sources::{Result, Sources, whole};

const SOCKETS: Key = Key::new("limits.sockets").or("15000");
const SOCKETS_PER_USER: Key = Key::new("limits.sockets_per_user").or("5");
const SOCKETS_PER_IP: Key = Key::new("limits.sockets_per_ip").or("1000");
const UPGRADES_PER_SECOND: Key = Key::new("limits.upgrades_per_second").or("2000");

pub(super) const KEYS: [Key; 4] = [
    SOCKETS,
    SOCKETS_PER_USER,
    SOCKETS_PER_IP,
    UPGRADES_PER_SECOND,
];

/// More than one process can serve.
const MOST: usize = 1_000_000;

#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// `ROOKERY_LIMITS_SOCKETS`: sockets on this node; more get 503. Default: 15,000, below the
    /// open files of a usual container with room for the database and REST.
    pub sockets: usize,
    /// `ROOKERY_LIMITS_SOCKETS_PER_USER`: sockets of one user on all nodes together; the longest
    /// silent one goes. Default: 5.
    pub sockets_per_user: usize,
    /// `ROOKERY_LIMITS_SOCKETS_PER_IP`: sockets from one address (IPv6: one /64) on this node.
    /// Default: 1,000, since whole offices share one address.
    pub sockets_per_ip: usize,
    /// `ROOKERY_LIMITS_UPGRADES_PER_SECOND`: new sockets a second on this node; more get 503 and
    /// `Retry-After`. Default: 2,000, what a core authenticates with room to serve the others.
    pub upgrades_per_second: u32,
}

impl LimitsConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        Ok(Self {
            sockets: sources.value(&SOCKETS, whole(1..=MOST))?,
            sockets_per_user: sources.value(&SOCKETS_PER_USER, whole(1..=MOST))?,
            sockets_per_ip: sources.value(&SOCKETS_PER_IP, whole(1..=MOST))?,
            upgrades_per_second: sources.value(&UPGRADES_PER_SECOND, whole(1..=1_000_000))?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 4] {
        [
            json!(self.sockets),
            json!(self.sockets_per_user),
            json!(self.sockets_per_ip),
            json!(self.upgrades_per_second),
        ]
    }
}
