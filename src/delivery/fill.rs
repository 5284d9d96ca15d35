//! Reads from the store what some sockets lack: the missing entries, once for all of them, and what
//! telling of membership changes needs.

use std::collections::HashMap;

use rookery_protocol::conversation::{Conversation, Member};
use rookery_protocol::message::SystemNotice;
use rookery_protocol::{ConversationId, Seq, UserId, limits};

use super::Path;
use crate::store::{LogEntry, Membership, Result, Store};

/// Entries read at once.
const PAGE: i64 = 200;
/// A live socket further behind than this is told to come back and resume instead.
pub(super) const FILL_MAX: i64 = 1_000;

/// What is to be read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) conversation_id: ConversationId,
    /// Users with sockets here, and the position of the one that lacks most; `None`: they did not
    /// know the conversation.
    pub(super) users: Vec<(UserId, Option<Seq>)>,
    pub(super) target: Seq,
    pub(super) path: Path,
}

/// What was read.
pub(super) struct Filled {
    pub(super) conversation_id: ConversationId,
    pub(super) path: Path,
    /// Windows of those asked for who are or were members.
    pub(super) memberships: HashMap<UserId, Membership>,
    pub(super) users: Vec<UserId>,
    pub(super) entries: Vec<LogEntry>,
    /// The conversation as each user sees it, where they have to be told.
    pub(super) views: HashMap<UserId, Conversation>,
    /// Members named by the entries' notices.
    pub(super) members: HashMap<UserId, Member>,
}

/// Reads everything one fill needs.
pub(super) async fn read(store: &dyn Store, request: &Request) -> Result<Filled> {
    let id = request.conversation_id;
    let users: Vec<UserId> = request.users.iter().map(|(user, _)| *user).collect();
    let memberships = store.memberships_in(id, &users).await?;
    let from = start_of(request, &memberships);
    let end = memberships
        .iter()
        .map(Membership::visible_to)
        .max()
        .unwrap_or(Seq::ZERO);
    let target = request.target.min(end);
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut after = from;
    while after < target && after.0 - from.0 < FILL_MAX {
        let page = store.entries(id, after, target, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.seq();
        entries.extend(page);
    }
    let messages = entries.iter().filter_map(LogEntry::message);
    let notices: Vec<SystemNotice> = messages.filter_map(SystemNotice::of).collect();
    let members = members_named(store, id, &notices).await?;
    let views = views(store, request, &notices).await?;
    Ok(Filled {
        conversation_id: id,
        path: request.path,
        memberships: memberships.into_iter().map(|m| (m.user_id, m)).collect(),
        users,
        entries,
        views,
        members,
    })
}

/// The lowest position among those concerned.
fn start_of(request: &Request, memberships: &[Membership]) -> Seq {
    let joined = |user: UserId| {
        let membership = memberships.iter().find(|m| m.user_id == user)?;
        Some(membership.joined_seq)
    };
    let positions = request
        .users
        .iter()
        .filter_map(|(user, known)| known.or_else(|| joined(*user)));
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
    let shown = request.users.iter();
    let shown = shown.filter(|(_, known)| changed || known.is_none());
    let shown: Vec<UserId> = shown.map(|(user, _)| *user).collect();
    if shown.is_empty() {
        return Ok(HashMap::new());
    }
    let views = store
        .conversation_for(request.conversation_id, &shown)
        .await?;
    Ok(views.into_iter().collect())
}
