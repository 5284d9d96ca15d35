//! Changing messages in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::changes::message_changes;
use crate::store::sql::groups::head;

// dialect: row locks.
const HEAD_LOCKED: &str = concat!(head!(), " for update");

message_changes!(PostgresStore);
