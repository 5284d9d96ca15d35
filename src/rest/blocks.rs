//! `/users/{id}/block` and `/users/blocks`: whom one does not want to hear from.

use axum::extract::State;
use rookery_protocol::UserId;
use rookery_protocol::rest::Page;
use rookery_protocol::user::User;

use super::RestState;
use super::envelope::{Answer, done, ok};
use super::extract::{Caller, Cursor, Ids, Params, one_more, page};

pub(super) async fn block(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<UserId>,
) -> Answer<()> {
    state.accounts.set_block(&access, id, true).await?;
    done(&state.clock)
}

pub(super) async fn unblock(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<UserId>,
) -> Answer<()> {
    state.accounts.set_block(&access, id, false).await?;
    done(&state.clock)
}

/// By user id.
pub(super) async fn list(
    State(state): State<RestState>,
    Caller(access): Caller,
    params: Params,
) -> Answer<Page<User>> {
    let limit = params.limit()?;
    let after: Option<UserId> = params.cursor(Cursor::Blocks)?;
    let found = state
        .accounts
        .blocked(&access, after, one_more(limit))
        .await?;
    let ids = page(found, limit, |last| Cursor::Blocks.write(*last));
    let items = state.accounts.users(&access, &ids.items).await?;
    ok(
        &state.clock,
        Page {
            items,
            next_cursor: ids.next_cursor,
        },
    )
}
