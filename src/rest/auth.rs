//! `/auth`: registering, logging in, sessions.

use axum::extract::State;
use rookery_protocol::SessionId;
use rookery_protocol::rest::{Login, Page, Refresh, Register, Session, Tokens};

use super::RestState;
use super::envelope::{Answer, done, made, ok};
use super::extract::{Body, Caller, From, Ids};

pub(super) async fn register(
    State(state): State<RestState>,
    From(origin): From,
    Body(request): Body<Register>,
) -> Answer<Tokens> {
    let tokens = state.accounts.register(request, origin).await?;
    made(&state.clock, true, tokens)
}

pub(super) async fn login(
    State(state): State<RestState>,
    From(origin): From,
    Body(request): Body<Login>,
) -> Answer<Tokens> {
    ok(&state.clock, state.accounts.login(request, origin).await?)
}

pub(super) async fn refresh(
    State(state): State<RestState>,
    From(origin): From,
    Body(request): Body<Refresh>,
) -> Answer<Tokens> {
    ok(&state.clock, state.accounts.refresh(request, origin).await?)
}

pub(super) async fn logout(State(state): State<RestState>, Caller(access): Caller) -> Answer<()> {
    state.accounts.logout(&access).await?;
    done(&state.clock)
}

pub(super) async fn logout_all(
    State(state): State<RestState>,
    Caller(access): Caller,
) -> Answer<()> {
    state.accounts.logout_all(&access).await?;
    done(&state.clock)
}

pub(super) async fn sessions(
    State(state): State<RestState>,
    Caller(access): Caller,
) -> Answer<Page<Session>> {
    let items = state.accounts.sessions(&access).await?;
    ok(
        &state.clock,
        Page {
            items,
            next_cursor: None,
        },
    )
}

pub(super) async fn end_session(
    State(state): State<RestState>,
    Caller(access): Caller,
    Ids(id): Ids<SessionId>,
) -> Answer<()> {
    state.accounts.end_session(&access, id).await?;
    done(&state.clock)
}
