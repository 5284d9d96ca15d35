//! PostgreSQL that dies, drops connections, holds locks, is far away, and keeps a commit's answer.

use std::time::Duration;

use anyhow::Result;
use rookery_test_support::Mode;

use super::nothing;
use crate::kinds::{Kind, Part, Victim};
use crate::world::{NODES, World};

/// Commits of one node whose answers are lost in a row.
const LOST_COMMITS: usize = 3;
/// To PostgreSQL and back, as to another data centre.
const FAR_AWAY: Mode = Mode::Delay {
    fixed: Duration::from_millis(40),
    jitter: Duration::from_millis(40),
};

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "pg-restart",
        what: "PostgreSQL crashes and comes back at once",
        part: Part::Postgres,
        hold_ms: 0..=500,
        begin: |world, _| Box::pin(stop(world)),
        heal: |world, _| Box::pin(start(world)),
    },
    Kind {
        name: "pg-down-10s",
        what: "PostgreSQL crashes and is away for 10 s",
        part: Part::Postgres,
        hold_ms: 10_000..=10_000,
        begin: |world, _| Box::pin(stop(world)),
        heal: |world, _| Box::pin(start(world)),
    },
    Kind {
        name: "pg-terminate-backends",
        what: "every connection to PostgreSQL is cut by an administrator",
        part: Part::Postgres,
        hold_ms: 0..=1_000,
        begin: |world, _| Box::pin(terminate(world)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "pg-cut-at-commit",
        what: "one node's connections are cut with a commit on its way, whose answer is lost",
        part: Part::Postgres,
        hold_ms: 500..=2_000,
        begin: |world, victim| Box::pin(lose_commits(world, victim)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "pg-lock-row-5s",
        what: "somebody holds the lock of one conversation for 5 s",
        part: Part::Postgres,
        hold_ms: 0..=500,
        begin: |world, victim| Box::pin(hold_row(world, victim)),
        heal: |world, victim| Box::pin(nothing(world, victim)),
    },
    Kind {
        name: "pg-latency",
        what: "40 to 80 ms more between all nodes and PostgreSQL, each way",
        part: Part::Postgres,
        hold_ms: 3_000..=6_000,
        begin: |world, _| Box::pin(distance(world, FAR_AWAY)),
        heal: |world, _| Box::pin(distance(world, Mode::Pass)),
    },
];

async fn stop(world: &World) -> Result<()> {
    world.cluster.postgres().stop_immediate().await
}

async fn start(world: &World) -> Result<()> {
    world.cluster.postgres().restart().await
}

async fn terminate(world: &World) -> Result<()> {
    let others = "select pg_terminate_backend(pid) from pg_stat_activity \
                  where datname = current_database() and pid <> pg_backend_pid()";
    world.cluster.sql(others).await;
    Ok(())
}

async fn lose_commits(world: &World, victim: Victim) -> Result<()> {
    let link = world.cluster.links(victim.of(NODES)).postgres();
    link.lose_answers(LOST_COMMITS);
    Ok(())
}

async fn hold_row(world: &World, victim: Victim) -> Result<()> {
    let room = world.rooms.any(victim.0);
    let lock = format!(
        "select 1 from conversation_heads where conversation_id = '{room}' for update; \
         select pg_sleep(5)"
    );
    world.cluster.sql(&lock).await;
    Ok(())
}

async fn distance(world: &World, mode: Mode) -> Result<()> {
    for node in 0..NODES {
        world.cluster.links(node).postgres().set(mode);
    }
    Ok(())
}
