//! The journal in PostgreSQL.
//!
//! A look is exact and tells each row once, however long some transaction stays open: with the rows
//! it reads the snapshot in which it reads them. What the next look has to tell are the commits that
//! this snapshot did not see: those with a number that was not given yet, and those that were open.
//! Both are found by their numbers, so that a look costs what happened since the last one.
//!
//! A server that crashed may give numbers again that it had not written to its disk yet. They are
//! few, and whoever had a connection then has seen it break: the next look goes back a little.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

use super::PostgresStore;
use crate::store::sql::journal::{Gathering, PAGE_ROWS, is_stale};
use crate::store::{Connections, JournalPage, JournalPosition, JournalStore, Result, StoreError};

// dialect: the clock.
pub(super) const INSERT: &str = "insert into journal (kind, payload, at) \
    values ($1, $2, (extract(epoch from clock_timestamp()) * 1000)::bigint)";

const PRUNE: &str = "delete from journal where ctid = any(array( \
    select ctid from journal \
    where at < (extract(epoch from clock_timestamp()) * 1000)::bigint - $1 limit $2))";

/// Rows that one statement removes: after a long stop there are too many for the time that it has.
const PRUNE_ROWS: u64 = 10_000;
/// When a call leaves the rest to the next one: whoever prunes has looks to take.
const PRUNE_WITHIN: Duration = Duration::from_secs(1);

/// The present snapshot and time.
macro_rules! now {
    () => {
        "select pg_current_snapshot()::text as snapshot, \
            (extract(epoch from clock_timestamp()) * 1000)::bigint as at"
    };
}

/// Rows that a position does not have, each beside the snapshot; the snapshot alone if there are
/// none. First those that were open, then, in order, those that had no number yet. One statement, so
/// that all is of one snapshot.
const LOOK: &str = concat!(
    "select now.snapshot, now.at, j.late, j.xid::text::bigint, j.kind, j.payload from (",
    now!(),
    ") now left join (
        (select true as late, xid, kind, payload from journal
         where xid = any($2::text::xid8[]))
        union all
        (select false, xid, kind, payload from journal
         where xid >= $1::text::xid8 order by xid limit $3)) j on true"
);

/// How many numbers a server can have given and forgotten in a crash: more than begin in the moment
/// before what was committed is on the disk.
const FORGOTTEN_MAX: i64 = 10_000;

type LookRow = (
    String,
    i64,
    Option<bool>,
    Option<i64>,
    Option<String>,
    Option<Vec<u8>>,
);

/// Which transactions a statement saw as committed: those below `end` that are not `open`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Snapshot {
    end: i64,
    open: Vec<i64>,
}

impl Snapshot {
    /// From `xmin:xmax:xip,xip,…`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let _oldest_open = parts.next()?;
        let end = parts.next()?.parse().ok()?;
        let open = parts.next()?.split(',').filter(|number| !number.is_empty());
        let open: std::result::Result<_, _> = open.map(str::parse).collect();
        Some(Self {
            end,
            open: open.ok()?,
        })
    }
}

/// What a look has read so far.
#[derive(Default)]
struct Reading {
    snapshot: Snapshot,
    at_ms: i64,
    gathering: Gathering,
    /// Rows read of those that had no number at the position, and the last one's number.
    count: i64,
    last: i64,
}

impl Reading {
    fn take(&mut self, row: LookRow) -> Result<()> {
        let (snapshot, at_ms, late, xid, kind, payload) = row;
        if self.at_ms == 0 {
            let unreadable = || StoreError::Unavailable(format!("a snapshot like {snapshot}"));
            self.snapshot = Snapshot::parse(&snapshot).ok_or_else(unreadable)?;
            self.at_ms = at_ms;
        }
        if let (Some(late), Some(xid), Some(kind), Some(payload)) = (late, xid, kind, payload) {
            self.gathering.add(xid, &kind, &payload)?;
            if !late {
                self.count += 1;
                self.last = xid;
            }
        }
        Ok(())
    }

    /// The page of a reading from `from` that came to its end, or was cut off.
    fn into_page(self, from: &JournalPosition, is_cut: bool) -> JournalPage {
        let end = self.snapshot.end;
        let went_back = from.next - end > FORGOTTEN_MAX;
        let lost = went_back || is_stale(from, self.at_ms);
        let more = is_cut || self.count == PAGE_ROWS;
        let mut next = JournalPosition {
            next: end,
            open: self.snapshot.open,
            current_at_ms: self.at_ms,
            troubles: from.troubles,
        };
        if end < from.next {
            next.next = (end - FORGOTTEN_MAX).max(0);
        }
        if more {
            // The last one may have written another row.
            next.next = from.next.max(self.last);
            next.current_at_ms = from.current_at_ms;
            next.open.retain(|xid| *xid < next.next);
            next.open.extend(&from.open);
            next.open.sort_unstable();
            next.open.dedup();
        }
        JournalPage {
            rows: self.gathering.into_rows(),
            next,
            more,
            lost,
        }
    }
}

#[async_trait]
impl JournalStore for PostgresStore {
    async fn journal(
        &self,
        from: Option<&JournalPosition>,
        within: Duration,
    ) -> Result<JournalPage> {
        let deadline = Instant::now() + within;
        // Before anything is read: trouble from now on is for the next look.
        let troubles = self.troubles();
        let Some(from) = from else {
            return present(self, troubles, deadline).await;
        };
        let mut from = from.clone();
        if from.troubles != troubles {
            from.next = (from.next - FORGOTTEN_MAX).max(0);
            from.troubles = troubles;
        }
        let lease = timeout_at(deadline, self.primary.lease()).await;
        let mut lease = lease.map_err(|_| too_slow())??;
        let mut reading = Reading::default();
        let mut look = sqlx::query_as::<_, LookRow>(LOOK)
            .bind(from.next.to_string())
            .bind(array(&from.open))
            .bind(PAGE_ROWS)
            .fetch(&mut *lease);
        let ended = loop {
            match timeout_at(deadline, look.try_next()).await {
                Ok(Ok(Some(row))) => reading.take(row)?,
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(error)) => break Err(error),
                Err(_) => break Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
            }
        };
        drop(look);
        match lease.note(ended) {
            Ok(()) => Ok(reading.into_page(&from, false)),
            // What was read is worth telling, and the next look has less to read.
            Err(_) if reading.count > 0 => Ok(reading.into_page(&from, true)),
            Err(error) => Err(error.into()),
        }
    }

    async fn prune_journal(&self, age: Duration) -> Result<u64> {
        let began = Instant::now();
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let mut pruned = 0;
        loop {
            let portion = sqlx::query(PRUNE)
                .bind(age)
                .bind(PRUNE_ROWS.cast_signed())
                .execute(self.writer())
                .await?
                .rows_affected();
            pruned += portion;
            if portion < PRUNE_ROWS || began.elapsed() > PRUNE_WITHIN {
                return Ok(pruned);
            }
        }
    }

    async fn epoch(&self) -> Result<String> {
        // dialect: a restore to an earlier point, or a promoted standby that had not received
        // everything, begins a new timeline: the first eight digits of the name of a log file. A
        // restart goes on with the old one; while the server recovers this is an error.
        let timeline = "select value, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) \
                        from meta where key = 'epoch'";
        let (epoch, timeline): (String, String) =
            sqlx::query_as(timeline).fetch_one(self.reader()).await?;
        Ok(format!("{epoch}-{timeline}"))
    }

    async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(self.reader()).await?;
        Ok(())
    }

    fn connections(&self) -> Connections {
        let pool = &self.primary.pool;
        let (all, idle) = (pool.size() as usize, pool.num_idle());
        Connections {
            used: all.saturating_sub(idle),
            idle,
            max: pool.options().get_max_connections() as usize,
        }
    }
}

/// Where the journal is now.
async fn present(store: &PostgresStore, troubles: u64, deadline: Instant) -> Result<JournalPage> {
    let asked = sqlx::query_as::<_, (String, i64)>(now!()).fetch_one(store.reader());
    let (snapshot, at_ms) = timeout_at(deadline, asked)
        .await
        .map_err(|_| too_slow())??;
    let mut reading = Reading::default();
    reading.take((snapshot, at_ms, None, None, None, None))?;
    let from = JournalPosition {
        current_at_ms: at_ms,
        troubles,
        ..JournalPosition::default()
    };
    Ok(reading.into_page(&from, false))
}

fn too_slow() -> StoreError {
    StoreError::Unavailable("the journal was not read in time".to_owned())
}

/// `xid8` has no binary form that the driver knows, nor have its arrays.
fn array(xids: &[i64]) -> String {
    let xids: Vec<String> = xids.iter().map(i64::to_string).collect();
    format!("{{{}}}", xids.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(snapshot: &str, rows: &[i64]) -> Reading {
        let mut reading = Reading::default();
        reading
            .take((snapshot.to_owned(), 1, None, None, None, None))
            .unwrap();
        for xid in rows {
            let row = (Some("entries".to_owned()), Some(Vec::new()));
            let row = (
                snapshot.to_owned(),
                1,
                Some(false),
                Some(*xid),
                row.0,
                row.1,
            );
            reading.take(row).unwrap();
        }
        reading
    }

    fn position(next: i64, open: &[i64]) -> JournalPosition {
        JournalPosition {
            next,
            open: open.to_vec(),
            ..JournalPosition::default()
        }
    }

    fn parts(page: &JournalPage) -> (i64, &[i64]) {
        (page.next.next, &page.next.open)
    }

    #[test]
    fn a_snapshot_is_read_from_its_text() {
        let of = |text| Snapshot::parse(text);
        let snapshot = |end, open: &[i64]| Snapshot {
            end,
            open: open.to_vec(),
        };
        assert_eq!(of("7:7:"), Some(snapshot(7, &[])));
        assert_eq!(of("3:9:3,5"), Some(snapshot(9, &[3, 5])));
        for bad in ["", "7", "7:7", "7:x:", "7:9:8,"] {
            assert_eq!(of(bad).is_none(), bad != "7:9:8,", "{bad}");
        }
    }

    #[test]
    fn after_a_whole_page_what_its_snapshot_did_not_see_is_left() {
        let page = reading("12:20:12,15", &[11, 13]).into_page(&position(10, &[4]), false);
        assert_eq!(parts(&page), (20, [12, 15].as_slice()));
        assert!(!page.more && !page.lost);
    }

    #[test]
    fn after_a_part_of_one_what_was_not_read_is_left_too() {
        let page = reading("12:20:12,15", &[11, 13]).into_page(&position(10, &[4]), true);
        assert_eq!(parts(&page), (13, [4, 12].as_slice()));
        assert!(page.more);
    }

    #[test]
    fn numbers_that_a_crash_took_back_are_looked_at_again() {
        let page = reading("90000:90000:", &[]).into_page(&position(90_002, &[]), false);
        assert_eq!(page.next.next, 90_000 - FORGOTTEN_MAX);
        assert!(!page.lost);
    }

    #[test]
    fn a_database_far_behind_the_position_was_set_back() {
        let page = reading("700:700:", &[]).into_page(&position(90_000, &[]), false);
        assert!(page.lost);
    }
}
