//! Conversations and their members.

use rookery_protocol::conversation::{Conversation, Member, MemberRole};
use rookery_protocol::limits;
use rookery_protocol::rest::{
    AddMembers, ChangeRole, CreateConversation, MarkRead, Page, UpdateConversation,
};
use rookery_protocol::{ConversationId, Seq, UserId};
use serde::de::IgnoredAny;

use super::{Answer, Api, ApiError, Method, PageRequest};

impl Api {
    /// Makes a conversation; the status is 200 where a direct one, or a group of that id, existed.
    ///
    /// # Errors
    /// `NOT_FOUND`: a user does not exist; `INVALID` names the field.
    pub async fn create(
        &self,
        conversation: &CreateConversation,
    ) -> Result<Answer<Conversation>, ApiError> {
        self.call(Method::POST, "/conversations", &[], Some(conversation))
            .await
    }

    /// The direct conversation with this user, made if new.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is no such user; `INVALID`: it is oneself.
    pub async fn create_direct(&self, user_id: UserId) -> Result<Conversation, ApiError> {
        Ok(self
            .create(&CreateConversation::Direct { user_id })
            .await?
            .data)
    }

    /// A new group of oneself and these.
    ///
    /// # Errors
    /// `NOT_FOUND`: a member does not exist; `INVALID`: title too long, too many members.
    pub async fn create_group(
        &self,
        title: &str,
        members: &[UserId],
    ) -> Result<Conversation, ApiError> {
        let group = CreateConversation::Group {
            conversation_id: None,
            title: Some(title.to_owned()),
            description: None,
            history_visible: None,
            member_ids: members.to_vec(),
        };
        Ok(self.create(&group).await?.data)
    }

    /// One page of one's own conversations, newest activity first.
    ///
    /// # Errors
    /// `INVALID`: the cursor is none of this server's.
    pub async fn conversations(&self, page: &PageRequest) -> Result<Page<Conversation>, ApiError> {
        self.get("/conversations", &page.pairs()).await
    }

    /// All of one's own conversations, read page by page.
    ///
    /// # Errors
    /// As [`Api::conversations`].
    pub async fn all_conversations(&self) -> Result<Vec<Conversation>, ApiError> {
        let mut all = Vec::new();
        let mut request = PageRequest {
            limit: Some(limits::PAGE_MAX),
            cursor: None,
        };
        loop {
            let page = self.conversations(&request).await?;
            all.extend(page.items);
            match page.next_cursor {
                Some(cursor) => request.cursor = Some(cursor),
                None => return Ok(all),
            }
        }
    }

    /// One conversation.
    ///
    /// # Errors
    /// `NOT_FOUND`, also where one is no member.
    pub async fn conversation(&self, id: ConversationId) -> Result<Conversation, ApiError> {
        self.get(&format!("/conversations/{id}"), &[]).await
    }

    /// Changes a group's title or description.
    ///
    /// # Errors
    /// `FORBIDDEN`: not an admin of it, or a direct conversation; `NOT_FOUND`; `INVALID`.
    pub async fn update_conversation(
        &self,
        id: ConversationId,
        changes: &UpdateConversation,
    ) -> Result<Conversation, ApiError> {
        self.patch(&format!("/conversations/{id}"), changes).await
    }

    /// Gives a group another title.
    ///
    /// # Errors
    /// As [`Api::update_conversation`].
    pub async fn rename(&self, id: ConversationId, title: &str) -> Result<Conversation, ApiError> {
        let title = Some(Some(title.to_owned()));
        self.update_conversation(
            id,
            &UpdateConversation {
                title,
                description: None,
            },
        )
        .await
    }

    /// Ends a group for all its members.
    ///
    /// # Errors
    /// `FORBIDDEN`: not its owner, or a direct conversation; `NOT_FOUND`.
    pub async fn delete_conversation(&self, id: ConversationId) -> Result<(), ApiError> {
        self.delete(&format!("/conversations/{id}")).await
    }

    /// One page of a conversation's members.
    ///
    /// # Errors
    /// `NOT_FOUND`, also where one is no member.
    pub async fn members(
        &self,
        id: ConversationId,
        page: &PageRequest,
    ) -> Result<Page<Member>, ApiError> {
        self.get(&format!("/conversations/{id}/members"), &page.pairs())
            .await
    }

    /// Adds up to 1,000 members to a group; those who are in it already stay as they are.
    ///
    /// # Errors
    /// `FORBIDDEN`: not an admin of it; `NOT_FOUND`: the group or a user; `INVALID`: too many.
    pub async fn add_members(&self, id: ConversationId, users: &[UserId]) -> Result<(), ApiError> {
        let body = AddMembers {
            user_ids: users.to_vec(),
        };
        let path = format!("/conversations/{id}/members");
        self.post::<_, IgnoredAny>(&path, &body).await.map(drop)
    }

    /// Removes a member from a group.
    ///
    /// # Errors
    /// `FORBIDDEN`: not above them in it; `NOT_FOUND`: the group or the member.
    pub async fn remove_member(&self, id: ConversationId, user: UserId) -> Result<(), ApiError> {
        self.delete(&format!("/conversations/{id}/members/{user}"))
            .await
    }

    /// Leaves a group; `me` is one's own id.
    ///
    /// # Errors
    /// `FORBIDDEN`: a direct conversation; `NOT_FOUND`: not in it.
    pub async fn leave(&self, id: ConversationId, me: UserId) -> Result<(), ApiError> {
        self.remove_member(id, me).await
    }

    /// Gives a member of a group another role.
    ///
    /// # Errors
    /// `FORBIDDEN`: not above them in it; `NOT_FOUND`; `CONFLICT`: it would have no owner.
    pub async fn change_role(
        &self,
        id: ConversationId,
        user: UserId,
        role: MemberRole,
    ) -> Result<(), ApiError> {
        let path = format!("/conversations/{id}/members/{user}");
        self.patch::<_, IgnoredAny>(&path, &ChangeRole { role })
            .await
            .map(drop)
    }

    /// Marks everything up to `seq` as read.
    ///
    /// # Errors
    /// `INVALID`: beyond the end; `NOT_FOUND`.
    pub async fn mark_read(&self, id: ConversationId, seq: Seq) -> Result<(), ApiError> {
        let path = format!("/conversations/{id}/read");
        self.post::<_, IgnoredAny>(&path, &MarkRead { seq })
            .await
            .map(drop)
    }
}
