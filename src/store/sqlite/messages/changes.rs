//! Changing messages in SQLite.

use super::SqliteStore;
use crate::store::sql::changes::message_changes;
use crate::store::sql::groups::head;

// dialect: no row locks; the transaction is the only writer.
const HEAD_LOCKED: &str = head!();

message_changes!(SqliteStore);
