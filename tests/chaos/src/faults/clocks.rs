//! A node whose clock is wrong. Needs libfaketime.
//!
//! Access tokens are good by the clock of the node that sees them. So while this is on, such a node
//! refuses those of the others and they refuse its own: devices get new tokens, and log in anew when
//! those are refused, too. Such refusals are counted apart, see [`crate::measure`]; nothing else is
//! forgiven.

use anyhow::Result;

use super::nodes::restart;
use crate::kinds::{Kind, Part, Victim};
use crate::world::{NODES, World};

pub(crate) const NAME: &str = "clock-skew";
/// Longer than an access token lives.
const HOUR: i64 = 3_600;

pub(crate) const KINDS: &[Kind] = &[Kind {
    name: NAME,
    what: "a node comes back with its clock an hour ahead or behind, and later with the right one",
    part: Part::Nodes,
    hold_ms: 4_000..=8_000,
    begin: |world, victim| Box::pin(start_with(world, victim, off(victim))),
    heal: |world, victim| Box::pin(start_with(world, victim, 0)),
}];

/// Either way, for each of the nodes.
fn off(victim: Victim) -> i64 {
    let node_and_way = victim.of(2 * NODES);
    if node_and_way < NODES { HOUR } else { -HOUR }
}

async fn start_with(world: &World, victim: Victim, seconds: i64) -> Result<()> {
    let node = world.cluster.node(victim.of(NODES));
    node.set_clock(seconds).await?;
    restart(world, victim).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_turn_in_both_ways() {
        let mut turns: Vec<(usize, i64)> = (0..6)
            .map(|die| (Victim(die).of(NODES), off(Victim(die))))
            .collect();
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), 2 * NODES);
    }
}
