//! `message.delivered` and `message.read`: no answer unless they fail.

use rookery_protocol::command::Mark;
use rookery_protocol::event::ServerEvent;

use crate::error::AppError;
use crate::gateway::{Gateway, Session};
use crate::store::MarkKind;

pub(super) async fn delivered(
    gateway: &Gateway,
    session: &Session,
    mark: &Mark,
) -> Result<Option<ServerEvent>, AppError> {
    raise(gateway, session, mark, MarkKind::Delivered).await
}

pub(super) async fn read(
    gateway: &Gateway,
    session: &Session,
    mark: &Mark,
) -> Result<Option<ServerEvent>, AppError> {
    raise(gateway, session, mark, MarkKind::Read).await
}

async fn raise(
    gateway: &Gateway,
    session: &Session,
    mark: &Mark,
    kind: MarkKind,
) -> Result<Option<ServerEvent>, AppError> {
    gateway
        .messages
        .mark(session.user_id, mark.conversation_id, kind, mark.seq)
        .await?;
    Ok(None)
}
