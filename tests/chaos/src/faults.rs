//! What breaks, and how it is healed: a file for each family, each with its rows of the table.

pub(crate) mod annex;
pub(crate) mod clocks;
pub(crate) mod code;
pub(crate) mod front;
pub(crate) mod keys;
pub(crate) mod links;
pub(crate) mod nodes;
pub(crate) mod people;
pub(crate) mod postgres;
pub(crate) mod races;
pub(crate) mod redis;
pub(crate) mod sentinels;
pub(crate) mod set_back;
pub(crate) mod stall;

use anyhow::Result;

use crate::kinds::Victim;
use crate::world::World;

/// For faults that heal by themselves.
async fn nothing(_: &World, _: Victim) -> Result<()> {
    Ok(())
}
