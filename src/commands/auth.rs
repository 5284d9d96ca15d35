//! `auth` on a live socket: renews how long it may stay.

use rookery_protocol::command::Auth;
use rookery_protocol::event::{AuthOk, ServerEvent};

use crate::error::AppError;
use crate::gateway::{Gateway, Session};

pub(super) fn handle(
    gateway: &Gateway,
    session: &Session,
    command: &Auth,
) -> Result<Option<ServerEvent>, AppError> {
    let access = gateway.auth.verify(&command.token)?;
    if access.user_id != session.user_id || access.session_id != session.session_id {
        // Another log-in would escape the end of the one this socket belongs to.
        return Err(AppError::unauthenticated(
            "the token belongs to another session",
        ));
    }
    if session.renew(access.expires_at) {
        gateway.registry.announce(session);
    }
    Ok(Some(ServerEvent::AuthOk(AuthOk {
        reference: command.reference.clone(),
        token_expires_at: access.expires_at,
    })))
}
