//! Nodes that die, hang and leave.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::nothing;
use crate::kinds::{Kind, Part, Victim};
use crate::world::{NODES, World};

/// How long a node is started again and again: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(90);
const AGAIN: Duration = Duration::from_millis(500);

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "node-kill",
        what: "SIGKILL for one node, which comes back some time later",
        part: Part::Nodes,
        hold_ms: 300..=4_000,
        begin: |world, victim| Box::pin(kill(world, victim)),
        heal: |world, victim| Box::pin(restart(world, victim)),
    },
    Kind {
        name: "node-pause-2s",
        what: "SIGSTOP for one node: its connections stay open and nothing answers",
        part: Part::Nodes,
        hold_ms: 2_000..=2_000,
        begin: |world, victim| Box::pin(pause(world, victim)),
        heal: |world, victim| Box::pin(resume(world, victim)),
    },
    Kind {
        name: "node-pause-10s",
        what: "the same for so long that others take it for dead",
        part: Part::Nodes,
        hold_ms: 10_000..=10_000,
        begin: |world, victim| Box::pin(pause(world, victim)),
        heal: |world, victim| Box::pin(resume(world, victim)),
    },
    Kind {
        name: "node-terminate",
        what: "SIGTERM for one node, which drains, ends with code 0 and comes back",
        part: Part::Nodes,
        hold_ms: 300..=2_000,
        begin: |world, victim| Box::pin(terminate(world, victim)),
        heal: |world, victim| Box::pin(restart(world, victim)),
    },
    Kind {
        name: "rolling-restart",
        what: "each node in turn drains, ends and is back before the next one does",
        part: Part::Nodes,
        hold_ms: 0..=500,
        begin: |world, victim| Box::pin(roll(world, victim)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
];

async fn kill(world: &World, victim: Victim) -> Result<()> {
    world.cluster.node(victim.of(NODES)).kill().await;
    Ok(())
}

/// Until it is ready, as a supervisor does: a node that finds no database ends.
pub(super) async fn restart(world: &World, victim: Victim) -> Result<()> {
    let node = world.cluster.node(victim.of(NODES));
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = node.try_restart().await {
        if Instant::now() > deadline {
            return Err(error);
        }
        sleep(AGAIN).await;
    }
    Ok(())
}

async fn pause(world: &World, victim: Victim) -> Result<()> {
    world.cluster.node(victim.of(NODES)).pause().await;
    Ok(())
}

async fn resume(world: &World, victim: Victim) -> Result<()> {
    world.cluster.node(victim.of(NODES)).resume().await;
    Ok(())
}

async fn terminate(world: &World, victim: Victim) -> Result<()> {
    let node = world.cluster.node(victim.of(NODES));
    let code = node.stop().await;
    ensure!(code == 0, "{} left with exit code {code}", node.name());
    Ok(())
}

async fn roll(world: &World, first: Victim) -> Result<()> {
    for number in 0..NODES {
        let victim = Victim(first.0.wrapping_add(number as u32) % NODES as u32);
        terminate(world, victim).await?;
        restart(world, victim).await?;
    }
    Ok(())
}
