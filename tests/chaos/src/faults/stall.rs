//! A node that does not take what Redis pushes, until Redis has no more room for it and cuts the node
//! off. Needs a server with the feature `failpoints`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rookery_test_support::servers::Redis;
use rookery_test_support::{Node, eventually_within};
use tokio::time::{Instant, sleep};

use crate::kinds::{Kind, Part, Victim};
use crate::world::{NODES, World};

/// How long the node's subscriber stands still: too short for a link to be given up.
const STALL: &str = "1*return(wait 1500)";
/// Bytes that Redis keeps for a subscriber meanwhile, and otherwise.
const LIMIT: u64 = 4 << 20;
const USUAL_LIMIT: u64 = 32 << 20;
/// MiB: beyond that limit, and what the kernels on both sides of the proxy and it itself may hold.
const FLOOD: usize = 128;
/// MiB at a time, after which is seen whether somebody was cut off.
const WAVE: usize = 8;
const CUT_OFF: &str = "rookery_ingress_breaks_total{reason=\"cut_off\"}";
/// The stall, and the look at what was missed.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How long it is tried: Redis may be away for longer than this fault lasts.
const PATIENCE: Duration = Duration::from_secs(90);
const AGAIN: Duration = Duration::from_millis(500);

pub(crate) const KINDS: &[Kind] = &[Kind {
    name: "subscriber-stall",
    what: "one node takes nothing from Redis, and more comes than Redis keeps for it",
    // A node that is down is sent nothing.
    part: Part::Nodes,
    hold_ms: 0..=1_000,
    begin: |world, victim| Box::pin(stall(world, victim)),
    heal: |world, victim| Box::pin(flow(world, victim)),
}];

/// Returns when the node has counted that it missed something.
async fn stall(world: &World, victim: Victim) -> Result<()> {
    let node = world.cluster.node(victim.of(NODES));
    let deadline = Instant::now() + PATIENCE;
    let mut before = None;
    eventually_within(SEEN_WITHIN, async || {
        before = cut_offs(node).await;
        before.is_some()
    })
    .await;
    let before = before.with_context(|| format!("{} has no metrics", node.name()))?;
    loop {
        node.set_failpoint("bus-received", STALL).await;
        if let Ok(redis) = world.redis().await
            && matches!(flood(redis, node).await, Ok(true))
            && eventually_within(SEEN_WITHIN, async || cut_offs(node).await > Some(before)).await
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} was not cut off", node.name());
        }
        sleep(AGAIN).await;
    }
}

/// Whether Redis cut somebody off for being behind.
async fn flood(redis: &Redis, node: &Node) -> Result<bool> {
    redis.limit_subscribers(LIMIT).await?;
    // What passes on the node's own channel is nobody's message.
    let channel = format!("rookery:v1:node:{}", node.name());
    let before = redis.subscribers().await?;
    for _ in 0..FLOOD / WAVE {
        redis.flood(&channel, WAVE).await?;
        if !before.is_subset(&redis.subscribers().await?) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn cut_offs(node: &Node) -> Option<f64> {
    let metrics = node.look().await?;
    Some(metrics.get(CUT_OFF))
}

async fn flow(world: &World, victim: Victim) -> Result<()> {
    let node = world.cluster.node(victim.of(NODES));
    node.set_failpoint("bus-received", "off").await;
    for redis in world.all_redis() {
        // One that is away comes back with the usual limit.
        redis.limit_subscribers(USUAL_LIMIT).await.ok();
    }
    Ok(())
}
