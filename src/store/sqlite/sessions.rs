//! Sessions in SQLite.

use super::SqliteStore;
use crate::store::sql::sessions::{family, session_store};

// dialect: no row locks; the transaction is the only writer.
const FAMILY_LOCKED: &str = family!();

session_store!(SqliteStore);
