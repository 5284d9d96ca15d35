//! Reads from the store what some sockets lack: the missing entries, once for all of them, and what
//! telling of membership changes needs. Step by step: a worker passes one step on before the next
//! is read, so that a long hole costs no more memory than a short one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::conversation::{Conversation, Member};
use rookery_protocol::message::SystemNotice;
use rookery_protocol::{ConversationId, Seq, UserId, limits};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::{DeliveryParts, Path, weight};
use crate::metrics;
use crate::store::{LogEntry, Membership, Result, Store, StoreError};
use crate::telemetry::SPANS;

/// Entries read at once.
const PAGE: i64 = 100;
/// A step ends when it has so many entries, or so many bytes.
const STEP_ENTRIES: usize = 500;
const STEP_BYTES: usize = 1024 * 1024;
/// Fills of one node that read at the same time. When the bus has lost much, thousands of
/// conversations have to be read: sends need the database's connections, too.
const AT_ONCE: usize = 6;
/// How long a fill that failed waits before it is tried again: at first, and at the most.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What is to be read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) conversation_id: ConversationId,
    /// Of users with sockets here.
    pub(super) lacks: Vec<Lack>,
    pub(super) target: Seq,
    pub(super) path: Path,
}

/// What the sockets of one user lack of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) user: UserId,
    /// The lowest position among those that know the conversation.
    pub(super) lowest: Option<Seq>,
    /// One of them does not know it yet.
    pub(super) is_new: bool,
}

/// What was read.
pub(super) struct Filled {
    pub(super) conversation_id: ConversationId,
    pub(super) path: Path,
    /// What was asked for.
    pub(super) target: Seq,
    /// Entries after this one were read.
    pub(super) from: Seq,
    /// There is more before the target than one step reads.
    pub(super) more: bool,
    /// Windows of those asked for who are or were members.
    pub(super) memberships: HashMap<UserId, Membership>,
    pub(super) users: Vec<UserId>,
    pub(super) entries: Vec<LogEntry>,
    /// The conversation as each user sees it, where they have to be told.
    pub(super) views: HashMap<UserId, Conversation>,
    /// Members named by the entries' notices.
    pub(super) members: HashMap<UserId, Member>,
}

/// Carries out the fills of all workers, a few at a time. Cloning shares it.
#[derive(Clone)]
pub(super) struct Fills {
    turns: Arc<Semaphore>,
}

impl Fills {
    pub(super) fn new() -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { turns }
    }

    /// Reads a step, again and again until the store answers. `None`: the node stops, or nobody is
    /// left to be told.
    pub(super) async fn read(&self, parts: &DeliveryParts, request: &Request) -> Option<Filled> {
        let mut pause = RETRY_MIN;
        loop {
            let turn = self.turns.acquire().await.ok()?;
            let began = Instant::now();
            let span = tracing::debug_span!(
                target: SPANS,
                "fill",
                conversation_id = %request.conversation_id,
                path = ?request.path
            );
            let read = read(parts.store.as_ref(), request).instrument(span).await;
            drop(turn);
            match read {
                Ok(filled) => {
                    metrics::fills_total().filled.increment(1);
                    metrics::fill_seconds().record(began.elapsed());
                    return Some(filled);
                }
                Err(error) => failed(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(spread(pause, request.conversation_id)) => {}
                () = parts.tasks.stopping().cancelled() => return None,
            }
            pause = (pause * 2).min(RETRY_MAX);
            let mut lacks = request.lacks.iter();
            if !lacks.any(|lack| parts.registry.has(lack.user)) {
                return None;
            }
        }
    }
}

fn failed(error: &StoreError) {
    metrics::fills_total().failed.increment(1);
    if matches!(error, StoreError::Unavailable(_)) {
        // Of thousands at once; that the database is away is told by the reconciler.
        tracing::debug!(%error, "a hole cannot be filled yet");
    } else {
        tracing::error!(%error, "a hole cannot be filled");
    }
}

/// Spreads the attempts of different conversations, up to half as long again.
fn spread(pause: Duration, id: ConversationId) -> Duration {
    pause + pause * u32::from(id.as_bytes()[14]) / 512
}

/// Reads everything one step needs.
async fn read(store: &dyn Store, request: &Request) -> Result<Filled> {
    let id = request.conversation_id;
    let users: Vec<UserId> = request.lacks.iter().map(|lack| lack.user).collect();
    let memberships = store.memberships_in(id, &users).await?;
    let from = start_of(request, &memberships);
    let end = memberships
        .iter()
        .map(Membership::visible_to)
        .max()
        .unwrap_or(Seq::ZERO);
    let (entries, more) = step(store, id, from, request.target.min(end)).await?;
    let messages = entries.iter().filter_map(LogEntry::message);
    let notices: Vec<SystemNotice> = messages.filter_map(SystemNotice::of).collect();
    let members = members_named(store, id, &notices).await?;
    let views = views(store, request, &notices).await?;
    Ok(Filled {
        conversation_id: id,
        path: request.path,
        target: request.target,
        from,
        more,
        memberships: memberships.into_iter().map(|m| (m.user_id, m)).collect(),
        users,
        entries,
        views,
        members,
    })
}

/// Entries after `from`, and whether there are more up to `target`.
async fn step(
    store: &dyn Store,
    id: ConversationId,
    from: Seq,
    target: Seq,
) -> Result<(Vec<LogEntry>, bool)> {
    let (mut entries, mut bytes): (Vec<LogEntry>, usize) = (Vec::new(), 0);
    let mut after = from;
    while after < target {
        if entries.len() >= STEP_ENTRIES || bytes >= STEP_BYTES {
            return Ok((entries, true));
        }
        let page = store.entries(id, after, target, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.seq();
        bytes += page.iter().map(weight).sum::<usize>();
        entries.extend(page);
    }
    Ok((entries, false))
}

/// The lowest position among those concerned. One who does not know the conversation begins at the
/// joining; one who does not know it and has left is told nothing, and must not be read for: a step
/// that brings nobody forward would be read again and again.
fn start_of(request: &Request, memberships: &[Membership]) -> Seq {
    let joined = |user: UserId| {
        let mut present = memberships.iter().filter(|m| m.is_present());
        Some(present.find(|m| m.user_id == user)?.joined_seq)
    };
    let positions = request.lacks.iter().flat_map(|lack| {
        let begins = lack.is_new.then(|| joined(lack.user)).flatten();
        lack.lowest.into_iter().chain(begins)
    });
    positions.min().unwrap_or(request.target)
}

async fn members_named(
    store: &dyn Store,
    id: ConversationId,
    notices: &[SystemNotice],
) -> Result<HashMap<UserId, Member>> {
    let mut named = Vec::new();
    for notice in notices {
        match notice {
            SystemNotice::MembersAdded { user_ids } if user_ids.len() <= limits::MEMBER_EVENTS => {
                named.extend(user_ids);
            }
            SystemNotice::MemberRemoved { user_id } | SystemNotice::MemberLeft { user_id } => {
                named.push(*user_id);
            }
            _ => {}
        }
    }
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let members = store.members_by_id(id, &named).await?;
    Ok(members
        .into_iter()
        .map(|member| (member.user_id, member))
        .collect())
}

/// Those who have to be shown the conversation: who did not know it, and everybody when it changed.
async fn views(
    store: &dyn Store,
    request: &Request,
    notices: &[SystemNotice],
) -> Result<HashMap<UserId, Conversation>> {
    let changed = notices.iter().any(|notice| {
        matches!(
            notice,
            SystemNotice::GroupUpdated { .. } | SystemNotice::RoleChanged { .. }
        )
    });
    let shown = request.lacks.iter();
    let shown = shown.filter(|lack| changed || lack.is_new);
    let shown: Vec<UserId> = shown.map(|lack| lack.user).collect();
    if shown.is_empty() {
        return Ok(HashMap::new());
    }
    let views = store
        .conversation_for(request.conversation_id, &shown)
        .await?;
    Ok(views.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use rookery_protocol::conversation::{ConversationKind, MemberRole};
    use uuid::Uuid;

    use super::*;
    use crate::store::FanoutMode;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn membership(n: u128, joined: i64, left: Option<i64>) -> Membership {
        Membership {
            conversation_id: ConversationId::from_uuid(Uuid::nil()),
            user_id: user(n),
            kind: ConversationKind::Group,
            role: MemberRole::Member,
            joined_seq: Seq(joined),
            visible_from: Seq(0),
            left_seq: left.map(Seq),
            delivered_seq: Seq(0),
            read_seq: Seq(0),
            last_seq: Seq(900),
            fanout: FanoutMode::Direct,
        }
    }

    fn start(lacks: &[(u128, Option<i64>, bool)], memberships: &[Membership]) -> Seq {
        let lacks = lacks.iter().map(|(n, lowest, is_new)| Lack {
            user: user(*n),
            lowest: lowest.map(Seq),
            is_new: *is_new,
        });
        let request = Request {
            conversation_id: ConversationId::from_uuid(Uuid::nil()),
            lacks: lacks.collect(),
            target: Seq(900),
            path: Path::Fill,
        };
        start_of(&request, memberships)
    }

    #[test]
    fn a_new_socket_does_not_hide_that_another_of_the_same_user_lacks_more() {
        let returned = [membership(1, 792, None)];
        assert_eq!(start(&[(1, Some(679), true)], &returned), Seq(679));
        assert_eq!(start(&[(1, Some(800), true)], &returned), Seq(792));
    }

    #[test]
    fn nothing_is_read_for_who_does_not_know_the_conversation_and_has_left() {
        let left = membership(1, 10, Some(700));
        let others = [left.clone(), membership(2, 0, None)];
        assert_eq!(
            start(&[(1, None, true), (2, Some(850), false)], &others),
            Seq(850)
        );
        assert_eq!(start(&[(1, None, true)], &[left]), Seq(900));
    }
}
