//! Blocks in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::blocks::{block_store, first_of_pair};
use crate::store::sql::groups::head;

// dialect: row locks.
const HEAD_LOCKED: &str = concat!(head!(), " for update");
const FIRST_OF_PAIR_LOCKED: &str = concat!(first_of_pair!(), " for no key update");
// dialect: lists.
const BLOCKERS_AMONG: &str =
    "select user_id from blocks where blocked_id = $1 and user_id = any($2)";
const BLOCKS_AMONG: &str = "select user_id, blocked_id from blocks \
    where user_id = any($1) and blocked_id = any($2)";

block_store!(PostgresStore);
