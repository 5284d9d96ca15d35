//! A typed client for Rookery, in three layers; take the lowest that does what you need.
//!
//! - [`Api`]: the REST interface, one method an operation.
//! - [`Socket`]: one raw WebSocket connection. It sends [`ClientCommand`]s, receives
//!   [`ServerEvent`]s and ends with a close code; nothing is repeated, remembered or repaired.
//! - [`Live`]: a connection that stays up. It reconnects to any of several nodes, refreshes its
//!   token, resumes from its cursors, repeats what was not acknowledged, and hands out every message
//!   once and in order as [`Update`]s.
//!
//! ```no_run
//! use rookery_client::{Api, Credentials, Live, LiveConfig, Outgoing, Update};
//! use rookery_protocol::rest::Login;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "http://127.0.0.1:8080";
//! let login = Login { login: "ann".into(), password: "0123456789".into(), device_name: None };
//! let tokens = Api::new(url).login(&login).await?;
//! let api = Api::new(url).with_token(&tokens.access_token);
//! let bob = api.search_users("bob").await?.items.remove(0);
//! let mut live = Live::start(LiveConfig::new([url], Credentials::from(&tokens)))?;
//! live.handle().send(Outgoing::to_user(bob.user_id, "hello")).await?;
//! while let Some(update) = live.next().await {
//!     if let Update::Message(message) = update {
//!         println!("{}: {}", message.seq, message.content);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`guide`] says how such a client works, for those who write one in another language.
//!
//! Every queue is bounded: an application that does not read its updates is disconnected by the
//! server as too slow, and resumes when it reads again. `https` and `wss` URLs are for a proxy in front of
//! the nodes: its certificate has to be one that the system trusts, or one that the PEM file trusts which
//! the variable `SSL_CERT_FILE` names in place of the system's. Both are read once in a process.

#[doc = include_str!("../GUIDE.md")]
pub mod guide {}

pub mod live;
pub mod rest;
pub mod socket;
mod tls;

pub use live::{
    Closed, Credentials, Handle, Live, LiveConfig, Outgoing, SendError, Start, Tap, Tapped, Update,
};
pub use rest::{Api, ApiError};
pub use socket::{Connect, ConnectError, Socket, SocketError, TokenIn};

pub use rookery_protocol::command::ClientCommand;
pub use rookery_protocol::event::ServerEvent;
