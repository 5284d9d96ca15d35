//! A node that does not take what Redis pushes, until Redis has no more room for it and cuts the node
//! off. Needs a server with the feature `failpoints`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rookery_test_support::{Node, eventually_within};
use tokio::time::{Instant, sleep};

use crate::kinds::{Kind, Part, Victim};
use crate::world::{NODES, World};

/// How long the node's subscriber stands still: too short for a link to be given up.
const STALL: &str = "1*return(wait 2000)";
/// MiB: beyond what Redis keeps for a subscriber by default, and the buffers of both kernels.
const FLOOD: usize = 64;
const OVERFLOWS: &str = "rookery_ingress_breaks_total{reason=\"cut_off\"}";
/// The stall, and the look at what was missed.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How long it is tried: Redis may be away for longer than this fault lasts.
const PATIENCE: Duration = Duration::from_secs(90);
const AGAIN: Duration = Duration::from_millis(500);

pub(crate) const KINDS: &[Kind] = &[Kind {
    name: "receive-queue-overflow",
    what: "one node takes nothing from Redis, and more comes than Redis keeps for it",
    // A node that is down has no queue.
    part: Part::Nodes,
    hold_ms: 0..=1_000,
    begin: |world, victim| Box::pin(overflow(world, victim)),
    heal: |world, victim| Box::pin(flow(world, victim)),
}];

/// Returns when the node has counted that it missed something.
async fn overflow(world: &World, victim: Victim) -> Result<()> {
    let node = world.cluster.node(victim.of(NODES));
    let deadline = Instant::now() + PATIENCE;
    let mut before = None;
    eventually_within(SEEN_WITHIN, async || {
        before = overflows(node).await;
        before.is_some()
    })
    .await;
    let before = before.with_context(|| format!("{} has no metrics", node.name()))?;
    loop {
        node.set_failpoint("bus-drain", STALL).await;
        // What passes on the node's own channel is nobody's message.
        let channel = format!("rookery:v1:node:{}", node.name());
        if let Ok(redis) = world.redis().await
            && redis.flood(&channel, FLOOD).await.is_ok()
            && eventually_within(SEEN_WITHIN, async || overflows(node).await > Some(before)).await
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the queue of {} has not overflowed", node.name());
        }
        sleep(AGAIN).await;
    }
}

async fn overflows(node: &Node) -> Option<f64> {
    let metrics = node.look().await?;
    Some(metrics.get(OVERFLOWS))
}

async fn flow(world: &World, victim: Victim) -> Result<()> {
    let node = world.cluster.node(victim.of(NODES));
    node.set_failpoint("bus-drain", "off").await;
    Ok(())
}
