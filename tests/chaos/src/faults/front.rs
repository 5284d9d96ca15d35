//! nginx, and the ways to it and from it to the nodes.

use anyhow::Result;
use rookery_test_support::Mode;

use super::nothing;
use crate::kinds::{Kind, Part, Victim};
use crate::world::{NODES, World};

/// A tenth of what the clients of a run take together.
const NARROW: Mode = Mode::Throttle {
    bytes_per_second: 4_096,
};

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "nginx-reload",
        what: "nginx reads its configuration again: new workers take over",
        part: Part::Front,
        hold_ms: 500..=2_000,
        begin: |world, _| Box::pin(reload(world)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "nginx-worker-kill",
        what: "a worker of nginx is killed with all its connections",
        part: Part::Front,
        hold_ms: 500..=2_000,
        begin: |world, _| Box::pin(kill_worker(world)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "client-reset",
        what: "every connection of clients is reset",
        part: Part::Front,
        hold_ms: 500..=2_000,
        begin: |world, _| Box::pin(reset(world)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "client-half-open",
        what: "nothing passes between clients and nginx; then connections are reset",
        part: Part::Front,
        hold_ms: 2_000..=6_000,
        begin: |world, _| Box::pin(front(world, Mode::Blackhole)),
        heal: |world, _| Box::pin(reset(world)),
    },
    Kind {
        name: "client-narrow",
        what: "4 KiB a second for each connection of a client",
        part: Part::Front,
        hold_ms: 3_000..=6_000,
        begin: |world, _| Box::pin(front(world, NARROW)),
        heal: |world, _| Box::pin(front(world, Mode::Pass)),
    },
    Kind {
        name: "node-unreachable",
        what: "nothing passes between nginx and one node, which lives on",
        part: Part::Front,
        hold_ms: 2_000..=8_000,
        begin: |world, victim| Box::pin(inbound(world, victim, Mode::Blackhole)),
        heal: |world, victim| Box::pin(inbound(world, victim, Mode::Pass)),
    },
];

async fn reload(world: &World) -> Result<()> {
    world.cluster.nginx().reload()
}

async fn kill_worker(world: &World) -> Result<()> {
    world.cluster.nginx().kill_worker().await.map(drop)
}

async fn reset(world: &World) -> Result<()> {
    world.cluster.front().heal();
    world.cluster.front().reset();
    Ok(())
}

async fn front(world: &World, mode: Mode) -> Result<()> {
    world.cluster.front().set(mode);
    Ok(())
}

async fn inbound(world: &World, victim: Victim, mode: Mode) -> Result<()> {
    world.cluster.links(victim.of(NODES)).inbound().set(mode);
    Ok(())
}
