//! `typing`: told to the others and forgotten; no answer unless it fails.

use rookery_protocol::command::Typing;
use rookery_protocol::event::ServerEvent;

use crate::error::AppError;
use crate::gateway::{Gateway, Session};

pub(super) async fn handle(
    gateway: &Gateway,
    session: &Session,
    command: &Typing,
) -> Result<Option<ServerEvent>, AppError> {
    let id = command.conversation_id;
    super::require_member(gateway, session, id).await?;
    let everybody_max = gateway.options.receipts_max;
    gateway
        .fanout
        .typing(id, session.user_id, command.active, everybody_max)
        .await?;
    Ok(None)
}
