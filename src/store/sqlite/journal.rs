//! The journal in SQLite: one writer at a time, so numbers are in the order of commits, and what is
//! not there yet gets a greater one.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use std::time::Duration;

use super::SqliteStore;
use crate::store::sql::journal::{Gathering, PAGE_ROWS, is_stale};
use crate::store::{Connections, JournalPage, JournalPosition, JournalStore, Result};

// dialect: the clock.
macro_rules! now {
    () => {
        "cast(unixepoch('subsec') * 1000 as integer)"
    };
}

pub(super) const INSERT: &str = concat!(
    "insert into journal (kind, payload, at) values ($1, $2, ",
    now!(),
    ")"
);

const PRUNE: &str = concat!("delete from journal where at < ", now!(), " - $1");

/// The last number given out, also when its row was pruned; and the time.
const POSITION: &str = concat!(
    "select coalesce((select seq from sqlite_sequence where name = 'journal'), 0), ",
    now!()
);

const LOOK: &str = "select xid, kind, payload from journal where xid >= $1 order by xid limit $2";

#[async_trait]
impl JournalStore for SqliteStore {
    async fn journal(
        &self,
        from: Option<&JournalPosition>,
        _within: Duration,
    ) -> Result<JournalPage> {
        // Before the rows: what is committed between is told again, not passed over.
        let (last, at_ms): (i64, i64) = sqlx::query_as(POSITION).fetch_one(self.reader()).await?;
        let Some(from) = from else {
            let next = JournalPosition {
                next: last + 1,
                current_at_ms: at_ms,
                ..JournalPosition::default()
            };
            return Ok(JournalPage {
                rows: Vec::new(),
                next,
                more: false,
                lost: false,
            });
        };
        let mut next = from.clone();
        let mut gathering = Gathering::default();
        let mut count = 0;
        let mut look = sqlx::query_as::<_, (i64, String, Vec<u8>)>(LOOK)
            .bind(from.next)
            .bind(PAGE_ROWS)
            .fetch(self.reader());
        while let Some((xid, kind, payload)) = look.try_next().await? {
            next.next = xid + 1;
            gathering.add(xid, &kind, &payload)?;
            count += 1;
        }
        let more = count == PAGE_ROWS;
        if !more {
            next.current_at_ms = at_ms;
        }
        Ok(JournalPage {
            rows: gathering.into_rows(),
            next,
            more,
            lost: is_stale(from, at_ms),
        })
    }

    async fn prune_journal(&self, age: Duration) -> Result<u64> {
        let pruned = sqlx::query(PRUNE)
            .bind(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
            .execute(self.writer())
            .await?;
        Ok(pruned.rows_affected())
    }

    async fn epoch(&self) -> Result<String> {
        let epoch = "select value from meta where key = 'epoch'";
        Ok(sqlx::query_scalar(epoch).fetch_one(self.reader()).await?)
    }

    async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(self.reader()).await?;
        Ok(())
    }

    fn connections(&self) -> Connections {
        let pools = [&self.writer, &self.readers];
        let all: usize = pools.iter().map(|pool| pool.size() as usize).sum();
        let idle = pools.iter().map(|pool| pool.num_idle()).sum();
        let max = pools
            .iter()
            .map(|pool| pool.options().get_max_connections() as usize);
        Connections {
            used: all.saturating_sub(idle),
            idle,
            max: max.sum(),
        }
    }
}
