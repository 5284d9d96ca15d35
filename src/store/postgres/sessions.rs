//! Sessions in PostgreSQL.

use super::PostgresStore;
use crate::store::sql::sessions::{family, session_store};

// dialect: row locks.
const FAMILY_LOCKED: &str = concat!(family!(), " for update");

session_store!(PostgresStore);
