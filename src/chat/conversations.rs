//! Conversations: making, listing and reading them. What changes a group is in `groups.rs`.

use std::collections::HashSet;
use std::sync::Arc;

use rookery_protocol::conversation::{Conversation, Member};
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::{ConversationId, MessageId, UserId, limits, validate};
use uuid::Variant;

use super::groups::notice;
use crate::auth::Access;
use crate::chat::fanout::Fanout;
use crate::clock::{Clock, new_id};
use crate::error::AppError;
use crate::store::{ConversationFilter, ListedConversation, NewGroup, Store};

/// The rules of conversations.
pub struct Conversations {
    pub(super) store: Arc<dyn Store>,
    pub(super) fanout: Arc<Fanout>,
    pub(super) clock: Clock,
    /// More members than this are told on the conversation's channel.
    pub(super) direct_max: i64,
}

/// A wanted group, as decoded.
#[derive(Clone, Debug, Default)]
pub struct GroupRequest {
    /// Made by the client, it makes the request repeatable.
    pub conversation_id: Option<ConversationId>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub history_visible: bool,
    pub member_ids: Vec<UserId>,
}

/// What was asked for, and whether this request made it.
#[derive(Clone, Debug)]
pub struct Made {
    pub conversation: Conversation,
    pub created: bool,
}

impl Conversations {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, fanout: Arc<Fanout>, clock: Clock, direct_max: i64) -> Self {
        Self {
            store,
            fanout,
            clock,
            direct_max,
        }
    }

    /// The direct conversation with somebody, made if it does not exist.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such user, `INVALID` for oneself.
    pub async fn direct(&self, creator: &Access, other: UserId) -> Result<Made, AppError> {
        let me = creator.user_id;
        if me == other {
            let detail = ErrorDetail::new("user_id", "is yourself", "the id of somebody else");
            return Err(detail.into());
        }
        let direct = self
            .store
            .ensure_direct(me, other, self.clock.now())
            .await?;
        let direct = direct.ok_or_else(AppError::not_found)?;
        if direct.created {
            self.fanout
                .direct_created(direct.conversation_id, [me, other]);
        }
        let conversation = self.get(creator, direct.conversation_id).await?;
        Ok(Made {
            conversation,
            created: direct.created,
        })
    }

    /// A new group with its creator as owner; with the client's own id, the one that it made
    /// before.
    ///
    /// # Errors
    /// `INVALID` with the field; `CONFLICT` for an id that is somebody else's.
    pub async fn create_group(
        &self,
        creator: &Access,
        request: GroupRequest,
    ) -> Result<Made, AppError> {
        check_texts(request.title.as_deref(), request.description.as_deref())?;
        check_named("member_ids", &request.member_ids)?;
        let id = match request.conversation_id {
            Some(id) => check_client_made(id)?,
            None => ConversationId::from_uuid(new_id()),
        };
        let mut seen = HashSet::from([creator.user_id]);
        let mut member_ids = request.member_ids;
        member_ids.retain(|id| seen.insert(*id));
        let group = NewGroup {
            conversation_id: id,
            message_id: MessageId::from_uuid(new_id()),
            creator: creator.user_id,
            notice_text: notice::created(&creator.username, request.title.as_deref()),
            title: request.title,
            description: request.description,
            history_visible: request.history_visible,
            member_ids,
            direct_max: self.direct_max,
        };
        let made = self.store.create_group(&group, self.clock.now()).await??;
        if let Some(entry) = &made.entry {
            self.fanout.entry(entry, &made.members, &[]);
        }
        let conversation = self.get(creator, id).await?;
        Ok(Made {
            conversation,
            created: made.entry.is_some(),
        })
    }

    /// One conversation.
    ///
    /// # Errors
    /// `NOT_FOUND` unless one is a member.
    pub async fn get(&self, viewer: &Access, id: ConversationId) -> Result<Conversation, AppError> {
        let found = self.store.conversation(viewer.user_id, id).await?;
        found.ok_or_else(AppError::not_found)
    }

    /// One's conversations, newest activity first.
    ///
    /// # Errors
    /// `INVALID` for a query that no title can contain.
    pub async fn list(
        &self,
        viewer: &Access,
        filter: &ConversationFilter,
    ) -> Result<Vec<ListedConversation>, AppError> {
        if let Some(query) = &filter.query {
            validate::text_within("query", query, 0, limits::TITLE_CHARS)?;
        }
        Ok(self.store.conversations_of(viewer.user_id, filter).await?)
    }

    /// Present members by user id, after `after`.
    ///
    /// # Errors
    /// `NOT_FOUND` unless one is a member.
    pub async fn members(
        &self,
        viewer: &Access,
        id: ConversationId,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<Member>, AppError> {
        self.require_member(viewer, id).await?;
        Ok(self.store.members(id, after, limit).await?)
    }

    pub(super) async fn require_member(
        &self,
        viewer: &Access,
        id: ConversationId,
    ) -> Result<(), AppError> {
        let membership = self.store.membership(viewer.user_id, id).await?;
        if membership.is_some_and(|membership| membership.is_present()) {
            return Ok(());
        }
        Err(AppError::not_found())
    }
}

pub(super) fn check_texts(title: Option<&str>, description: Option<&str>) -> Result<(), AppError> {
    if let Some(title) = title {
        validate::line("title", title, limits::TITLE_CHARS)?;
    }
    if let Some(description) = description {
        validate::text_within("description", description, 1, limits::DESCRIPTION_CHARS)?;
    }
    Ok(())
}

pub(super) fn check_named(field: &str, user_ids: &[UserId]) -> Result<(), AppError> {
    if user_ids.len() > limits::MEMBERS_PER_CALL {
        let detail = ErrorDetail::new(field, "names too many", "at most 1,000 users a call");
        return Err(detail.into());
    }
    Ok(())
}

/// Ids of direct conversations are derived (UUIDv5). A group that took one would be found by two
/// others in place of their direct conversation, so clients may bring only ids of other versions.
fn check_client_made(id: ConversationId) -> Result<ConversationId, AppError> {
    let uuid = id.as_uuid();
    if uuid.get_variant() == Variant::RFC4122 && matches!(uuid.get_version_num(), 4 | 7) {
        return Ok(id);
    }
    let detail = ErrorDetail::new("conversation_id", "is not a fresh id", "a UUIDv7 or UUIDv4");
    Err(detail.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_take_the_id_of_a_direct_conversation() {
        let one = UserId::from_uuid(new_id());
        let other = UserId::from_uuid(new_id());
        let refused = check_client_made(ConversationId::direct(one, other)).unwrap_err();
        assert_eq!(refused.details[0].field, "conversation_id");
        assert!(check_client_made(ConversationId::from_uuid(uuid::Uuid::nil())).is_err());
        assert!(check_client_made(ConversationId::from_uuid(uuid::Uuid::max())).is_err());
        assert!(check_client_made(ConversationId::from_uuid(new_id())).is_ok());
        let v4 = "936da01f-9abd-4d9d-80c7-02af85c822a8".parse().unwrap();
        assert!(check_client_made(v4).is_ok());
    }
}
