//! The journal in PostgreSQL.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use rookery_protocol::Timestamp;

use super::PostgresStore;
use crate::store::sql::journal::{EPOCH, Gathering, PRUNE};
use crate::store::{JournalPage, JournalPosition, JournalStore, Result};

/// The oldest transaction still open. What commits later has this number or a greater one.
const POSITION: &str = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint";

/// The rows from a position on, each beside the next position; the position alone if there are
/// none. One statement, so that rows and position are of one snapshot: a row that is not in it
/// belongs to a transaction that is still open, or not begun, and is found from the next position.
const LOOK: &str = "
    select next.xmin, j.xid::text::bigint, j.kind, j.payload
    from (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as xmin) next
    left join journal j on j.xid >= $1::text::xid8
    order by j.xid";

type LookRow = (i64, Option<i64>, Option<String>, Option<Vec<u8>>);

#[async_trait]
impl JournalStore for PostgresStore {
    async fn journal(&self, from: Option<JournalPosition>) -> Result<JournalPage> {
        let Some(JournalPosition(from)) = from else {
            let xmin = sqlx::query_scalar(POSITION)
                .fetch_one(self.reader())
                .await?;
            return Ok(JournalPage {
                rows: Vec::new(),
                next: JournalPosition(xmin),
            });
        };
        let mut next = from;
        let mut gathering = Gathering::default();
        let mut look = sqlx::query_as::<_, LookRow>(LOOK)
            .bind(from.to_string())
            .fetch(self.reader());
        while let Some((xmin, xid, kind, payload)) = look.try_next().await? {
            next = xmin;
            if let (Some(xid), Some(kind), Some(payload)) = (xid, kind, payload) {
                gathering.add(xid, &kind, &payload)?;
            }
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
        // dialect: a restore to an earlier point, or a promoted standby that had not received
        // everything, begins a new timeline: the first eight digits of the name of a log file.
        let timeline = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
        let timeline: String = sqlx::query_scalar(timeline)
            .fetch_one(self.reader())
            .await?;
        let epoch: String = sqlx::query_scalar(EPOCH).fetch_one(self.reader()).await?;
        Ok(format!("{epoch}-{timeline}"))
    }

    async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(self.reader()).await?;
        Ok(())
    }
}
