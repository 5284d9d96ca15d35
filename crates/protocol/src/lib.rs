//! Rookery's wire contract, version 1: everything a client and a server must agree on, and
//! nothing else. No I/O and no clock, so that server, client, tests and load test share it.
//!
//! A session in short: the client opens `GET /ws`, authenticates, and receives [`event::Ready`].
//! It sends commands ([`command`]), each answered by an event ([`event`]) that carries the same
//! `ref`, and receives events of its conversations in `seq` order. Frames are JSON text or
//! MessagePack binary ([`codec`]); failures use one table of codes ([`codes`]).
//!
//! `docs/PROTOCOL.md` is the prose to this crate and is compared with it by a test.

pub mod codec;
pub mod codes;
pub mod command;
pub mod conversation;
pub mod event;
pub mod ids;
pub mod limits;
pub mod message;
pub mod rest;
mod secret;
pub mod time;
pub mod user;
pub mod validate;

pub use codec::Format;
pub use codes::{CloseCode, ErrorCode};
pub use ids::{ConversationId, MessageId, Seq, SessionId, UserId};
pub use time::Timestamp;
