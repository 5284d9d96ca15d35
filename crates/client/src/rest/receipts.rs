//! How far oneself and others are, and what one is told of.

use rookery_protocol::conversation::Conversation;
use rookery_protocol::rest::{BulkMark, Marks, MessageReceipt, Page, UpdateMembership};
use rookery_protocol::{ConversationId, Seq, Timestamp};
use serde::de::IgnoredAny;

use super::{Api, ApiError, PageRequest};

impl Api {
    /// Marks up to 1,000 conversations as read, each up to its `seq`; all or, if one is refused,
    /// none. Returns when the marks are stored.
    ///
    /// # Errors
    /// `INVALID`: `marks.<n>.seq` is beyond the end, or there are too many; `NOT_FOUND`.
    pub async fn mark_all_read(&self, marks: &[BulkMark]) -> Result<(), ApiError> {
        self.mark_all("/receipts/read", marks).await
    }

    /// As [`Api::mark_all_read`], as delivered.
    ///
    /// # Errors
    /// As [`Api::mark_all_read`].
    pub async fn mark_all_delivered(&self, marks: &[BulkMark]) -> Result<(), ApiError> {
        self.mark_all("/receipts/delivered", marks).await
    }

    async fn mark_all(&self, path: &str, marks: &[BulkMark]) -> Result<(), ApiError> {
        let marks = marks.to_vec();
        self.post::<_, IgnoredAny>(path, &Marks { marks })
            .await
            .map(drop)
    }

    /// One page of how far the other members are with a message.
    ///
    /// # Errors
    /// `NOT_FOUND`, also where one is no member or does not see it.
    pub async fn message_receipts(
        &self,
        id: ConversationId,
        seq: Seq,
        page: &PageRequest,
    ) -> Result<Page<MessageReceipt>, ApiError> {
        let path = format!("/conversations/{id}/messages/{seq}/receipts");
        self.get(&path, &page.pairs()).await
    }

    /// Mutes a conversation until then, on all of one's devices; `None` ends it.
    ///
    /// # Errors
    /// `INVALID`: more than ten years ahead; `NOT_FOUND`.
    pub async fn mute(
        &self,
        id: ConversationId,
        until: Option<Timestamp>,
    ) -> Result<Conversation, ApiError> {
        let muted_until = Some(until);
        self.patch(
            &format!("/conversations/{id}/me"),
            &UpdateMembership { muted_until },
        )
        .await
    }
}
