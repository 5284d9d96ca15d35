//! Rookery: a chat server that scales out.
//!
//! The layout is the way of a message; each stage calls only the next one:
//!
//! 1. [`gateway`]: sockets. Bytes in, frames out, one task a socket.
//! 2. [`commands`] and [`rest`]: one match and one table; a file per command or noun.
//! 3. [`chat`]: the rules. Store first, then publish.
//! 4. [`store`]: the truth, in PostgreSQL or SQLite; group commit.
//! 5. [`bus`]: news of it, over Redis or in memory; publish and subscribe per user.
//! 6. [`delivery`]: news in `seq` order to the sockets of this node; holes filled from the store.
//!
//! `docs/ARCHITECTURE.md` follows a message through the files.

pub mod app;
pub mod auth;
pub mod bus;
pub mod chat;
pub mod clock;
pub mod commands;
pub mod config;
pub mod delivery;
pub mod descriptors;
pub mod error;
pub mod exit;
pub mod failpoint;
pub mod gateway;
pub mod healthcheck;
pub mod lifecycle;
pub mod metrics;
pub mod ops;
pub mod presence;
pub mod reload;
pub mod rest;
mod sparse;
pub mod store;
pub mod telemetry;
pub mod web;
