//! The logs in PostgreSQL.

mod append;
mod changes;
mod quick;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, Seq, Timestamp};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, Row};

pub(super) use append::Repeats;

use super::PostgresStore;
use crate::store::sql::messages::{
    self as sql, MessageRecord, NEWEST, OLDEST, message_columns, message_page, message_reads,
};
use crate::store::{
    Direction, HistoryPage, LogEntry, MessageChange, MessageChanged, MessageRule, MessageStore,
    NewMessage, Outcome, Refusal, Result, Stretch, Wait,
};

/// A page together with the end of the log as the replica has it, from one snapshot. The page is
/// ordered as it is read.
macro_rules! replica_page {
    ($order:literal) => {
        concat!(
            "select h.last_seq as head, page.* from conversation_heads h left join lateral (",
            message_page!($order),
            ") page on true where h.conversation_id = $1"
        )
    };
}
const NEWEST_ON_REPLICA: &str = replica_page!("desc");
const OLDEST_ON_REPLICA: &str = replica_page!("asc");

// dialect: lists.
const MESSAGES_AMONG: &str = sql::messages_among!("= any($2)");
const REACTIONS_ON: &str = sql::reactions_on!("= any($2)");

/// Stretches of several logs. `offset 0` keeps it at one look into the index for each.
const ENTRIES_OF: &str = concat!(
    "select ",
    message_columns!(),
    " from (select x.* from unnest($1::uuid[], $2::bigint[], $3::bigint[]) \
        as w (conversation_id, after, upto) \
      cross join lateral ( \
        select * from messages x \
        where x.conversation_id = w.conversation_id and x.seq > w.after and x.seq <= w.upto \
        offset 0) x) entries \
      order by conversation_id, seq"
);

message_reads!(PostgresStore);

#[async_trait]
impl MessageStore for PostgresStore {
    async fn append_shared(
        &self,
        batch: Arc<[NewMessage]>,
        wait: Wait,
        at: Timestamp,
    ) -> Result<Vec<Outcome>> {
        append::append(self, batch, wait, at).await
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

    async fn entries_of(&self, stretches: &[Stretch]) -> Result<Vec<Vec<LogEntry>>> {
        let ids = stretches.iter().map(|s| s.conversation_id.as_uuid());
        let after: Vec<i64> = stretches.iter().map(|s| s.after.0).collect();
        let to: Vec<i64> = stretches.iter().map(|s| s.to.0).collect();
        let records: Vec<MessageRecord> = sqlx::query_as(ENTRIES_OF)
            .bind(super::list(ids))
            .bind(after)
            .bind(to)
            .fetch_all(self.reader())
            .await?;
        let mut logs: HashMap<ConversationId, Vec<MessageRecord>> = HashMap::new();
        for record in records {
            logs.entry(record.conversation_id).or_default().push(record);
        }
        let mut entries = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            let id = stretch.conversation_id;
            let records = logs.remove(&id).unwrap_or_default();
            entries.push(entries_of_log(self, id, records).await?);
        }
        Ok(entries)
    }

    async fn history(&self, page: &HistoryPage) -> Result<Vec<Message>> {
        if let Some(replica) = &self.replica {
            match from_replica(replica, page).await {
                Ok(Some(records)) => {
                    return with_reactions(self, page.conversation_id, records).await;
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the replica did not answer"),
            }
            self.count_replica_fallback();
        }
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

    fn replica_fallbacks(&self) -> u64 {
        self.replica_fallbacks.load(Ordering::Relaxed)
    }
}

/// The page as the replica has it; `None` if its copy of the log is not there yet.
async fn from_replica(replica: &PgPool, page: &HistoryPage) -> Result<Option<Vec<MessageRecord>>> {
    let statement = match page.direction {
        Direction::Backward => NEWEST_ON_REPLICA,
        Direction::Forward => OLDEST_ON_REPLICA,
    };
    let rows: Vec<PgRow> = sqlx::query(statement)
        .bind(page.conversation_id)
        .bind(page.after)
        .bind(page.before)
        .bind(page.limit)
        .fetch_all(replica)
        .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    if first.try_get::<Seq, _>("head")? < page.known_head.min(page.before.previous()) {
        return Ok(None);
    }
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        // A log without a message in the range is one row of nulls beside its head.
        if row.try_get::<Option<Seq>, _>("seq")?.is_some() {
            records.push(MessageRecord::from_row(row)?);
        }
    }
    Ok(Some(sql::ascending(records, page.direction)))
}
