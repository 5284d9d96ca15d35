//! The annex' SQLite file, as one reads it beside the node: what it holds, and an older state of it
//! put in its place.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rookery_oracle::FinalState;
use rookery_protocol::{ConversationId, Seq};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::rest::{self, Owed};

/// The node that writes to it is never in the way for long.
const BUSY_WITHIN: Duration = Duration::from_secs(30);

/// A column with an id, as text.
macro_rules! id {
    ($column:literal) => {
        concat!("lower(hex(", $column, "))")
    };
}

/// As `rookery_oracle::state::rows`, in SQLite's words.
const MESSAGES: &str = concat!(
    "select json_object('conversation', ",
    id!("conversation_id"),
    ", 'seq', seq, 'message_id', ",
    id!("message_id"),
    ", 'sender', ",
    id!("sender_id"),
    ", 'kind', kind, 'of', target_seq, \
     'content', case when kind in ('text', 'system') and deleted_at is null \
                     then cast(content as text) end, \
     'changed', json(iif(edited_at is not null or deleted_at is not null, 'true', 'false')), \
     'notice', case when kind = 'system' then json(metadata) end) \
     from messages order by conversation_id, seq"
);
const MEMBERSHIPS: &str = concat!(
    "select json_object('conversation', ",
    id!("conversation_id"),
    ", 'user', ",
    id!("user_id"),
    ", 'joined', joined_seq, 'left', left_seq, \
     'history_visible', json(iif(history_visible, 'true', 'false')), \
     'delivered', delivered_seq, 'read', read_seq) \
     from members join conversations using (conversation_id)"
);
const OWED: &str = concat!(
    "select ",
    id!("user_id"),
    " || '|' || ",
    id!("conversation_id"),
    " || '|' || max(seq) \
     from members join messages using (conversation_id) \
     where left_seq is null and seq > joined_seq and kind <> 'system' \
     group by user_id, conversation_id"
);
const HEADS: &str = concat!(
    "select ",
    id!("conversation_id"),
    " || '|' || last_seq from conversation_heads"
);
const EPOCH: &str = "select value from meta where key = 'epoch'";

/// A database file, of the node or a copy.
#[derive(Clone, Debug)]
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// All that it holds, as the oracle wants it.
    pub(crate) async fn truth(&self) -> Result<FinalState> {
        let messages = self.rows(MESSAGES).await?;
        let memberships = self.rows(MEMBERSHIPS).await?;
        let state = FinalState::of_rows(&messages.join("\n"), &memberships.join("\n"))?;
        Ok(FinalState {
            epoch: Some(self.epoch().await?),
            ..state
        })
    }

    /// Which incarnation of the database it is.
    pub(crate) async fn epoch(&self) -> Result<String> {
        let epoch = self.rows(EPOCH).await?;
        epoch.into_iter().next().context("it has no epoch")
    }

    pub(crate) async fn owed(&self) -> Result<Owed> {
        rest::owed(&self.rows(OWED).await?.join("\n"))
    }

    /// The last entry of each conversation.
    pub(crate) async fn heads(&self) -> Result<HashMap<ConversationId, Seq>> {
        let head = |row: &String| {
            let (room, seq) = row.split_once('|').context("no two columns")?;
            anyhow::Ok((room.parse()?, Seq(seq.parse()?)))
        };
        self.rows(HEADS).await?.iter().map(head).collect()
    }

    /// Puts a copy in its place, as `docs/OPERATIONS.md` says. No node may have it open.
    pub(crate) fn replace_with(&self, copy: &Self) -> Result<()> {
        for end in ["-wal", "-shm"] {
            let mut beside = self.0.clone().into_os_string();
            beside.push(end);
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        std::fs::remove_file(&self.0)?;
        std::fs::copy(&copy.0, &self.0)?;
        Ok(())
    }

    /// The first column of each row.
    async fn rows(&self, statement: &'static str) -> Result<Vec<String>> {
        let options = SqliteConnectOptions::new()
            .filename(&self.0)
            .read_only(true)
            .busy_timeout(BUSY_WITHIN);
        let mut connection: SqliteConnection = options.connect().await?;
        let rows = sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_all(&mut connection)
            .await?;
        connection.close().await?;
        Ok(rows)
    }
}
