//! A second look at where a socket is: for what a look into the journal passed over while the
//! socket was not listening to it, because its base was being read or a sync had its conversations.
//! The journal tells each row once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::{ConversationId, Seq};

use super::Gateway;
use super::open::{Seats, noted, take_seats};
use super::session::Session;
use crate::delivery::Base;
use crate::store::Result;

/// How long to wait after the store did not answer, at first and at the most.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Has delivered what the store has and the socket was not told of: entries, a conversation that it
/// does not know. Tries until the store answers or the socket closes: the socket is well, only what
/// nobody will tell it again may be missing.
pub(crate) async fn recheck(gateway: &Gateway, session: &Arc<Session>) {
    let mut pause = RETRY;
    while !session.outbox.is_closing() {
        match present(gateway, session).await {
            Ok(base) => return deliver(gateway, session, base).await,
            Err(error) => tracing::debug!(%error, "a socket is checked again later"),
        }
        tokio::select! {
            () = gateway.tasks.stopping().cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
        }
    }
}

/// Where the logs end now, read after the socket had its seats in the large conversations: one may
/// have become large meanwhile. `None` if the account is gone.
async fn present(gateway: &Gateway, session: &Arc<Session>) -> Result<Option<Base>> {
    let base = gateway.bases.load(session.user_id).await?;
    match &base {
        Some(Base { rooms, .. }) if take_seats(gateway, session, rooms).await != Seats::Had => {
            gateway.bases.load(session.user_id).await
        }
        _ => Ok(base),
    }
}

async fn deliver(gateway: &Gateway, session: &Session, base: Option<Base>) {
    let ends = base.map(|base| base.ends).unwrap_or_default();
    let ends: HashMap<ConversationId, Seq> = ends.into_iter().collect();
    let behind: Vec<_> = {
        let mut positions = session.positions();
        let mut behind: Vec<_> = positions.behind(&ends).collect();
        let unknown = ends.iter().filter(|(id, _)| positions.get(**id).is_none());
        behind.extend(unknown.map(|(id, end)| (*id, *end)));
        behind
    };
    noted(gateway, session, behind).await;
}
