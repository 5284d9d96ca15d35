//! A link between two parties of a cluster that breaks on command: clients and nginx, nginx and a
//! node, a node and PostgreSQL, a node and Redis, a node and a sentinel.
//!
//! A [`Proxy`] listens on a port of its own and joins each connection with one to its target. What
//! happens on the way is said by a [`Mode`], which may change at any time; it counts what it did.
//! [`RedisProxy`] and [`PostgresProxy`] know so much of their protocol that they can tell the
//! connections of a node apart, lose single messages, or lose the answer to a commit;
//! [`SentinelProxy`] names the node's own ways to the servers that a sentinel tells of.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::servers::ports::{self, Port};
use lens::Protocol;
use link::Link;

mod lens;
mod line;
mod link;
mod postgres;
mod redis;
mod resp;
mod sentinel;
#[cfg(test)]
mod tests;

pub use postgres::PostgresProxy;
pub use redis::{Fate, Pushes, RedisProxy};
pub(crate) use sentinel::Names;
pub use sentinel::SentinelProxy;

/// Small, so that what a link holds back is soon felt by the one that sends.
const RECEIVE_BUFFER: u32 = 64 * 1_024;
/// As nginx and the nodes have it or more: a burst of clients is not the proxy's to refuse.
const BACKLOG: u32 = 4_096;
/// Between two tries to listen again when the kernel has not yet let go of the port.
const LISTEN_AGAIN: Duration = Duration::from_millis(10);

/// What a link does with the bytes that it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Pass,
    /// Nothing passes and nobody is told: connections stay open, new ones are taken and held. What
    /// was sent meanwhile passes afterwards, as TCP repeats it.
    Blackhole,
    /// Everything comes later by `fixed` and up to `jitter` more, in its order.
    Delay { fixed: Duration, jitter: Duration },
    /// In each direction of each connection.
    Throttle { bytes_per_second: u32 },
    /// Connections are closed and new ones refused.
    Cut,
}

/// What a connection is for, as far as its commands have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing but greetings was seen, or the link has no protocol.
    Unknown,
    /// It has subscribed to a channel of Redis.
    Subscriber,
    /// It publishes to Redis.
    Publisher,
    /// A sentinel that watches a Redis.
    Sentinel,
    /// Any other connection to Redis: presence and limits.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the one who connected.
    Request,
    Reply,
}

/// The modes of a link. The most special one that is set counts.
#[derive(Clone, Debug, Default)]
struct Rules {
    all: Mode,
    replies: Option<Mode>,
    roles: Vec<(Role, Mode)>,
}

impl Rules {
    fn mode(&self, role: Role, direction: Direction) -> Mode {
        let special = self.roles.iter().find(|(special, _)| *special == role);
        let reply = self.replies.filter(|_| direction == Direction::Reply);
        special.map_or(reply.unwrap_or(self.all), |(_, mode)| *mode)
    }
}

/// What a link did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connections: u64,
    /// Connections that were reset, also for a commit.
    pub resets: u64,
    /// Connections that were closed by [`Mode::Cut`].
    pub cuts: u64,
    pub bytes: u64,
    pub lost_pushes: u64,
    pub doubled_pushes: u64,
    pub delayed_pushes: u64,
    pub reordered_pushes: u64,
    /// Commits whose answer was lost.
    pub lost_commits: u64,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    resets: AtomicU64,
    cuts: AtomicU64,
    bytes: AtomicU64,
    lost_pushes: AtomicU64,
    doubled_pushes: AtomicU64,
    delayed_pushes: AtomicU64,
    reordered_pushes: AtomicU64,
    lost_commits: AtomicU64,
}

/// One more of what a counter counts.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// What all connections of a link share.
struct Shared {
    target: SocketAddr,
    protocol: Protocol,
    rules: watch::Sender<Rules>,
    counters: Counters,
    links: Mutex<HashMap<u64, Arc<Link>>>,
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link to one address. Dropped, it closes all its connections.
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// # Errors
    /// There is no port.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        Self::with_protocol(target, Protocol::Plain).await
    }

    async fn with_protocol(target: SocketAddr, protocol: Protocol) -> Result<Self> {
        let port = ports::reserve()?;
        let shared = Arc::new(Shared {
            target,
            protocol,
            rules: watch::Sender::default(),
            counters: Counters::default(),
            links: Mutex::default(),
        });
        let listener = listen(port.address())?;
        let accepting = tokio::spawn(accept(listener, port.address(), Arc::clone(&shared)));
        Ok(Self {
            port,
            shared,
            accepting,
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Sets the mode of all connections, present and future, and forgets special ones.
    pub fn set(&self, mode: Mode) {
        let rules = Rules {
            all: mode,
            ..Rules::default()
        };
        self.shared.rules.send_replace(rules);
    }

    /// Sets the mode of one direction: the way back to the one who connected.
    pub fn set_replies(&self, mode: Mode) {
        self.shared
            .rules
            .send_modify(|rules| rules.replies = Some(mode));
    }

    /// Sets the mode of the connections that do this, once they are seen to do it.
    pub fn set_for(&self, role: Role, mode: Mode) {
        self.shared.rules.send_modify(|rules| {
            rules.roles.retain(|(special, _)| *special != role);
            rules.roles.push((role, mode));
        });
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.set(Mode::Pass);
    }

    /// Resets all present connections; returns how many there were.
    pub fn reset(&self) -> usize {
        self.reset_if(|_| true)
    }

    /// Resets the present connections that do this; returns how many there were.
    pub fn reset_for(&self, role: Role) -> usize {
        self.reset_if(|link| link.role() == role)
    }

    fn reset_if(&self, is_meant: impl Fn(&Link) -> bool) -> usize {
        let links = self.shared.links();
        let meant = links.values().filter(|link| is_meant(link));
        meant.map(|link| link.reset()).count()
    }

    /// How many connections there are that do this.
    #[must_use]
    pub fn connections_for(&self, role: Role) -> usize {
        let links = self.shared.links();
        links.values().filter(|link| link.role() == role).count()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let counters = &self.shared.counters;
        Counts {
            connections: of(&counters.connections),
            resets: of(&counters.resets),
            cuts: of(&counters.cuts),
            bytes: of(&counters.bytes),
            lost_pushes: of(&counters.lost_pushes),
            doubled_pushes: of(&counters.doubled_pushes),
            delayed_pushes: of(&counters.delayed_pushes),
            reordered_pushes: of(&counters.reordered_pushes),
            lost_commits: of(&counters.lost_commits),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Connections of an earlier listener may still be closing.
    socket.set_reuseaddr(true)?;
    // Those that are accepted inherit it.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(address).await
}

/// Takes connections for as long as the link is not cut, and from its mending on again.
async fn accept(first: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    let mut rules = shared.rules.subscribe();
    let mut listener = Some(first);
    let mut number = 0;
    loop {
        let is_cut = rules.borrow_and_update().all == Mode::Cut;
        if is_cut {
            listener = None;
        } else if listener.is_none() {
            listener = listen(address).ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await.ok(),
                None if is_cut => std::future::pending().await,
                None => {
                    sleep(LISTEN_AGAIN).await;
                    None
                }
            }
        };
        tokio::select! {
            changed = rules.changed() => if changed.is_err() { return },
            accepted = accepted => if let Some((near, _)) = accepted {
                number += 1;
                connections.spawn(link::run(number, near, Arc::clone(&shared)));
            },
            // Only so that those that ended are let go.
            Some(_) = connections.join_next() => {}
        }
    }
}
