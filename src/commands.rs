//! Stage 2: what a client asked for on its socket. One match, a file per command that has rules of
//! its own to keep; the rules of chat are `chat`'s.
//!
//! In: the bytes of a frame. Out: an event for the same socket, or nothing where the answer comes
//! later (a send is answered once it is stored). Handlers return, the socket's task writes.

mod auth;
mod changes;
mod mark;
mod presence;
mod send_message;
mod sync;
mod typing;
mod watch;

use std::sync::Arc;

pub(crate) use presence::end_watching;
use rookery_protocol::codec::DecodeError;
use rookery_protocol::command::ClientCommand;
use rookery_protocol::event::{ErrorDetail, ErrorEvent, Reply, ServerEvent};
use rookery_protocol::{ConversationId, ErrorCode, Format, validate};
use tokio::sync::oneshot;

use crate::error::AppError;
use crate::gateway::{Bucket, Gateway, Rates, Session};

/// What the socket has to do about a frame.
pub enum Outcome {
    Reply(ServerEvent),
    /// It was no frame of ours: answer, and count it against the client.
    Bad(ServerEvent),
    Nothing,
}

/// Decodes and carries out one frame.
pub async fn frame(
    gateway: &Gateway,
    session: &Arc<Session>,
    bytes: &[u8],
    rates: &mut Rates,
) -> Outcome {
    let command = match ClientCommand::decode(session.format, bytes) {
        Ok(command) => command,
        Err(error) => return Outcome::Bad(ServerEvent::Error(decode_error(error))),
    };
    let reference = command.reference().map(str::to_owned);
    if let Some(Err(detail)) = reference.as_deref().map(validate::reference) {
        let event = AppError::invalid(detail).into_event(None, None);
        return Outcome::Bad(ServerEvent::Error(event));
    }
    if let Some(Err(limited)) = bucket_of(&command).map(|bucket| rates.take(bucket)) {
        return Outcome::Reply(ServerEvent::Error(limited.into_event(reference, None)));
    }
    let result = match command {
        ClientCommand::MessageSend(send) => {
            return send_message::handle(gateway, session, send, rates).await;
        }
        ClientCommand::Auth(auth) => auth::handle(gateway, session, &auth),
        ClientCommand::MessageDelivered(mark) => mark::delivered(gateway, session, &mark).await,
        ClientCommand::MessageRead(mark) => mark::read(gateway, session, &mark).await,
        ClientCommand::Typing(typing) => typing::handle(gateway, session, &typing).await,
        // Boxed: rare, and not to be paid for by every socket's task.
        ClientCommand::ConversationWatch(watch) => {
            Box::pin(watch::begin(gateway, session, watch)).await
        }
        ClientCommand::ConversationUnwatch(watch) => watch::end(gateway, session, watch),
        ClientCommand::PresenceSubscribe(watch) => presence::subscribe(gateway, session, watch),
        ClientCommand::PresenceUnsubscribe(watch) => presence::unsubscribe(gateway, session, watch),
        ClientCommand::PresenceSet(set) => Box::pin(presence::set(gateway, session, set)).await,
        ClientCommand::Sync(sync) => sync::handle(gateway, session, sync),
        ClientCommand::MessageEdit(edit) => changes::edit(gateway, session, edit).await,
        ClientCommand::MessageDelete(delete) => changes::delete(gateway, session, delete).await,
        ClientCommand::ReactionAdd(reaction) => changes::react(gateway, session, reaction).await,
        ClientCommand::ReactionRemove(reaction) => {
            changes::unreact(gateway, session, reaction).await
        }
        ClientCommand::Ping(ping) => Ok(Some(ServerEvent::Pong(Reply {
            reference: ping.reference,
        }))),
    };
    match result {
        Ok(Some(event)) => Outcome::Reply(event),
        Ok(None) => Outcome::Nothing,
        Err(error) => Outcome::Reply(ServerEvent::Error(error.into_event(reference, None))),
    }
}

/// Does what writes to the store in a task of its own, as every transaction is done, and waits for
/// it: a socket that closes meanwhile must not leave what is stored untold.
async fn to_the_end<T>(
    gateway: &Gateway,
    work: impl Future<Output = Result<T, AppError>> + Send + 'static,
) -> Result<T, AppError>
where
    T: Send + 'static,
{
    let (give, done) = oneshot::channel();
    gateway.tasks.spawn("command", async move {
        // The socket may be gone by now.
        give.send(work.await).ok();
    });
    // Dropped at the hard stop only.
    done.await.map_err(|_| AppError::unavailable())?
}

/// Whether the socket's user is a member now. Known without asking for all conversations that the
/// socket is live in.
///
/// # Errors
/// `NOT_FOUND`.
async fn require_member(
    gateway: &Gateway,
    session: &Session,
    id: ConversationId,
) -> Result<(), AppError> {
    if session.positions().get(id).is_some() {
        return Ok(());
    }
    let membership = gateway.store.membership(session.user_id, id).await?;
    match membership {
        Some(membership) if membership.is_present() => Ok(()),
        _ => Err(AppError::not_found()),
    }
}

/// Which bucket a command takes from. A send takes from its own, since its refusal names the
/// message.
fn bucket_of(command: &ClientCommand) -> Option<Bucket> {
    match command {
        ClientCommand::MessageEdit(_)
        | ClientCommand::MessageDelete(_)
        | ClientCommand::ReactionAdd(_)
        | ClientCommand::ReactionRemove(_) => Some(Bucket::Messages),
        ClientCommand::MessageDelivered(_) | ClientCommand::MessageRead(_) => Some(Bucket::Marks),
        ClientCommand::Typing(_) => Some(Bucket::Typing),
        ClientCommand::PresenceSubscribe(_)
        | ClientCommand::PresenceUnsubscribe(_)
        | ClientCommand::PresenceSet(_)
        | ClientCommand::ConversationWatch(_)
        | ClientCommand::ConversationUnwatch(_) => Some(Bucket::Presence),
        ClientCommand::Auth(_)
        | ClientCommand::MessageSend(_)
        | ClientCommand::Sync(_)
        | ClientCommand::Ping(_) => None,
    }
}

/// The answer to a text frame on a MessagePack socket, or a binary one on a JSON socket.
#[must_use]
pub fn wrong_kind(format: Format) -> Outcome {
    let allowed = match format {
        Format::Json => "text frames",
        Format::MsgPack => "binary frames",
    };
    let error = AppError {
        details: vec![ErrorDetail::new("frame", "is of the wrong kind", allowed)],
        ..AppError::new(
            ErrorCode::BadFrame,
            "this subprotocol uses the other kind of frame",
        )
    };
    Outcome::Bad(ServerEvent::Error(error.into_event(None, None)))
}

/// The answer to a frame that could not be decoded.
#[must_use]
pub fn decode_error(error: DecodeError) -> ErrorEvent {
    ErrorEvent {
        reference: error.reference,
        code: error.code,
        message: error.message,
        retryable: false,
        retry_after_ms: None,
        details: error.details,
        message_id: None,
    }
}
