//! Who may change what in a group. Pure: the store calls it behind the group's lock.
//!
//! | | owner | admin | member |
//! |---|---|---|---|
//! | rename, describe | yes | yes | no |
//! | add members | yes | yes | no |
//! | remove | anyone | members | no |
//! | leave | unless the last owner of others | yes | yes |
//! | change roles | yes | no | no |
//! | delete the group | yes | no | no |
//!
//! Everybody else is told that there is no such group. Direct conversations have two members for
//! good: nothing of this applies to them.

use rookery_protocol::conversation::{ConversationKind, MemberRole};
use rookery_protocol::message::SystemNotice;
use rookery_protocol::{UserId, limits};

use super::notice;
use crate::store::{GroupAction, GroupChange, GroupMember, GroupState, Refusal};

/// The entry that reports the change: what it says to programs and to people.
type Report = (SystemNotice, String);
/// `Ok(None)`: there is nothing to change.
type Decision = Result<Option<Report>, Refusal>;

const LAST_OWNER: &str = "a group with members needs an owner: make someone else owner first";

/// Decides on a change; a [`crate::store::GroupRule`].
pub(super) fn decide(state: &GroupState, change: &GroupChange) -> Decision {
    let Some(actor) = &state.actor else {
        return Err(Refusal::NotFound);
    };
    if state.kind == ConversationKind::Direct {
        return Err(Refusal::Forbidden("only groups can be changed"));
    }
    match &change.action {
        GroupAction::Update { title, description } => {
            update(state, actor, title.as_ref(), description.as_ref())
        }
        GroupAction::AddMembers { user_ids } => add(state, actor, user_ids),
        GroupAction::RemoveMember { user_id } if *user_id == actor.user_id => leave(state, actor),
        GroupAction::RemoveMember { user_id } => remove(state, actor, *user_id),
        GroupAction::ChangeRole { user_id, role } => change_role(state, actor, *user_id, *role),
        GroupAction::Delete => delete(actor),
    }
}

fn update(
    state: &GroupState,
    actor: &GroupMember,
    title: Option<&Option<String>>,
    description: Option<&Option<String>>,
) -> Decision {
    require(
        actor,
        MemberRole::Admin,
        "only owners and admins may change a group",
    )?;
    let title = title.filter(|title| **title != state.title);
    let description = description.filter(|description| **description != state.description);
    if title.is_none() && description.is_none() {
        return Ok(None);
    }
    let text = notice::updated(
        &actor.username,
        title.map(Option::as_deref),
        description.map(Option::as_deref),
    );
    let notice = SystemNotice::GroupUpdated {
        title: title.cloned().unwrap_or_else(|| state.title.clone()),
        description: description
            .cloned()
            .unwrap_or_else(|| state.description.clone()),
    };
    Ok(Some((notice, text)))
}

fn add(state: &GroupState, actor: &GroupMember, user_ids: &[UserId]) -> Decision {
    require(
        actor,
        MemberRole::Admin,
        "only owners and admins may add members",
    )?;
    let knows = |id: &UserId| {
        state.named.iter().any(|member| member.user_id == *id)
            || state.strangers.iter().any(|(stranger, _)| stranger == id)
    };
    if !user_ids.iter().all(knows) {
        return Err(Refusal::Invalid {
            field: "user_ids",
            reason: "name somebody who has no account",
            allowed: "users that exist",
        });
    }
    if state.strangers.is_empty() {
        return Ok(None);
    }
    let members = usize::try_from(state.member_count).unwrap_or(usize::MAX);
    if members.saturating_add(state.strangers.len()) > limits::MEMBERS_PER_GROUP {
        return Err(Refusal::Conflict("a group has at most 10,000 members"));
    }
    let user_ids = state.strangers.iter().map(|(id, _)| *id).collect();
    let names: Vec<&str> = state
        .strangers
        .iter()
        .map(|(_, name)| name.as_str())
        .collect();
    let text = notice::added(&actor.username, &names);
    Ok(Some((SystemNotice::MembersAdded { user_ids }, text)))
}

fn leave(state: &GroupState, actor: &GroupMember) -> Decision {
    if is_last_owner(state, actor) && state.member_count > 1 {
        return Err(Refusal::Conflict(LAST_OWNER));
    }
    let notice = SystemNotice::MemberLeft {
        user_id: actor.user_id,
    };
    Ok(Some((notice, notice::left(&actor.username))))
}

fn remove(state: &GroupState, actor: &GroupMember, user_id: UserId) -> Decision {
    require(
        actor,
        MemberRole::Admin,
        "only owners and admins may remove members",
    )?;
    let target = named(state, user_id)?;
    if actor.role != MemberRole::Owner && target.role >= actor.role {
        return Err(Refusal::Forbidden(
            "only owners may remove owners and admins",
        ));
    }
    let notice = SystemNotice::MemberRemoved { user_id };
    Ok(Some((
        notice,
        notice::removed(&actor.username, &target.username),
    )))
}

fn change_role(
    state: &GroupState,
    actor: &GroupMember,
    user_id: UserId,
    role: MemberRole,
) -> Decision {
    require(actor, MemberRole::Owner, "only owners may change roles")?;
    let target = named(state, user_id)?;
    if target.role == role {
        return Ok(None);
    }
    if is_last_owner(state, target) {
        return Err(Refusal::Conflict(LAST_OWNER));
    }
    let notice = SystemNotice::RoleChanged { user_id, role };
    Ok(Some((
        notice,
        notice::role_changed(&actor.username, &target.username, role),
    )))
}

fn delete(actor: &GroupMember) -> Decision {
    require(actor, MemberRole::Owner, "only owners may delete a group")?;
    Ok(Some((
        SystemNotice::GroupDeleted,
        notice::deleted(&actor.username),
    )))
}

fn require(actor: &GroupMember, role: MemberRole, why: &'static str) -> Result<(), Refusal> {
    if actor.role >= role {
        Ok(())
    } else {
        Err(Refusal::Forbidden(why))
    }
}

fn named(state: &GroupState, user_id: UserId) -> Result<&GroupMember, Refusal> {
    state
        .named
        .iter()
        .find(|member| member.user_id == user_id)
        .ok_or(Refusal::NotFound)
}

fn is_last_owner(state: &GroupState, member: &GroupMember) -> bool {
    member.role == MemberRole::Owner && state.owner_count <= 1
}

#[cfg(test)]
mod tests;
