//! Blocks: whom one does not want to hear from.
//!
//! The blocked one cannot write in the direct conversation of the two, and sees no presence of
//! whoever blocks; where there is no such conversation yet, that user does not exist. Groups that
//! both are in stay as they are: what to hide there is the client's to decide.

use rookery_protocol::UserId;
use rookery_protocol::event::ErrorDetail;

use super::Accounts;
use crate::auth::Access;
use crate::error::AppError;

impl Accounts {
    /// Blocks somebody, or ends it. Repeating it changes nothing.
    ///
    /// # Errors
    /// `INVALID` for oneself, `NOT_FOUND` if there is no such user.
    pub async fn set_block(
        &self,
        access: &Access,
        other: UserId,
        blocked: bool,
    ) -> Result<(), AppError> {
        let me = access.user_id;
        if me == other {
            let detail = ErrorDetail::new("user_id", "is yourself", "the id of somebody else");
            return Err(detail.into());
        }
        let now = self.clock.now();
        let changed = self.store.set_block(me, other, blocked, now).await?;
        if changed.ok_or_else(AppError::not_found)? {
            self.fanout.blocked(me, other, blocked);
        }
        Ok(())
    }

    /// Whom one blocks, by user id, after `after`.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn blocked(
        &self,
        access: &Access,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<UserId>, AppError> {
        let blocks = self.store.blocks_of(access.user_id, after, limit).await?;
        Ok(blocks)
    }
}
