//! `/users`: oneself and others.

use axum::extract::State;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::rest::{Page, UpdateProfile};
use rookery_protocol::user::User;
use rookery_protocol::{UserId, limits};

use super::RestState;
use super::envelope::{Answer, ok};
use super::extract::{Body, Caller, Cursor, Ids, Params, one_more, page};
use crate::error::AppError;

/// By `user_ids`, or by what is in their names, by username.
pub(super) async fn list(
    State(state): State<RestState>,
    Caller(access): Caller,
    params: Params,
) -> Answer<Page<User>> {
    if let Some(ids) = params.text("user_ids") {
        if params.text("query").is_some() {
            let detail = ErrorDetail::new("user_ids", "excludes query", "one of the two");
            return Err(detail.into());
        }
        let items = state.accounts.users(&access, &user_ids(ids)?).await?;
        return ok(
            &state.clock,
            Page {
                items,
                next_cursor: None,
            },
        );
    }
    let limit = params.limit()?;
    let after: Option<String> = params.cursor(Cursor::Users)?;
    let query = params.text("query").unwrap_or_default();
    let found = state
        .accounts
        .search(&access, query, after.as_deref(), one_more(limit))
        .await?;
    ok(
        &state.clock,
        page(found, limit, |user| Cursor::Users.write(&user.username)),
    )
}

/// Ids separated by commas.
pub(super) fn user_ids(text: &str) -> Result<Vec<UserId>, AppError> {
    let refusal = |reason| {
        let allowed = "at most 200 UUIDs separated by commas";
        AppError::from(ErrorDetail::new("user_ids", reason, allowed))
    };
    let mut ids = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        if ids.len() == limits::USERS_PER_CALL {
            return Err(refusal("names too many"));
        }
        ids.push(
            part.trim()
                .parse()
                .map_err(|_| refusal("contains what is no UUID"))?,
        );
    }
    Ok(ids)
}

pub(super) async fn me(State(state): State<RestState>, Caller(access): Caller) -> Answer<User> {
    ok(&state.clock, state.accounts.me(&access).await?)
}

pub(super) async fn update_me(
    State(state): State<RestState>,
    Caller(access): Caller,
    Body(change): Body<UpdateProfile>,
) -> Answer<User> {
    ok(
        &state.clock,
        state.accounts.update_me(&access, change).await?,
    )
}

pub(super) async fn get(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<UserId>,
) -> Answer<User> {
    ok(&state.clock, state.accounts.user(&access, id).await?)
}
