//! `presence.subscribe`, `presence.unsubscribe` and `presence.set`.
//!
//! Looking up who is online takes as long as Redis takes, so it is done beside the socket's task,
//! one change of its subscriptions after the other.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rookery_protocol::command::{PresenceSet, PresenceWatch};
use rookery_protocol::event::{ErrorDetail, PresenceState, Reply, ServerEvent};
use rookery_protocol::{UserId, limits};

use crate::bus::Channel;
use crate::delivery::Look;
use crate::error::AppError;
use crate::gateway::{Gateway, Session};

/// Changes of one socket's subscriptions that may wait for each other.
const CHANGES_MAX: usize = 32;
/// What a client that has so many under way is told to wait.
const RETRY_AFTER_MS: u64 = 1_000;

pub(super) fn subscribe(
    gateway: &Gateway,
    session: &Arc<Session>,
    command: PresenceWatch,
) -> Result<Option<ServerEvent>, AppError> {
    let change = begin(gateway.clone(), Arc::clone(session), command.clone());
    queue(gateway, session, command, change)
}

pub(super) fn unsubscribe(
    gateway: &Gateway,
    session: &Arc<Session>,
    command: PresenceWatch,
) -> Result<Option<ServerEvent>, AppError> {
    let change = end(gateway.clone(), Arc::clone(session), command.clone());
    queue(gateway, session, command, change)
}

pub(super) async fn set(
    gateway: &Gateway,
    session: &Session,
    command: PresenceSet,
) -> Result<Option<ServerEvent>, AppError> {
    let appearances = Arc::clone(&gateway.appearances);
    let (user, status, skip) = (session.user_id, command.status, session.id);
    let choice = async move { appearances.choose(user, status, skip).await };
    super::to_the_end(gateway, choice).await?;
    Ok(Some(ServerEvent::Ok(Reply {
        reference: command.reference,
    })))
}

/// Has a change made in a task of its own, which answers.
fn queue(
    gateway: &Gateway,
    session: &Arc<Session>,
    command: PresenceWatch,
    change: impl Future<Output = Result<(), AppError>> + Send + 'static,
) -> Result<Option<ServerEvent>, AppError> {
    if command.user_ids.len() > limits::PRESENCE_WATCH {
        return Err(too_many("names too many"));
    }
    if session.watching().changes.fetch_add(1, Ordering::AcqRel) >= CHANGES_MAX {
        session.watching().changes.fetch_sub(1, Ordering::AcqRel);
        return Err(AppError::rate_limited(RETRY_AFTER_MS));
    }
    let session = Arc::clone(session);
    gateway.tasks.spawn("presence-change", async move {
        if let Err(error) = change.await {
            session.send(&ServerEvent::Error(
                error.into_event(command.reference, None),
            ));
        }
        session.watching().changes.fetch_sub(1, Ordering::AcqRel);
    });
    Ok(None)
}

fn too_many(reason: &str) -> AppError {
    ErrorDetail::new("user_ids", reason, "at most 200 users watched a socket").into()
}

/// Watches these users and answers how they appear. News of them is kept from the moment on from
/// which the answer is looked up, so that nothing falls between.
async fn begin(
    gateway: Gateway,
    session: Arc<Session>,
    command: PresenceWatch,
) -> Result<(), AppError> {
    let mut held = session.watching().held.lock().await;
    if held.is_closed {
        return Ok(());
    }
    let asked: HashSet<UserId> = command.user_ids.iter().copied().collect();
    if held.users.union(&asked).count() > limits::PRESENCE_WATCH {
        return Err(too_many("would make too many"));
    }
    let sight = gateway
        .appearances
        .sight(session.user_id, &command.user_ids)
        .await?;
    let is_new = |user: &&UserId| !held.users.contains(user);
    let new: Vec<UserId> = sight.known.iter().filter(is_new).copied().collect();
    gateway
        .watchers
        .begin(&session, &sight.known, &sight.hidden);
    held.users.extend(&new);
    if !new.is_empty() {
        let subscribed = gateway.subscriptions.join(channels(&new)).await;
        if subscribed.is_err() {
            tracing::debug!("presence is watched while the bus is down");
        }
    }
    let began_at = Instant::now();
    let seen = gateway.appearances.look(&sight.known).await;
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            // As if it had not been asked.
            gateway.watchers.end(&session, new.iter().copied());
            held.users.retain(|user| !new.contains(user));
            gateway.subscriptions.leave(channels(&new)).await;
            return Err(error);
        }
    };
    let look = Look {
        began_at,
        users: seen.users,
        complete: seen.complete,
    };
    gateway
        .watchers
        .show(&session, command.reference, &sight.known, &look);
    Ok(())
}

/// Ceases to watch these users, and answers how they appear.
async fn end(
    gateway: Gateway,
    session: Arc<Session>,
    command: PresenceWatch,
) -> Result<(), AppError> {
    let mut held = session.watching().held.lock().await;
    let was_held = |user: &&UserId| held.users.contains(user);
    let left: HashSet<UserId> = command.user_ids.iter().filter(was_held).copied().collect();
    let left: Vec<UserId> = left.into_iter().collect();
    gateway.watchers.end(&session, left.iter().copied());
    held.users.retain(|user| !left.contains(user));
    if !left.is_empty() {
        gateway.subscriptions.leave(channels(&left)).await;
    }
    drop(held);
    let users = gateway
        .appearances
        .of(session.user_id, &command.user_ids)
        .await?;
    session.send(&ServerEvent::PresenceState(PresenceState {
        reference: command.reference,
        users,
    }));
    Ok(())
}

/// Ceases to watch anybody, for a socket that is gone.
pub(crate) async fn end_watching(gateway: Gateway, session: Arc<Session>) {
    let mut held = session.watching().held.lock().await;
    held.is_closed = true;
    let left: Vec<UserId> = std::mem::take(&mut held.users).into_iter().collect();
    gateway.watchers.end(&session, left.iter().copied());
    if !left.is_empty() {
        gateway.subscriptions.leave(channels(&left)).await;
    }
}

fn channels(users: &[UserId]) -> Vec<Channel> {
    users.iter().map(|user| Channel::Presence(*user)).collect()
}
