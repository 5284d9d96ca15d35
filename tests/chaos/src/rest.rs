//! After the faults: everything is healed, and then all has to arrive.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rookery_protocol::{ConversationId, Seq, UserId};
use rookery_test_support::Pushes;
use tokio::time::{Instant, sleep};

use crate::device::Device;
use crate::faults::sentinels;
use crate::measure::Measure;
use crate::world::{NODES, World};

/// How long nothing may move, once nothing is broken, before what is missing counts as lost: far
/// beyond every bound.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks; two that see the same say that nothing moves any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Offenders that are named.
const NAMED: usize = 5;

/// The highest entry that each member has to be shown.
pub(crate) type Owed = HashMap<(UserId, ConversationId), Seq>;

/// Brings back what a fault that went wrong may have left broken.
pub(crate) async fn heal(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    cluster.front().heal();
    for node in 0..NODES {
        let links = cluster.links(node);
        links.inbound().heal();
        links.postgres().heal();
        for redis in links.all_redis() {
            redis.heal();
            redis.set_pushes(Pushes::default(), 0);
        }
    }
    let postgres = cluster.postgres();
    if postgres.sql(cluster.database(), "select 1").await.is_err() {
        postgres.restart().await?;
    }
    for redis in world.all_redis() {
        if redis.cli(&["PING"]).await.is_err() {
            redis.restart().await?;
        }
    }
    sentinels::heal(world).await?;
    for node in cluster.nodes() {
        if !node.is_ready().await {
            node.restart().await;
        }
    }
    if let Some(annex) = &world.annex {
        annex.heal().await?;
    }
    Ok(())
}

/// What is to come to rest.
#[derive(Clone, Copy)]
pub(crate) struct Restless<'a> {
    pub(crate) devices: &'a [Device],
    pub(crate) measure: &'a Measure,
}

/// The cluster.
pub(crate) async fn settle(world: &World) -> Result<(Duration, Vec<String>)> {
    let who = Restless {
        devices: &world.devices,
        measure: &world.measure,
    };
    let owed = async || owed(&world.cluster.sql(OWED).await);
    settle_until(who, owed).await
}

/// Waits until nothing is under way; how long that took, and what never came to rest.
pub(crate) async fn settle_until(
    who: Restless<'_>,
    owed: impl AsyncFn() -> Result<Owed>,
) -> Result<(Duration, Vec<String>)> {
    let began = Instant::now();
    let (mut before, mut moved) = (Owed::new(), began);
    let mut progress = who.measure.progress();
    loop {
        let owed = owed().await?;
        let restless = restless(who.devices, &owed);
        let is_stuck = moved.elapsed() > PATIENCE;
        if (restless.is_empty() && owed == before) || is_stuck {
            return Ok((began.elapsed(), restless));
        }
        // A machine that is too slow for the rate has much to make up for: that is no loss.
        let now = who.measure.progress();
        if owed != before || now != progress {
            moved = Instant::now();
        }
        (before, progress) = (owed, now);
        if let Some(first) = restless.first() {
            eprintln!("coming to rest for {:?}: {first}", began.elapsed());
        }
        sleep(LOOK_EVERY).await;
    }
}

fn restless(devices: &[Device], owed: &Owed) -> Vec<String> {
    let mut all = Vec::new();
    for device in devices {
        let (name, seen) = (&device.name, &device.seen);
        if seen.unsettled() > 0 {
            all.push(format!("{name} has {} sends unacked", seen.unsettled()));
        }
        if !seen.is_in_step() {
            all.push(format!("{name} is not connected, or has not caught up"));
        }
        if let Some(since) = seen.revoked_since() {
            let since = since.elapsed();
            all.push(format!(
                "{name} was logged out {since:?} ago and is connected"
            ));
        }
        let behind = owed.iter().find(|((user, room), seq)| {
            *user == device.account.id() && seen.highest(*room) < **seq
        });
        if let Some(((_, room), seq)) = behind {
            all.push(format!(
                "{name} has {room} up to {}, and not {seq}",
                seen.highest(*room)
            ));
        }
    }
    let more = all.len().saturating_sub(NAMED);
    if more > 0 {
        all.truncate(NAMED);
        all.push(format!("and {more} more"));
    }
    all
}

/// System messages come as other events, too, and are left to the oracle.
const OWED: &str = "select user_id, conversation_id, max(seq) from members \
                    join messages using (conversation_id) \
                    where left_seq is null and seq > joined_seq and kind <> 'system' \
                    group by user_id, conversation_id";

/// From the rows of such a statement.
pub(crate) fn owed(rows: &str) -> Result<Owed> {
    let row = |line: &str| {
        let mut columns = line.split('|');
        let mut next = || columns.next().context("a column is missing");
        let (user, room): (UserId, ConversationId) = (next()?.parse()?, next()?.parse()?);
        anyhow::Ok(((user, room), Seq(next()?.parse()?)))
    };
    rows.lines().map(row).collect()
}
