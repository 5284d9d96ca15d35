//! The contract of the store port. Every method runs against SQLite and against PostgreSQL, by
//! [`contract!`]; what only one of them can do has a file of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests start tasks of their own")]

#[path = "store/accounts.rs"]
mod accounts;
#[path = "store/append.rs"]
mod append;
#[path = "store/blocks.rs"]
mod blocks;
#[path = "store/changes.rs"]
mod changes;
#[path = "store/conversations.rs"]
mod conversations;
#[path = "store/fixture.rs"]
mod fixture;
#[path = "store/groups.rs"]
mod groups;
#[path = "store/history.rs"]
mod history;
#[path = "store/journal.rs"]
mod journal;
#[path = "store/link.rs"]
mod link;
#[path = "store/listing.rs"]
mod listing;
#[path = "store/locks.rs"]
mod locks;
#[path = "store/outages.rs"]
mod outages;
#[path = "store/presence.rs"]
mod presence;
#[path = "store/races.rs"]
mod races;
#[path = "store/receipts.rs"]
mod receipts;
#[path = "store/schema.rs"]
mod schema;
#[path = "store/sessions.rs"]
mod sessions;
#[path = "store/sqlite.rs"]
mod sqlite;
