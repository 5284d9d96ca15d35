//! `sync`: replays to one socket what it missed, then lets it go live without a hole or a repeat.
//!
//! The plan is made from one read of all memberships. Every conversation to be replayed is handed
//! to this sync ([`crate::gateway::Positions::begin_sync`]): while it reads the store, live entries
//! only raise the target, and the conversation is live again once the target is reached. So nothing
//! is buffered, however much arrives meanwhile. A conversation that is reset is held the same way
//! until `sync.done`, which tells the device of it, is queued.

mod plan;
mod replay;

use std::sync::Arc;
use std::time::Instant;

use rookery_protocol::command::Sync;
use rookery_protocol::event::{ErrorDetail, ServerEvent};
use rookery_protocol::{CloseCode, ConversationId, ErrorCode, limits};
use tracing::Instrument;

use crate::error::AppError;
use crate::gateway::{Gateway, Push, Seats, Session, recheck, take_seats};
use crate::metrics;
use crate::store::{FanoutMode, Membership, StoreError};
use crate::telemetry::SPANS;

/// Why a sync did not come to its end.
enum Stopped {
    /// The socket is closing.
    Gone,
    Store(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub(super) fn handle(
    gateway: &Gateway,
    session: &Arc<Session>,
    command: Sync,
) -> Result<Option<ServerEvent>, AppError> {
    if let Some(cursors) = &command.cursors {
        if cursors.len() > limits::CURSORS_PER_SYNC {
            let allowed = "at most 10,000 conversations";
            return Err(AppError::invalid(ErrorDetail::new(
                "cursors",
                "is too long",
                allowed,
            )));
        }
        if let Some((id, _)) = cursors.iter().find(|(_, seq)| seq.0 < 0) {
            let field = format!("cursors.{id}");
            return Err(AppError::invalid(ErrorDetail::new(
                &field,
                "is negative",
                "0 or more",
            )));
        }
    }
    if !session.begin_sync() {
        return Err(AppError::new(
            ErrorCode::Conflict,
            "a sync is under way on this socket",
        ));
    }
    let (gateway, session) = (gateway.clone(), Arc::clone(session));
    let tasks = gateway.tasks.clone();
    tasks.spawn("sync", async move {
        let reference = command.reference.clone();
        let began = Instant::now();
        let span = tracing::debug_span!(target: SPANS, "sync", connection = session.id);
        match run(&gateway, &session, command).instrument(span).await {
            Ok(()) => metrics::resume_seconds().record(began.elapsed()),
            Err(Stopped::Gone) => {}
            Err(Stopped::Store(error)) => {
                // What was replayed so far is in order; the rest has to be asked for anew, since
                // conversations handed to this sync would stay silent.
                let error = AppError::from(error).into_event(reference, None);
                session.send(&ServerEvent::Error(error));
                session.close(CloseCode::Resynchronise);
            }
        }
    });
    Ok(None)
}

async fn run(gateway: &Gateway, session: &Arc<Session>, command: Sync) -> Result<(), Stopped> {
    let memberships = memberships(gateway, session).await?;
    let plan = plan::make(&memberships, command.cursors.as_ref());
    replay::run(gateway, session, plan, command.reference, command.since).await?;
    // The sync is told to be done, and is not taken back. What a look into the journal passed over
    // while it had the conversations: entries, a return to a conversation that was replayed to its
    // end, one that has become large.
    recheck(gateway, session).await;
    Ok(())
}

/// All memberships, read after the socket had its seats in the large conversations among them.
async fn memberships(
    gateway: &Gateway,
    session: &Arc<Session>,
) -> Result<Vec<Membership>, StoreError> {
    let user = [session.user_id];
    let memberships = gateway.store.memberships_of(&user).await?;
    let large = |m: &&Membership| m.is_present() && m.fanout == FanoutMode::Channel;
    let rooms = memberships.iter().filter(large);
    let rooms: Vec<ConversationId> = rooms.map(|m| m.conversation_id).collect();
    if take_seats(gateway, session, &rooms).await != Seats::Had {
        return gateway.store.memberships_of(&user).await;
    }
    Ok(memberships)
}

/// Queues an event at the pace of the reader.
async fn tell(session: &Session, event: &ServerEvent) -> Result<(), Stopped> {
    let Some(frame) = crate::gateway::Frame::encode(session.format, event) else {
        return Ok(());
    };
    match session.outbox.push_paced(frame).await {
        Push::Queued | Push::Shed => Ok(()),
        Push::Closed => Err(Stopped::Gone),
    }
}
