//! Accounts in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::users::{user_columns, user_store};

// dialect: lists.
const USERS_BY_ID: &str = concat!(
    "select ",
    user_columns!(),
    " from users where deleted_at is null and user_id = any($1)"
);

user_store!(PostgresStore);
