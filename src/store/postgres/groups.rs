//! Groups in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::groups::{add_members, groups, head, named_members, strangers};

// dialect: row locks.
const HEAD_LOCKED: &str = concat!(head!(), " for update");
// dialect: row locks, in the order in which marks are raised, which need no lock of the head.
const END_ALL_MEMBERSHIPS: &str = "
    with present as (
        select user_id from members where conversation_id = $1 and left_seq is null
        order by user_id for no key update
    )
    update members m set left_seq = $2
    from present p where m.conversation_id = $1 and m.user_id = p.user_id
    returning m.user_id";
// dialect: lists.
const ADD_MEMBERS: &str = add_members!("(select unnest($4::uuid[]) as user_id)");
const NAMED_MEMBERS: &str = named_members!("= any($2)");
const STRANGERS: &str = strangers!("= any($2)");
const ACCOUNTS_AMONG: &str =
    "select count(*) from users where deleted_at is null and user_id = any($1)";

groups!(PostgresStore);
