//! Goes on with fills that found no room in a socket's outbox, as its reader makes some.
//!
//! A fill is read once for all sockets and passed on at once, up to a step of it. For a socket whose
//! outbox is half full it stops there, and the conversation waits ([`Positions::pace`]): news of it are
//! only noted, and nobody else is kept. One task for such a socket waits for room, as a sync does, and
//! has what it lacks read again. A reader that stands still is found by its progress, as ever
//! (`gateway/link.rs`), which ends the wait.
//!
//! [`Positions::pace`]: crate::gateway::Positions::pace

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Behind, Delivery, DeliveryParts, Path, Work};
use crate::gateway::{Push, Session};

/// Conversations of a socket go on together while what they lack comes to so many entries: of these
/// the frames fit, however large they are. One that lacks more goes on alone; a whole step of it is
/// read, of which small messages find room, and what does not is read again.
const ENTRIES: i64 = 64;

/// Held by a fill that somebody waits for; dropped with it.
#[derive(Debug)]
pub(super) struct Paced(#[expect(dead_code, reason = "its end is what tells")] mpsc::Sender<()>);

/// Waits for the socket's room, until nothing of it waits any more.
pub(super) fn start(parts: &DeliveryParts, delivery: &Delivery, session: &Arc<Session>) {
    let (delivery, session) = (delivery.clone(), Arc::clone(session));
    parts.tasks.spawn("paced-fill", async move {
        while session.outbox.room().await != Push::Closed {
            let next = session.positions().go_on(ENTRIES);
            if next.is_empty() {
                return;
            }
            let (paced, mut all_done) = mpsc::channel(1);
            for (conversation_id, target) in next {
                let behind = Behind {
                    conversation_id,
                    users: vec![session.user_id],
                    target,
                    path: Path::Fill,
                };
                let work = Work::GoOn(behind, Paced(paced.clone()));
                delivery
                    .put_patiently(conversation_id.as_bytes(), work)
                    .await;
            }
            drop(paced);
            // One after the other: what one brings may leave no room for the next.
            all_done.recv().await;
        }
    });
}
