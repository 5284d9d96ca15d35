//! The logs in SQLite.

mod append;
mod changes;

use std::sync::Arc;

use async_trait::async_trait;
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, Seq, Timestamp};

use super::SqliteStore;
use crate::store::sql::messages::{self as sql, MessageRecord, NEWEST, OLDEST, message_reads};
use crate::store::{
    Direction, HistoryPage, LogEntry, MessageChange, MessageChanged, MessageRule, MessageStore,
    NewMessage, Outcome, Refusal, Result, Stretch, Wait,
};

// dialect: lists.
const MESSAGES_AMONG: &str = sql::messages_among!("in (select value from json_each($2))");
const REACTIONS_ON: &str = sql::reactions_on!("in (select value from json_each($2))");

message_reads!(SqliteStore);

#[async_trait]
impl MessageStore for SqliteStore {
    /// Nobody holds a single conversation here: the whole file has one writer, which is waited for
    /// in either case.
    async fn append_shared(
        &self,
        batch: Arc<[NewMessage]>,
        _wait: Wait,
        at: Timestamp,
    ) -> Result<Vec<Outcome>> {
        append::append(self, batch, at).await
    }

    async fn change_message(
        &self,
        change: &MessageChange,
        rule: MessageRule,
        at: Timestamp,
    ) -> Result<std::result::Result<MessageChanged, Refusal>> {
        changes::change(self, change, rule, at).await
    }

    async fn entries(
        &self,
        id: ConversationId,
        after: Seq,
        to: Seq,
        limit: i64,
    ) -> Result<Vec<LogEntry>> {
        read_entries(self, id, (after, to), limit).await
    }

    /// One after the other: there is no way to the file that would be saved.
    async fn entries_of(&self, stretches: &[Stretch]) -> Result<Vec<Vec<LogEntry>>> {
        let mut entries = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            let (id, ends) = (stretch.conversation_id, (stretch.after, stretch.to));
            entries.push(read_entries(self, id, ends, i64::MAX).await?);
        }
        Ok(entries)
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
        with_reactions(
            self,
            page.conversation_id,
            sql::ascending(records, page.direction),
        )
        .await
    }
}
