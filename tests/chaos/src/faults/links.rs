//! Links to Redis that break, fall silent, and lose, double and delay messages.

use std::time::Duration;

use anyhow::Result;
use rookery_test_support::{Mode, Pushes, RedisProxy, Role};

use super::nothing;
use crate::kinds::{Kind, Part, Victim};
use crate::world::{NODES, World};

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "redis-sub-reset",
        what: "the subscriber connection of one node is reset",
        part: Part::Redis,
        hold_ms: 0..=1_000,
        begin: |world, victim| Box::pin(reset(world, victim)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "redis-sub-blackhole",
        what: "nothing passes on the subscriber connection of one node, and nobody is told",
        part: Part::Redis,
        hold_ms: 2_000..=8_000,
        begin: |world, victim| Box::pin(silence(world, victim, Role::Subscriber)),
        heal: |world, victim| Box::pin(heal(world, victim)),
    },
    Kind {
        name: "redis-pub-blackhole",
        what: "nothing passes on the publisher connection of one node, and nobody is told",
        part: Part::Redis,
        hold_ms: 2_000..=8_000,
        begin: |world, victim| Box::pin(silence(world, victim, Role::Publisher)),
        heal: |world, victim| Box::pin(heal(world, victim)),
    },
    Kind {
        name: "redis-pushes-dropped",
        what: "every tenth message from Redis to any node is lost",
        part: Part::Redis,
        hold_ms: 2_000..=6_000,
        begin: |world, victim| Box::pin(spoil(world, victim, DROPPED)),
        heal: |world, victim| Box::pin(spoil(world, victim, Pushes::default())),
    },
    Kind {
        name: "redis-pushes-doubled",
        what: "every fifth message from Redis to any node comes twice",
        part: Part::Redis,
        hold_ms: 2_000..=5_000,
        begin: |world, victim| Box::pin(spoil(world, victim, DOUBLED)),
        heal: |world, victim| Box::pin(spoil(world, victim, Pushes::default())),
    },
    Kind {
        name: "redis-pushes-delayed",
        what: "every third message from Redis comes up to 300 ms late, others overtake it",
        part: Part::Redis,
        hold_ms: 2_000..=5_000,
        begin: |world, victim| Box::pin(spoil(world, victim, DELAYED)),
        heal: |world, victim| Box::pin(spoil(world, victim, Pushes::default())),
    },
    Kind {
        name: "redis-pushes-reordered",
        what: "every fifth message from Redis swaps places with the next",
        part: Part::Redis,
        hold_ms: 2_000..=5_000,
        begin: |world, victim| Box::pin(spoil(world, victim, REORDERED)),
        heal: |world, victim| Box::pin(spoil(world, victim, Pushes::default())),
    },
];

/// Nothing but one of the shares is set in each.
const NONE: Pushes = Pushes {
    lost: 0.0,
    doubled: 0.0,
    reordered: 0.0,
    delayed: 0.0,
    longest_delay: Duration::ZERO,
};
const DROPPED: Pushes = Pushes { lost: 0.1, ..NONE };
const DOUBLED: Pushes = Pushes {
    doubled: 0.2,
    ..NONE
};
const REORDERED: Pushes = Pushes {
    reordered: 0.2,
    ..NONE
};
const DELAYED: Pushes = Pushes {
    delayed: 0.33,
    longest_delay: Duration::from_millis(300),
    ..NONE
};

/// To each Redis that may be the master.
fn links(world: &World, victim: Victim) -> &[RedisProxy] {
    world.cluster.links(victim.of(NODES)).all_redis()
}

async fn reset(world: &World, victim: Victim) -> Result<()> {
    for link in links(world, victim) {
        link.reset_for(Role::Subscriber);
    }
    Ok(())
}

async fn silence(world: &World, victim: Victim, role: Role) -> Result<()> {
    for link in links(world, victim) {
        link.set_for(role, Mode::Blackhole);
    }
    Ok(())
}

async fn heal(world: &World, victim: Victim) -> Result<()> {
    for link in links(world, victim) {
        link.heal();
    }
    Ok(())
}

async fn spoil(world: &World, victim: Victim, shares: Pushes) -> Result<()> {
    for node in 0..NODES {
        let seed = u64::from(victim.0) + node as u64;
        for link in world.cluster.links(node).all_redis() {
            link.set_pushes(shares, seed);
        }
    }
    Ok(())
}
