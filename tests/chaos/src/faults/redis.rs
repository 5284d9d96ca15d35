//! Redis that dies, forgets, hangs and throws subscribers out.

use anyhow::Result;

use super::nothing;
use crate::kinds::{Kind, Part};
use crate::world::World;

/// Redis' own default, and one that a burst of some hundred messages is too much for.
const OUTPUT_BUFFER: &str = "pubsub 33554432 8388608 60";
const SMALL_OUTPUT_BUFFER: &str = "pubsub 65536 32768 1";

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "redis-restart-empty",
        what: "Redis is killed and comes back at once, with nothing in it",
        part: Part::Redis,
        hold_ms: 0..=300,
        begin: |world, _| Box::pin(kill(world)),
        heal: |world, _| Box::pin(restart(world)),
    },
    Kind {
        name: "redis-down",
        what: "Redis is away for seconds, and empty afterwards",
        part: Part::Redis,
        hold_ms: 3_000..=10_000,
        begin: |world, _| Box::pin(kill(world)),
        heal: |world, _| Box::pin(restart(world)),
    },
    Kind {
        name: "redis-freeze",
        what: "SIGSTOP for Redis: connections stay open and nothing answers",
        part: Part::Redis,
        hold_ms: 2_000..=6_000,
        begin: |world, _| Box::pin(freeze(world)),
        heal: |world, _| Box::pin(thaw(world)),
    },
    Kind {
        name: "redis-flushall",
        what: "FLUSHALL",
        part: Part::Redis,
        hold_ms: 0..=1_000,
        begin: |world, _| Box::pin(flush(world)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "redis-kill-pubsub",
        what: "CLIENT KILL TYPE pubsub: every node loses its subscriber",
        part: Part::Redis,
        hold_ms: 0..=1_000,
        begin: |world, _| Box::pin(kill_subscribers(world)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "redis-client-pause",
        what: "CLIENT PAUSE: commands wait, also those of publishers",
        part: Part::Redis,
        hold_ms: 1_000..=4_000,
        begin: |world, _| Box::pin(pause(world)),
        heal: |world, _| Box::pin(unpause(world)),
    },
    Kind {
        name: "redis-output-buffer",
        what: "subscribers that fall 64 KiB behind are thrown out",
        part: Part::Redis,
        hold_ms: 2_000..=5_000,
        begin: |world, _| Box::pin(limit(world, SMALL_OUTPUT_BUFFER)),
        heal: |world, _| Box::pin(limit(world, OUTPUT_BUFFER)),
    },
];

async fn kill(world: &World) -> Result<()> {
    world.redis().await?.kill().await
}

async fn restart(world: &World) -> Result<()> {
    world.redis().await?.restart().await
}

async fn freeze(world: &World) -> Result<()> {
    world.redis().await?.freeze().await
}

async fn thaw(world: &World) -> Result<()> {
    world.redis().await?.thaw().await
}

async fn flush(world: &World) -> Result<()> {
    world.redis().await?.flushall().await
}

async fn kill_subscribers(world: &World) -> Result<()> {
    cli(world, &["CLIENT", "KILL", "TYPE", "pubsub"]).await
}

async fn pause(world: &World) -> Result<()> {
    // Ends by itself should the healing never come.
    cli(world, &["CLIENT", "PAUSE", "10000", "ALL"]).await
}

async fn unpause(world: &World) -> Result<()> {
    cli(world, &["CLIENT", "UNPAUSE"]).await
}

async fn limit(world: &World, limit: &str) -> Result<()> {
    let command = ["CONFIG", "SET", "client-output-buffer-limit", limit];
    cli(world, &command).await
}

async fn cli(world: &World, command: &[&str]) -> Result<()> {
    world.redis().await?.cli(command).await.map(drop)
}
