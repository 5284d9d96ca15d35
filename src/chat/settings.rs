//! One's own settings of a conversation.

use rookery_protocol::ConversationId;
use rookery_protocol::conversation::Conversation;
use rookery_protocol::event::ErrorDetail;
use rookery_protocol::rest::UpdateMembership;

use super::conversations::Conversations;
use crate::auth::Access;
use crate::error::AppError;

/// The furthest that a conversation can be muted, in milliseconds: "for good" is ten years.
const MUTE_MAX_MS: i64 = 10 * 366 * 24 * 3_600 * 1_000;

impl Conversations {
    /// Changes the caller's own settings of a conversation; all of one's devices hear of it.
    ///
    /// # Errors
    /// `NOT_FOUND` unless one is a member, `INVALID` for a time that is too far away.
    pub async fn update_own(
        &self,
        member: &Access,
        id: ConversationId,
        change: UpdateMembership,
    ) -> Result<Conversation, AppError> {
        if let Some(until) = change.muted_until {
            let furthest = self.clock.now().plus_millis(MUTE_MAX_MS);
            if until.is_some_and(|until| until > furthest) {
                let allowed = format!("a time up to {furthest}, or null");
                let detail = ErrorDetail::new("muted_until", "is too far away", &allowed);
                return Err(detail.into());
            }
            if !self.store.mute(member.user_id, id, until).await? {
                return Err(AppError::not_found());
            }
            self.fanout.own_settings(member.user_id, id);
        }
        self.get(member, id).await
    }
}
