//! Groups in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::groups::{add_members, groups, head, named_members, strangers};

// dialect: row locks.
const HEAD_LOCKED: &str = concat!(head!(), " for update");
// dialect: lists.
const ADD_MEMBERS: &str = add_members!("(select unnest($4::uuid[]) as user_id)");
const NAMED_MEMBERS: &str = named_members!("= any($2)");
const STRANGERS: &str = strangers!("= any($2)");
const ACCOUNTS_AMONG: &str =
    "select count(*) from users where deleted_at is null and user_id = any($1)";

groups!(PostgresStore);
