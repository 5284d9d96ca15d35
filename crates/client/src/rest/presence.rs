//! Who is online.

use rookery_protocol::UserId;
use rookery_protocol::event::Presence;
use rookery_protocol::rest::Page;

use super::{Api, ApiError, PageRequest};

impl Api {
    /// How somebody appears.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is no such user, or one shares no conversation with them.
    pub async fn presence(&self, user: UserId) -> Result<Presence, ApiError> {
        self.get(&format!("/users/{user}/presence"), &[]).await
    }

    /// How these users appear, at most 200; those one shares no conversation with are left out.
    ///
    /// # Errors
    /// `INVALID`: too many ids.
    pub async fn presence_of(&self, ids: &[UserId]) -> Result<Vec<Presence>, ApiError> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let pairs = [("user_ids", ids.join(","))];
        let page: Page<Presence> = self.get("/presence", &pairs).await?;
        Ok(page.items)
    }

    /// Those online with whom one shares a conversation, page by page.
    ///
    /// # Errors
    /// `INVALID`: the cursor is not allowed.
    pub async fn online_page(&self, page: &PageRequest) -> Result<Page<Presence>, ApiError> {
        self.get("/presence/online", &page.pairs()).await
    }
}
