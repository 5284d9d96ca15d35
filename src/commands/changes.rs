//! `message.edit`, `message.delete`, `reaction.add` and `reaction.remove`: answered with `ok` once
//! they are stored.
//!
//! The socket's task waits for each of them. So what one device changes is changed in the order in
//! which it asked (two edits of a message must not change places), and a device that floods the
//! server with reactions occupies one database connection, not all. What it sends meanwhile waits
//! in the kernel, for some milliseconds; longer only while somebody else holds the conversation,
//! and not beyond the database's lock time-out. The outcome does not depend on sends that are not
//! acked yet: the `seq` that a change names is known from an ack.

use rookery_protocol::command::{MessageDelete, MessageEdit, ReactionChange};
use rookery_protocol::event::{Reply, ServerEvent};

use crate::error::AppError;
use crate::gateway::{Gateway, Session};

type Answer = Result<Option<ServerEvent>, AppError>;

pub(super) async fn edit(gateway: &Gateway, session: &Session, command: MessageEdit) -> Answer {
    let (id, seq) = (command.conversation_id, command.seq);
    let edited = gateway
        .messages
        .edit(session.user_id, id, seq, command.content);
    edited.await?;
    ok(command.reference)
}

pub(super) async fn delete(
    gateway: &Gateway,
    session: &Session,
    command: &MessageDelete,
) -> Answer {
    let (id, seq) = (command.conversation_id, command.seq);
    let deleted = gateway.messages.delete(session.user_id, id, seq);
    deleted.await?;
    ok(command.reference.clone())
}

pub(super) async fn react(
    gateway: &Gateway,
    session: &Session,
    command: &ReactionChange,
) -> Answer {
    let (id, seq) = (command.conversation_id, command.seq);
    let added = gateway
        .messages
        .react(session.user_id, id, seq, &command.emoji);
    added.await?;
    ok(command.reference.clone())
}

pub(super) async fn unreact(
    gateway: &Gateway,
    session: &Session,
    command: &ReactionChange,
) -> Answer {
    let (id, seq) = (command.conversation_id, command.seq);
    let removed = gateway
        .messages
        .unreact(session.user_id, id, seq, &command.emoji);
    removed.await?;
    ok(command.reference.clone())
}

fn ok(reference: Option<String>) -> Answer {
    Ok(Some(ServerEvent::Ok(Reply { reference })))
}
