//! `message.delivered` and `message.read`: no answer unless they fail.

use rookery_protocol::command::Mark;
use rookery_protocol::event::ServerEvent;

use crate::chat::receipts::{self, Marker};
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
    let marker = Marker {
        user_id: session.user_id,
        socket: Some(session.id),
    };
    let wanted = receipts::Mark {
        conversation_id: mark.conversation_id,
        kind,
        seq: mark.seq,
    };
    let known = session.positions().get(mark.conversation_id);
    gateway.receipts.mark(marker, wanted, known).await?;
    Ok(None)
}
