//! Clients that come and go, read nothing, are logged out, and groups whose members change.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;

use super::nothing;
use crate::device::{Device, Order};
use crate::kinds::{Kind, Part, Victim};
use crate::world::World;

/// Sessions that end at a time.
const REVOKED: usize = 3;
/// A device that reads nothing for longer than its outbox on the node has room for.
const DOZE: Duration = Duration::from_secs(8);

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "client-flap",
        what: "the applications of a third of the devices end and start again with their cursors",
        part: Part::People,
        hold_ms: 1_000..=4_000,
        begin: |world, victim| Box::pin(flap(world, victim, false)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "client-crash",
        what: "the same, without a word to the server",
        part: Part::People,
        hold_ms: 1_000..=4_000,
        begin: |world, victim| Box::pin(flap(world, victim, true)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "reconnect-storm",
        what: "every device leaves and comes back at once",
        part: Part::People,
        hold_ms: 1_000..=2_000,
        begin: |world, _| Box::pin(storm(world)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "slow-reader",
        what: "a few devices read nothing for 8 s with their sockets open",
        part: Part::People,
        hold_ms: 8_000..=9_000,
        begin: |world, victim| Box::pin(doze(world, victim)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "session-revoke",
        what: "sessions are ended from elsewhere; their devices log in anew",
        part: Part::People,
        hold_ms: 1_000..=3_000,
        begin: |world, victim| Box::pin(revoke(world, victim)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "membership-churn",
        what: "members of groups come and go as fast as the server takes it",
        part: Part::People,
        hold_ms: 3_000..=6_000,
        begin: |world, _| Box::pin(churn(world, true)),
        heal: |world, _| Box::pin(churn(world, false)),
    },
];

async fn flap(world: &World, victim: Victim, crash: bool) -> Result<()> {
    for (number, device) in struck(world, victim, 3).enumerate() {
        // Some come back at once, some after a while.
        let away = Duration::from_millis(number as u64 * 150 % 3_000);
        device.order(Order::Restart { away, crash });
    }
    Ok(())
}

async fn storm(world: &World) -> Result<()> {
    for device in &world.devices {
        let away = Duration::ZERO;
        device.order(Order::Restart { away, crash: true });
    }
    Ok(())
}

async fn doze(world: &World, victim: Victim) -> Result<()> {
    struck(world, victim, 8).for_each(|device| device.order(Order::Doze(DOZE)));
    Ok(())
}

async fn revoke(world: &World, victim: Victim) -> Result<()> {
    let some = struck(world, victim, 5).take(REVOKED);
    try_join_all(some.map(Device::revoke)).await.map(drop)
}

async fn churn(world: &World, fast: bool) -> Result<()> {
    world.workload.churn_fast(fast);
    Ok(())
}

/// Every so manieth device, from one that the die chose.
fn struck(world: &World, victim: Victim, every: usize) -> impl Iterator<Item = &Device> {
    let first = victim.of(every.min(world.devices.len()));
    world.devices.iter().skip(first).step_by(every)
}
