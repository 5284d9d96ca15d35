//! The logs in SQLite.

mod append;

use async_trait::async_trait;
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, Seq, Timestamp};

use super::SqliteStore;
use crate::store::sql::messages::{ENTRIES, MessageRecord, NEWEST, OLDEST, ascending};
use crate::store::{Direction, HistoryPage, MessageStore, NewMessage, Outcome, Result, Wait};

#[async_trait]
impl MessageStore for SqliteStore {
    /// Nobody holds a single conversation here: the whole file has one writer, which is waited for
    /// in either case.
    async fn append(
        &self,
        batch: &[NewMessage],
        _wait: Wait,
        at: Timestamp,
    ) -> Result<Vec<Outcome>> {
        append::append(self, batch, at).await
    }

    async fn entries(
        &self,
        id: ConversationId,
        after: Seq,
        to: Seq,
        limit: i64,
    ) -> Result<Vec<Message>> {
        let records: Vec<MessageRecord> = sqlx::query_as(ENTRIES)
            .bind(id)
            .bind(after)
            .bind(to)
            .bind(limit)
            .fetch_all(self.reader())
            .await?;
        records.into_iter().map(Message::try_from).collect()
    }

    async fn history(&self, page: &HistoryPage) -> Result<Vec<Message>> {
        let statement = match page.direction {
            Direction::Backward => NEWEST,
            Direction::Forward => OLDEST,
        };
        let records: Vec<MessageRecord> = sqlx::query_as(statement)
            .bind(page.conversation_id)
            .bind(page.after)
            .bind(page.before)
            .bind(page.limit)
            .fetch_all(self.reader())
            .await?;
        ascending(records, page.direction)
    }
}
