//! Blocks in SQLite.

use super::SqliteStore;
use crate::store::sql::blocks::{block_store, first_of_pair};
use crate::store::sql::groups::head;

// dialect: no row locks; the transaction is the only writer.
const HEAD_LOCKED: &str = head!();
const FIRST_OF_PAIR_LOCKED: &str = first_of_pair!();
// dialect: lists.
const BLOCKERS_AMONG: &str = "select user_id from blocks \
    where blocked_id = $1 and user_id in (select unhex(value) from json_each($2))";
const BLOCKS_AMONG: &str = "select user_id, blocked_id from blocks \
    where user_id in (select unhex(value) from json_each($1)) \
    and blocked_id in (select unhex(value) from json_each($2))";

block_store!(SqliteStore);
