//! Groups in SQLite.

use super::SqliteStore;
use crate::store::sql::groups::{add_members, groups, head, named_members, strangers};

// dialect: no row locks; the transaction is the only writer.
const HEAD_LOCKED: &str = head!();
const END_ALL_MEMBERSHIPS: &str = "update members set left_seq = $2 \
    where conversation_id = $1 and left_seq is null returning user_id";
// dialect: lists.
const ADD_MEMBERS: &str = add_members!("(select unhex(value) as user_id from json_each($4))");
const NAMED_MEMBERS: &str = named_members!("in (select unhex(value) from json_each($2))");
const STRANGERS: &str = strangers!("in (select unhex(value) from json_each($2))");
const ACCOUNTS_AMONG: &str = "select count(*) from users \
    where deleted_at is null and user_id in (select unhex(value) from json_each($1))";

groups!(SqliteStore);
