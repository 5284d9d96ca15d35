//! `/presence`: who of those one shares a conversation with is online, and how they appear.

use axum::extract::State;
use rookery_protocol::UserId;
use rookery_protocol::event::{ErrorDetail, Presence};
use rookery_protocol::rest::Page;

use super::RestState;
use super::envelope::{Answer, ok};
use super::extract::{Caller, Cursor, Ids, Params};
use super::users::user_ids;

pub(super) async fn of_one(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<UserId>,
) -> Answer<Presence> {
    let presence = state.appearances.of_one(access.user_id, id).await?;
    ok(&state.clock, presence)
}

/// Of those named; strangers are left out.
pub(super) async fn list(
    State(state): State<RestState>,
    Caller(access): Caller,
    params: Params,
) -> Answer<Page<Presence>> {
    let Some(ids) = params.text("user_ids") else {
        let allowed = "at most 200 UUIDs separated by commas";
        return Err(ErrorDetail::new("user_ids", "is missing", allowed).into());
    };
    let items = state
        .appearances
        .of(access.user_id, &user_ids(ids)?)
        .await?;
    ok(
        &state.clock,
        Page {
            items,
            next_cursor: None,
        },
    )
}

/// Those online, by id; a page may be shorter than asked for although another follows.
pub(super) async fn online(
    State(state): State<RestState>,
    Caller(access): Caller,
    params: Params,
) -> Answer<Page<Presence>> {
    let limit = params.limit()?;
    let after: Option<UserId> = params.cursor(Cursor::Online)?;
    let page = state
        .appearances
        .online(access.user_id, after, limit)
        .await?;
    ok(
        &state.clock,
        Page {
            items: page.items,
            next_cursor: page.next.map(|last| Cursor::Online.write(last)),
        },
    )
}
