//! Nodes that die at the seams of their own code. Needs a server with the feature `failpoints`.

use anyhow::Result;

use super::nodes::restart;
use crate::kinds::{Kind, Part, Victim};
use crate::world::{NODES, World};

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "crash-before-commit",
        what: "a node dies with a batch of sends written and not committed",
        part: Part::Nodes,
        hold_ms: 500..=2_500,
        begin: |world, victim| Box::pin(die_at(world, victim, "before-commit")),
        heal: |world, victim| Box::pin(restart(world, victim)),
    },
    Kind {
        name: "crash-after-commit",
        what: "a node dies with a batch committed, nobody acked and nobody told",
        part: Part::Nodes,
        hold_ms: 500..=2_500,
        begin: |world, victim| Box::pin(die_at(world, victim, "after-commit")),
        heal: |world, victim| Box::pin(restart(world, victim)),
    },
    Kind {
        name: "crash-before-publish",
        what: "a node dies with senders acked and nothing published",
        part: Part::Nodes,
        hold_ms: 500..=2_500,
        begin: |world, victim| Box::pin(die_at(world, victim, "before-publish")),
        heal: |world, victim| Box::pin(restart(world, victim)),
    },
];

/// At the next passage; should nothing come by, the healing kills it.
async fn die_at(world: &World, victim: Victim, seam: &str) -> Result<()> {
    let node = world.cluster.node(victim.of(NODES));
    node.set_failpoint(seam, "1*return(die)").await;
    Ok(())
}
