//! `/conversations/{id}/messages`: history, sending and changing.

use axum::extract::State;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::message::Message;
use rookery_protocol::rest::{EditMessage, History, SendMessage};
use rookery_protocol::{ConversationId, Seq};

use super::RestState;
use super::envelope::{Answer, made, ok};
use super::extract::{Body, Caller, Ids, Params};
use crate::chat::messages::{HistoryRange, SendRequest};
use crate::error::AppError;

pub(super) async fn history(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<ConversationId>,
    params: Params,
) -> Answer<History> {
    let before = seq(&params, "before_seq")?;
    let after = seq(&params, "after_seq")?;
    if before.is_some() && after.is_some() {
        let detail = ErrorDetail::new("after_seq", "excludes before_seq", "one of the two");
        return Err(detail.into());
    }
    let range = HistoryRange {
        before,
        after,
        limit: params.limit()?,
    };
    ok(
        &state.clock,
        state.messages.history(access.user_id, id, range).await?,
    )
}

/// 201 and the message; 200 if it was stored by an earlier attempt.
pub(super) async fn send(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<ConversationId>,
    Body(request): Body<SendMessage>,
) -> Answer<Message> {
    let request = SendRequest {
        message_id: request.message_id,
        conversation_id: Some(id),
        recipient_id: None,
        content: request.content,
        reply_to: request.reply_to,
        metadata: request.metadata,
    };
    let sent = state.messages.send(access.user_id, request).await?;
    made(&state.clock, !sent.duplicate, sent.message)
}

pub(super) async fn edit(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids((id, seq)): Ids<(ConversationId, Seq)>,
    Body(request): Body<EditMessage>,
) -> Answer<Message> {
    let edited = state
        .messages
        .edit(access.user_id, id, seq, request.content);
    ok(&state.clock, edited.await?)
}

pub(super) async fn delete(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids((id, seq)): Ids<(ConversationId, Seq)>,
) -> Answer<Message> {
    let deleted = state.messages.delete(access.user_id, id, seq);
    ok(&state.clock, deleted.await?)
}

pub(super) async fn react(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids((id, seq, emoji)): Ids<(ConversationId, Seq, String)>,
) -> Answer<Message> {
    let added = state.messages.react(access.user_id, id, seq, &emoji);
    ok(&state.clock, added.await?)
}

pub(super) async fn unreact(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids((id, seq, emoji)): Ids<(ConversationId, Seq, String)>,
) -> Answer<Message> {
    let removed = state.messages.unreact(access.user_id, id, seq, &emoji);
    ok(&state.clock, removed.await?)
}

fn seq(params: &Params, name: &str) -> Result<Option<Seq>, AppError> {
    let allowed = "a whole number from 0";
    let seq: Option<i64> = params.parse(name, allowed)?;
    match seq {
        Some(seq) if seq < 0 => Err(ErrorDetail::new(name, "is negative", allowed).into()),
        seq => Ok(seq.map(Seq)),
    }
}
