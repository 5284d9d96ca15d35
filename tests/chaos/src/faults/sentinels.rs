//! Sentinels that make the replica the master. A run with these kinds has three of them, a master
//! and a replica; each node has ways of its own to all five. Between these faults the sentinels are
//! patient, so that any other fault of Redis stays what it is.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rookery_test_support::servers::Sentinels;
use rookery_test_support::servers::sentinel::DOWN_AFTER;
use rookery_test_support::{Mode, Role, eventually_within};

use crate::kinds::{Kind, Part};
use crate::world::{NODES, World};

/// No other fault silences Redis for so long.
pub(crate) const PATIENT: Duration = Duration::from_secs(120);
/// How long nodes have to be where the new master is: longer than they may be down meanwhile.
const FOLLOW_WITHIN: Duration = Duration::from_secs(90);

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "redis-failover",
        what: "sentinels and replica lose the master, which lives on and which all nodes still reach",
        part: Part::Redis,
        hold_ms: 2_000..=5_000,
        begin: |world, _| Box::pin(lose(world, None)),
        heal: |world, _| Box::pin(join(world)),
    },
    Kind {
        name: "redis-failover-split",
        what: "the same, and one node is left alone with the old master, which no other reaches",
        part: Part::Redis,
        hold_ms: 2_000..=5_000,
        begin: |world, victim| Box::pin(lose(world, Some(victim.of(NODES)))),
        heal: |world, _| Box::pin(join(world)),
    },
    Kind {
        name: "redis-failover-asked",
        what: "SENTINEL FAILOVER: the master becomes the replica, with both of them alive",
        part: Part::Redis,
        hold_ms: 0..=1_000,
        begin: |world, _| Box::pin(ask(world)),
        heal: |world, _| Box::pin(join(world)),
    },
];

/// Whether one of these kinds is among them.
pub(crate) fn are_needed(kinds: &[&Kind]) -> bool {
    let is_one = |kind: &&Kind| KINDS.iter().any(|own| own.name == kind.name);
    kinds.iter().any(is_one)
}

fn sentinels(world: &World) -> Result<&Sentinels> {
    world.sentinels.as_ref().context("there are no sentinels")
}

/// Cuts the master off, from all nodes but the one that is to be alone with it, if there is one;
/// returns when the other is the master, and nodes have gone there though the old one lives on.
async fn lose(world: &World, alone: Option<usize>) -> Result<()> {
    let sentinels = sentinels(world)?;
    sentinels.are_ready().await?;
    let old = sentinels.master().await?;
    let new = 1 - old;
    sentinels.way(old).set(Mode::Blackhole);
    for node in alone.iter().flat_map(|_| 0..NODES) {
        let links = world.cluster.links(node);
        if Some(node) == alone {
            links.all_redis()[new].set(Mode::Blackhole);
            links
                .sentinels()
                .iter()
                .for_each(|way| way.set(Mode::Blackhole));
        } else {
            links.all_redis()[old].set(Mode::Blackhole);
        }
    }
    sentinels.set_patience(DOWN_AFTER).await?;
    sentinels.until_master_is(new).await?;
    let role = sentinels.redis(old).cli(&["ROLE"]).await?;
    ensure!(
        role.starts_with("master"),
        "the old master does not live on"
    );
    let free = (0..NODES).filter(|node| Some(*node) != alone);
    follow(world, free, new).await
}

async fn ask(world: &World) -> Result<()> {
    let sentinels = sentinels(world)?;
    sentinels.are_ready().await?;
    let old = sentinels.master().await?;
    sentinels.fail_over().await?;
    sentinels.until_master_is(1 - old).await
}

/// Everything passes again; returns when every node has subscribed to the new master. That the old
/// one has become its replica is waited for by the next failover only.
async fn join(world: &World) -> Result<()> {
    let sentinels = sentinels(world)?;
    heal(world).await?;
    follow(world, 0..NODES, sentinels.master().await?).await
}

async fn follow(world: &World, nodes: impl Iterator<Item = usize>, master: usize) -> Result<()> {
    for node in nodes {
        let way = &world.cluster.links(node).all_redis()[master];
        let follows = async || way.connections_for(Role::Subscriber) > 0;
        if !eventually_within(FOLLOW_WITHIN, follows).await {
            bail!("node {node} has not gone to the new master");
        }
    }
    Ok(())
}

/// Ends what these faults did to links and sentinels.
pub(crate) async fn heal(world: &World) -> Result<()> {
    let Some(sentinels) = &world.sentinels else {
        return Ok(());
    };
    for node in 0..NODES {
        let links = world.cluster.links(node);
        links.all_redis().iter().for_each(|way| way.heal());
        links.sentinels().iter().for_each(|way| way.heal());
    }
    for member in 0..2 {
        sentinels.way(member).heal();
    }
    sentinels.set_patience(PATIENT).await
}
