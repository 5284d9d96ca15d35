//! A change of the key that signs tokens, in the order that `docs/OPERATIONS.md` gives.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rookery_protocol::ErrorCode;
use tokio::time::{Instant, sleep};

use crate::device::Order;
use crate::keys::{self, Change};
use crate::kinds::{Kind, Part, Victim};
use crate::people::patiently;
use crate::world::World;

/// How long people have to get tokens of the new key: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(2);

pub(crate) const KINDS: &[Kind] = &[Kind {
    name: "keys-change",
    what: "nodes accept a new key, sign with it, and refuse the old one when nobody has tokens of it",
    // Nodes that are down cannot be told.
    part: Part::Nodes,
    hold_ms: 500..=2_000,
    begin: |world, victim| Box::pin(change(world, victim)),
    heal: |world, _| Box::pin(forget(world)),
}];

/// The new key is accepted, and then signs. Every node takes what any other one signed.
async fn change(world: &World, victim: Victim) -> Result<()> {
    let account = &world.accounts[victim.of(world.accounts.len())];
    let nodes = world.cluster.nodes();
    let old = account.log_in_at(&nodes[0].api()).await?.access_token;
    keys::tell(world, keys::Keys::accept_next).await?;
    keys::tell(world, keys::Keys::sign_with_next).await?;
    let mut tokens = vec![old.clone()];
    for node in nodes {
        tokens.push(account.log_in_at(&node.api()).await?.access_token);
    }
    let new_head = keys::head(&tokens[1]).to_owned();
    let agree = tokens[1..].iter().all(|new| keys::head(new) == new_head);
    ensure!(agree, "nodes sign with different keys");
    ensure!(new_head != keys::head(&old), "the old key signs");
    for node in nodes {
        for token in &tokens {
            let api = node.api().with_token(token);
            let taken = patiently(|| api.me()).await;
            taken.with_context(|| format!("{} refuses a token", node.name()))?;
        }
    }
    world.keys.set_change(Change {
        old_token: old,
        new_head,
    });
    Ok(())
}

/// Waits until nobody has a token of the old key, as a quarter of an hour would have it, and drops
/// that key.
async fn forget(world: &World) -> Result<()> {
    let Some(change) = world.keys.take_change() else {
        return Ok(());
    };
    let deadline = Instant::now() + PATIENCE;
    while let Some(behind) = renew_all(world, &change.new_head).await? {
        if Instant::now() > deadline {
            bail!("{behind} has no token of the new key");
        }
        sleep(AGAIN).await;
    }
    keys::tell(world, keys::Keys::forget_old).await?;
    for node in world.cluster.nodes() {
        let api = node.api().with_token(&change.old_token);
        let refused = patiently(|| api.me()).await;
        let is_refused = refused.is_err_and(|error| error.code == ErrorCode::Unauthenticated);
        ensure!(is_refused, "{} takes a token of the old key", node.name());
    }
    Ok(())
}

/// Has everybody get new tokens whose own are of another key; one of those who had to.
async fn renew_all(world: &World, head: &str) -> Result<Option<String>> {
    let mut behind = None;
    for account in &world.accounts {
        account.renew_unless(head).await?;
    }
    for device in &world.devices {
        if device.seen.token_head() != head {
            device.order(Order::RenewUnless(head.to_owned()));
            behind = Some(device.name.clone());
        }
    }
    Ok(behind)
}
