//! `message.edit`, `message.delete`, `reaction.add` and `reaction.remove`: answered with `ok` once
//! they are stored.
//!
//! The socket's next command waits for each of them. So what one device changes is changed in the
//! order in which it asked (two edits of a message must not change places), and a device that floods
//! the server with reactions occupies one database connection, not all. What it sends meanwhile
//! waits in the kernel, for some milliseconds; longer only while somebody else holds the
//! conversation, and not beyond the database's lock time-out. What others tell it goes on being
//! written. The outcome does not depend on sends that are not acked yet: the `seq` that a change
//! names is known from an ack.

use std::sync::Arc;

use rookery_protocol::command::{MessageDelete, MessageEdit, ReactionChange};
use rookery_protocol::event::{Reply, ServerEvent};
use rookery_protocol::message::Message;

use super::to_the_end;
use crate::chat::messages::Messages;
use crate::error::AppError;
use crate::gateway::{Gateway, Session};

type Answer = Result<Option<ServerEvent>, AppError>;

pub(super) async fn edit(gateway: &Gateway, session: &Session, command: MessageEdit) -> Answer {
    let (user, id, seq) = (session.user_id, command.conversation_id, command.seq);
    let change =
        async move |messages: Arc<Messages>| messages.edit(user, id, seq, command.content).await;
    make(gateway, command.reference, change).await
}

pub(super) async fn delete(gateway: &Gateway, session: &Session, command: MessageDelete) -> Answer {
    let (user, id, seq) = (session.user_id, command.conversation_id, command.seq);
    let change = async move |messages: Arc<Messages>| messages.delete(user, id, seq).await;
    make(gateway, command.reference, change).await
}

pub(super) async fn react(gateway: &Gateway, session: &Session, command: ReactionChange) -> Answer {
    let (user, id, seq) = (session.user_id, command.conversation_id, command.seq);
    let change =
        async move |messages: Arc<Messages>| messages.react(user, id, seq, &command.emoji).await;
    make(gateway, command.reference, change).await
}

pub(super) async fn unreact(
    gateway: &Gateway,
    session: &Session,
    command: ReactionChange,
) -> Answer {
    let (user, id, seq) = (session.user_id, command.conversation_id, command.seq);
    let change =
        async move |messages: Arc<Messages>| messages.unreact(user, id, seq, &command.emoji).await;
    make(gateway, command.reference, change).await
}

/// Makes a change, to its end whatever becomes of the socket.
async fn make<F>(
    gateway: &Gateway,
    reference: Option<String>,
    change: impl FnOnce(Arc<Messages>) -> F,
) -> Answer
where
    F: Future<Output = Result<Message, AppError>> + Send + 'static,
{
    to_the_end(gateway, change(Arc::clone(&gateway.messages))).await?;
    Ok(Some(ServerEvent::Ok(Reply { reference })))
}
