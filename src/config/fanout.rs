//! How news spreads to the members of a conversation.

use serde_json::{Value, json};

use super::key::Key;
use super::sources::{Result, Sources, whole};

const DIRECT_MAX: Key = Key::new("fanout.direct_max").or("16");
const RECEIPTS_MAX: Key = Key::new("receipts.fanout_max").or("50");

pub(super) const KEYS: [Key; 2] = [DIRECT_MAX, RECEIPTS_MAX];

/// As many as a group may have.
const MEMBERS_MAX: i64 = 10_000;

#[derive(Clone, Copy, Debug)]
pub struct FanoutConfig {
    /// `ROOKERY_FANOUT_DIRECT_MAX`: groups of more members are published once, on a channel of
    /// their own, and not once a member. The same on all nodes. Default: 16.
    pub direct_max: i64,
    /// `ROOKERY_RECEIPTS_FANOUT_MAX`: in groups of more members, receipts and typing go to those
    /// who watch the group, and receipts to the authors concerned. Default: 50.
    pub receipts_max: i64,
}

impl FanoutConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        Ok(Self {
            direct_max: sources.value(&DIRECT_MAX, whole(2..=MEMBERS_MAX))?,
            receipts_max: sources.value(&RECEIPTS_MAX, whole(2..=MEMBERS_MAX))?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 2] {
        [json!(self.direct_max), json!(self.receipts_max)]
    }
}
