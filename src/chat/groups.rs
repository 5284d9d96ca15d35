//! What changes a group: its texts, its members, their roles, its end.
//!
//! Every change goes one way: the store locks the group, loads its state, asks [`rule::decide`],
//! and writes the change together with the `system` entry that reports it; then that entry is
//! published. Adding and removing take the same lock as sending, so who is a member at an entry's
//! `seq` is never a matter of luck.

pub(super) mod notice;
mod rule;

use rookery_protocol::conversation::{Conversation, Member, MemberRole};
use rookery_protocol::message::SystemNotice;
use rookery_protocol::rest::UpdateConversation;
use rookery_protocol::{ConversationId, MessageId, UserId};

use super::conversations::{Conversations, check_named, check_texts};
use crate::auth::Access;
use crate::clock::new_id;
use crate::error::AppError;
use crate::store::{GroupAction, GroupChange, GroupChanged};

/// Members that a request named, as they are now, and whether it added any.
#[derive(Clone, Debug)]
pub struct Added {
    pub members: Vec<Member>,
    pub any: bool,
}

impl Conversations {
    /// Changes title and description.
    ///
    /// # Errors
    /// `INVALID` with the field, `NOT_FOUND`, `FORBIDDEN` for plain members.
    pub async fn update(
        &self,
        actor: &Access,
        id: ConversationId,
        request: UpdateConversation,
    ) -> Result<Conversation, AppError> {
        let title = request.title.as_ref().and_then(Option::as_deref);
        let description = request.description.as_ref().and_then(Option::as_deref);
        check_texts(title, description)?;
        let action = GroupAction::Update {
            title: request.title,
            description: request.description,
        };
        self.change(actor, id, action).await?;
        self.get(actor, id).await
    }

    /// Adds users; those who are members already stay as they are.
    ///
    /// # Errors
    /// `INVALID` if one has no account, `NOT_FOUND`, `FORBIDDEN` for plain members, `CONFLICT` when
    /// the group would grow too large.
    pub async fn add_members(
        &self,
        actor: &Access,
        id: ConversationId,
        mut user_ids: Vec<UserId>,
    ) -> Result<Added, AppError> {
        check_named("user_ids", &user_ids)?;
        user_ids.sort_unstable();
        user_ids.dedup();
        let action = GroupAction::AddMembers {
            user_ids: user_ids.clone(),
        };
        let changed = self.change(actor, id, action).await?;
        let any = changed
            .is_some_and(|changed| matches!(changed.notice, SystemNotice::MembersAdded { .. }));
        let members = self.store.members_by_id(id, &user_ids).await?;
        Ok(Added { members, any })
    }

    /// Removes a member, or leaves.
    ///
    /// # Errors
    /// `NOT_FOUND`, `FORBIDDEN` without the power over that member, `CONFLICT` for the last owner.
    pub async fn remove_member(
        &self,
        actor: &Access,
        id: ConversationId,
        user_id: UserId,
    ) -> Result<(), AppError> {
        self.change(actor, id, GroupAction::RemoveMember { user_id })
            .await
            .map(drop)
    }

    /// Gives a member another role; returns the member as it is now.
    ///
    /// # Errors
    /// `NOT_FOUND`, `FORBIDDEN` for all but owners, `CONFLICT` for the last owner.
    pub async fn change_role(
        &self,
        actor: &Access,
        id: ConversationId,
        user_id: UserId,
        role: MemberRole,
    ) -> Result<Member, AppError> {
        self.change(actor, id, GroupAction::ChangeRole { user_id, role })
            .await?;
        let members = self.store.members_by_id(id, &[user_id]).await?;
        members.into_iter().next().ok_or_else(AppError::not_found)
    }

    /// Ends a group for all.
    ///
    /// # Errors
    /// `NOT_FOUND`, `FORBIDDEN` for all but owners.
    pub async fn delete(&self, actor: &Access, id: ConversationId) -> Result<(), AppError> {
        self.change(actor, id, GroupAction::Delete).await.map(drop)
    }

    /// Store first, then publish. `None`: there was nothing to change.
    async fn change(
        &self,
        actor: &Access,
        id: ConversationId,
        action: GroupAction,
    ) -> Result<Option<GroupChanged>, AppError> {
        let change = GroupChange {
            conversation_id: id,
            actor: actor.user_id,
            message_id: MessageId::from_uuid(new_id()),
            action,
            direct_max: self.direct_max,
        };
        let changed = self
            .store
            .change_group(&change, rule::decide, self.clock.now())
            .await??;
        if let Some(changed) = &changed {
            self.fanout
                .entry(&changed.entry, &changed.members, &changed.removed);
        }
        Ok(changed)
    }
}
