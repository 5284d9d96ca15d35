//! The journal in SQLite.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use rookery_protocol::Timestamp;

use super::SqliteStore;
use crate::store::sql::journal::{EPOCH, Gathering, PRUNE};
use crate::store::{JournalPage, JournalPosition, JournalStore, Result};

/// The last number given out, also when its row was pruned.
const POSITION: &str =
    "select coalesce((select seq from sqlite_sequence where name = 'journal'), 0)";

// dialect: one writer at a time: numbers are in the order of commits, and what is not there yet
// gets a greater one.
const LOOK: &str = "select xid, kind, payload from journal where xid > $1 order by xid";

#[async_trait]
impl JournalStore for SqliteStore {
    async fn journal(&self, from: Option<JournalPosition>) -> Result<JournalPage> {
        let Some(JournalPosition(from)) = from else {
            let last = sqlx::query_scalar(POSITION)
                .fetch_one(self.reader())
                .await?;
            return Ok(JournalPage {
                rows: Vec::new(),
                next: JournalPosition(last),
            });
        };
        let mut next = from;
        let mut gathering = Gathering::default();
        let mut look = sqlx::query_as::<_, (i64, String, Vec<u8>)>(LOOK)
            .bind(from)
            .fetch(self.reader());
        while let Some((xid, kind, payload)) = look.try_next().await? {
            next = xid;
            gathering.add(xid, &kind, &payload)?;
        }
        Ok(JournalPage {
            rows: gathering.into_rows(),
            next: JournalPosition(next),
        })
    }

    async fn prune_journal(&self, before: Timestamp) -> Result<u64> {
        let pruned = sqlx::query(PRUNE)
            .bind(before)
            .execute(self.writer())
            .await?;
        Ok(pruned.rows_affected())
    }

    async fn epoch(&self) -> Result<String> {
        Ok(sqlx::query_scalar(EPOCH).fetch_one(self.reader()).await?)
    }

    async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(self.reader()).await?;
        Ok(())
    }
}
