//! `/receipts` and the marks below `/conversations/{id}`: how far oneself and others are.

use axum::extract::State;
use rookery_protocol::rest::{MarkRead, Marks, MessageReceipt, Page};
use rookery_protocol::{ConversationId, Seq, UserId};

use super::RestState;
use super::envelope::{Answer, done, ok};
use super::extract::{Body, Caller, Cursor, Ids, Params, one_more, page};
use crate::chat::receipts::Mark;
use crate::store::MarkKind;

/// Answers when the mark is stored.
pub(super) async fn read_one(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(conversation_id): Ids<ConversationId>,
    Body(MarkRead { seq }): Body<MarkRead>,
) -> Answer<()> {
    let kind = MarkKind::Read;
    let mark = Mark {
        conversation_id,
        kind,
        seq,
    };
    state.receipts.mark_one(access.user_id, mark).await?;
    done(&state.clock)
}

/// Answers when all marks are stored; if one is refused, none is.
pub(super) async fn read(
    State(state): State<RestState>,
    Caller(access): Caller,
    Body(Marks { marks }): Body<Marks>,
) -> Answer<()> {
    let (receipts, user) = (&state.receipts, access.user_id);
    receipts.mark_all(user, MarkKind::Read, &marks).await?;
    done(&state.clock)
}

/// As [`read`].
pub(super) async fn delivered(
    State(state): State<RestState>,
    Caller(access): Caller,
    Body(Marks { marks }): Body<Marks>,
) -> Answer<()> {
    let (receipts, user) = (&state.receipts, access.user_id);
    receipts.mark_all(user, MarkKind::Delivered, &marks).await?;
    done(&state.clock)
}

pub(super) async fn of_message(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids((id, seq)): Ids<(ConversationId, Seq)>,
    params: Params,
) -> Answer<Page<MessageReceipt>> {
    let limit = params.limit()?;
    let after: Option<UserId> = params.cursor(Cursor::Receipts)?;
    let found = state
        .receipts
        .of_message(access.user_id, (id, seq), after, one_more(limit))
        .await?;
    ok(
        &state.clock,
        page(found, limit, |last| Cursor::Receipts.write(last.user_id)),
    )
}
