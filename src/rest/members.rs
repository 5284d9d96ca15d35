//! `/conversations/{id}/members`: who is in it, and as what.

use axum::extract::State;
use rookery_protocol::conversation::Member;
use rookery_protocol::rest::{AddMembers, ChangeRole, Page};
use rookery_protocol::{ConversationId, UserId};

use super::RestState;
use super::envelope::{Answer, done, made, ok};
use super::extract::{Body, Caller, Cursor, Ids, Params, one_more, page};

pub(super) async fn list(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<ConversationId>,
    params: Params,
) -> Answer<Page<Member>> {
    let limit = params.limit()?;
    let after: Option<UserId> = params.cursor(Cursor::Members)?;
    let found = state
        .conversations
        .members(&access, id, after, one_more(limit))
        .await?;
    ok(
        &state.clock,
        page(found, limit, |last| Cursor::Members.write(last.user_id)),
    )
}

/// Answers with those who were named, as they are now; 201 if any of them is new.
pub(super) async fn add(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<ConversationId>,
    Body(request): Body<AddMembers>,
) -> Answer<Page<Member>> {
    let added = state
        .conversations
        .add_members(&access, id, request.user_ids)
        .await?;
    made(
        &state.clock,
        added.any,
        Page {
            items: added.members,
            next_cursor: None,
        },
    )
}

pub(super) async fn change_role(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids((id, user_id)): Ids<(ConversationId, UserId)>,
    Body(request): Body<ChangeRole>,
) -> Answer<Member> {
    let member = state
        .conversations
        .change_role(&access, id, user_id, request.role)
        .await?;
    ok(&state.clock, member)
}

/// Removes a member; with one's own id, leaves.
pub(super) async fn remove(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids((id, user_id)): Ids<(ConversationId, UserId)>,
) -> Answer<()> {
    state
        .conversations
        .remove_member(&access, id, user_id)
        .await?;
    done(&state.clock)
}
