//! What PostgreSQL holds in the end, as the oracle wants it.

use anyhow::{Context, Result};
use rookery_oracle::FinalState;
use rookery_oracle::state::rows::{memberships_of, messages_of};

use crate::world::World;

/// Reads it, a conversation at a time.
pub(crate) async fn read(world: &World) -> Result<FinalState> {
    let mut state = FinalState::default();
    for room in world.rooms.all() {
        let messages = world.cluster.sql(&messages_of(room)).await;
        let memberships = world.cluster.sql(&memberships_of(room)).await;
        let part = FinalState::of_rows(&messages, &memberships)
            .with_context(|| format!("a row of {room} cannot be read"))?;
        state.messages.extend(part.messages);
        state.memberships.extend(part.memberships);
    }
    Ok(state)
}
