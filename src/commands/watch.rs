//! `conversation.watch` and `conversation.unwatch`: what large groups do not send to everybody.

use std::sync::Arc;

use rookery_protocol::command::Watch;
use rookery_protocol::event::{ErrorDetail, Reply, ServerEvent};

use crate::error::AppError;
use crate::gateway::{Gateway, Session, take_seats, tell_group_online};

pub(super) async fn begin(
    gateway: &Gateway,
    session: &Arc<Session>,
    command: Watch,
) -> Result<Option<ServerEvent>, AppError> {
    let id = command.conversation_id;
    super::require_member(gateway, session, id).await?;
    if !session.begin_watch(id) {
        let detail = ErrorDetail::new(
            "conversation_id",
            "is one too many",
            "at most 50 watched conversations a socket",
        );
        return Err(detail.into());
    }
    // To its end: whoever gives up the seat also takes back a request for its channel, which must
    // have been made.
    let (node, socket) = (gateway.clone(), Arc::clone(session));
    let seat = async move {
        take_seats(&node, &socket, &[id]).await;
        Ok(())
    };
    super::to_the_end(gateway, seat).await?;
    gateway.registry.rooms.watch(id, session, true);
    // Beside the socket's task, which must not wait for Redis.
    let (gateway, session) = (gateway.clone(), Arc::clone(session));
    let tasks = gateway.tasks.clone();
    tasks.spawn("group-online", async move {
        tell_group_online(&gateway, &session, id).await;
    });
    Ok(done(command))
}

pub(super) fn end(
    gateway: &Gateway,
    session: &Arc<Session>,
    command: Watch,
) -> Result<Option<ServerEvent>, AppError> {
    let id = command.conversation_id;
    session.end_watch(id);
    // The seat stays: it costs little, and goes with the socket.
    gateway.registry.rooms.watch(id, session, false);
    Ok(done(command))
}

fn done(command: Watch) -> Option<ServerEvent> {
    Some(ServerEvent::Ok(Reply {
        reference: command.reference,
    }))
}
