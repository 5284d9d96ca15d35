//! How users want to appear, when they were seen last, and who may know.

/// Of two choices, on whatever nodes and with whatever clocks, the second gets the later time.
pub(in crate::store) const CHOOSE: &str = "update users set \
    chosen_status = $2, \
    chosen_at = case when chosen_at >= $3 then chosen_at + 1 else $3 end \
    where user_id = $1 and deleted_at is null returning chosen_at";

/// Implements `PresenceStore`; needs `SHARING_WITH`, `ACQUAINTANCES` and `note_seen`.
macro_rules! presence_store {
    ($store:ty) => {
        use async_trait::async_trait;
        use rookery_protocol::user::ChosenStatus;
        use rookery_protocol::{Timestamp, UserId};
        use uuid::Uuid;

        use $crate::store::sql::presence as sql;
        use $crate::store::{Chosen, PresenceStore, Result};

        #[async_trait]
        impl PresenceStore for $store {
            async fn choose_status(
                &self,
                user: UserId,
                status: ChosenStatus,
                at: Timestamp,
            ) -> Result<Option<Chosen>> {
                let at: Option<Timestamp> = sqlx::query_scalar(sql::CHOOSE)
                    .bind(user)
                    .bind(status.as_str())
                    .bind(at)
                    .fetch_optional(self.writer())
                    .await?;
                Ok(at.map(|at| Chosen { status, at }))
            }

            async fn note_last_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<()> {
                if seen.is_empty() {
                    return Ok(());
                }
                note_seen(self, seen).await
            }

            async fn shares_conversation_with(
                &self,
                viewer: UserId,
                users: &[UserId],
            ) -> Result<Vec<UserId>> {
                if users.is_empty() {
                    return Ok(Vec::new());
                }
                Ok(sqlx::query_scalar(SHARING_WITH)
                    .bind(viewer)
                    .bind(super::list(users.iter().map(UserId::as_uuid)))
                    .fetch_all(self.reader())
                    .await?)
            }

            async fn acquaintances(
                &self,
                viewer: UserId,
                after: Option<UserId>,
                limit: i64,
            ) -> Result<Vec<UserId>> {
                Ok(sqlx::query_scalar(ACQUAINTANCES)
                    .bind(viewer)
                    // No account has the nil id: all come after it.
                    .bind(after.unwrap_or(UserId::from_uuid(Uuid::nil())))
                    .bind(limit)
                    .fetch_all(self.reader())
                    .await?)
            }
        }
    };
}
pub(in crate::store) use presence_store;
