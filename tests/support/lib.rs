//! What tests tell their stories with: real clusters, people on real sockets, faults on command.
//!
//! - [`TestCluster`]: nodes of the real program with PostgreSQL, Redis and nginx, or one node alone.
//! - [`Person`] and [`Device`]: who is on it. A device records all that it receives, waits for what
//!   it should receive, and says what it did receive when that does not come.
//! - [`servers`]: PostgreSQL, Redis, its sentinels and nginx by themselves. [`wire`]: WebSocket
//!   frames made by hand.
//! - [`Proxy`]: a link that breaks on command. [`RedisProxy`] and [`PostgresProxy`] also lose what
//!   passes on it.
//!
//! Whatever is started ends with the test, however the test ends, and tests can run side by side.
//! A method that cannot do what it says panics with the reason, since a test has no better answer.

mod cluster;
mod eventually;
mod metrics;
mod node;
mod people;
mod proxy;
pub mod servers;
pub mod wire;

pub use cluster::{Builder, NodeLinks, TestCluster};
pub use eventually::{PATIENCE, eventually, eventually_within};
pub use metrics::Metrics;
pub use node::Node;
pub use people::{
    Device, Person, Record, SendFailure, Setup, To, change_of, new_message_id, patiently,
};
pub use proxy::{
    Counts, Fate, Mode, PostgresProxy, Proxy, Pushes, RedisProxy, Role, SentinelProxy,
};

/// An HTTP client for what nodes serve: they speak no TLS, so it looks for no certificates.
#[must_use]
pub fn plain_http() -> reqwest::Client {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    http.build().expect("nothing that it needs can be missing")
}
