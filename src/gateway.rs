//! Stage 1: sockets.
//!
//! In: TCP connections. A connection speaks HTTP until it asks for `/ws`; then one task owns its
//! WebSocket, reads frames, hands decoded commands to `commands`, and writes what its outbox holds.
//! Out: commands. What it must never do: wait for a slow reader, or skip a frame of one; a full
//! outbox closes the socket with a code that says "come back and resume".

mod admission;
mod backlog;
mod connection;
mod drain;
mod echo;
mod frame;
mod goodbye;
mod group_online;
mod heartbeat;
mod link;
mod listener;
mod open;
mod outbox;
mod positions;
mod rate_limit;
mod recheck;
mod registry;
mod rooms;
mod session;
mod silent;
mod surplus;
mod upgrade;
mod wheel;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rookery_protocol::event::Limits;
use rookery_protocol::limits;

pub use admission::{Admission, AdmissionLevels, AdmissionOptions};
pub use drain::drain;
#[doc(hidden)]
pub use echo::echo;
pub use frame::{Frame, SharedFrame};
pub(crate) use group_online::tell_one as tell_group_online;
pub use listener::{Listener, Places, listen, reserve};
pub(crate) use open::{Seats, give_up_seat, noted, take_seats};
pub use outbox::{Lane, Outbox, Push};
pub use positions::{Positions, Verdict};
pub use rate_limit::{Bucket, Rates};
pub(crate) use recheck::recheck;
pub use registry::Registry;
pub use rooms::Rooms;
pub use session::{Held, Session, Watching};
#[doc(hidden)]
pub use silent::serve_silent;
pub use surplus::{Surplus, SurplusQueue};
pub use upgrade::upgrade;

use crate::auth::Auth;
use crate::bus::Subscriptions;
use crate::chat::fanout::Fanout;
use crate::chat::messages::Messages;
use crate::chat::presence::Appearances;
use crate::chat::receipts::Receipts;
use crate::clock::Clock;
use crate::delivery::{BaseLoader, Delivery, Epoch, Watchers};
use crate::lifecycle::Tasks;
use crate::presence::Roster;
use crate::store::Store;

/// A ping at this interval keeps proxies from closing idle sockets; announced in `ready`.
pub const HEARTBEAT_SECONDS: u32 = 25;
/// A socket that sent no frame for this long, not even a pong, is given up.
pub const SILENCE_SECONDS: u32 = 60;
/// A resuming socket has this long to send its `sync`.
pub const RESUME_SECONDS: u32 = 10;

/// What the sockets of a node work with.
pub struct GatewayParts {
    pub node_id: String,
    /// Told in `ready`.
    pub epoch: Arc<Epoch>,
    pub store: Arc<dyn Store>,
    pub auth: Arc<Auth>,
    pub messages: Arc<Messages>,
    pub fanout: Arc<Fanout>,
    pub appearances: Arc<Appearances>,
    pub roster: Arc<Roster>,
    pub watchers: Watchers,
    pub receipts: Arc<Receipts>,
    pub registry: Arc<Registry>,
    pub subscriptions: Subscriptions,
    pub bases: BaseLoader,
    pub delivery: Delivery,
    pub admission: Arc<Admission>,
    pub options: GatewayOptions,
    pub clock: Clock,
    pub tasks: Tasks,
}

/// Settings of the sockets, from the configuration.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    pub sockets_per_user: usize,
    pub rates_enabled: bool,
    pub messages_per_second: u32,
    pub messages_burst: u32,
    /// In groups of more members typing is for those who watch.
    pub receipts_max: i64,
    /// Exact origins; empty: the same host, and loopback.
    pub allowed_origins: Vec<String>,
    pub trusted_proxies: Vec<ipnet::IpNet>,
}

/// The gateway of one node. Cloning shares it.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

struct Shared {
    parts: GatewayParts,
    draining: AtomicBool,
    started: Instant,
}

impl std::ops::Deref for Gateway {
    type Target = GatewayParts;

    fn deref(&self) -> &GatewayParts {
        &self.0.parts
    }
}

impl Gateway {
    /// Starts the heartbeat of its sockets, and the search for those that are too many.
    #[must_use]
    pub fn start(parts: GatewayParts, surplus: SurplusQueue) -> Self {
        let draining = AtomicBool::new(false);
        let started_at = parts.clock.now();
        let gateway = Self(Arc::new(Shared {
            parts,
            draining,
            started: Instant::now(),
        }));
        gateway
            .tasks
            .spawn_vital("heartbeat", heartbeat::run(gateway.clone()));
        gateway
            .tasks
            .spawn_vital("group-online", group_online::run(gateway.clone()));
        let surplus = surplus::run(gateway.clone(), surplus, started_at);
        gateway.tasks.spawn_vital("surplus", surplus);
        gateway
    }

    /// Seconds of the node's life: a clock for silence, which no clock change disturbs.
    #[must_use]
    pub fn now_seconds(&self) -> u32 {
        u32::try_from(self.0.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Refuses new sockets from now on.
    pub fn begin_draining(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// What `ready` tells of this server's limits.
    #[must_use]
    pub fn limits() -> Limits {
        Limits {
            frame_bytes: limits::FRAME_BYTES,
            content_chars: limits::CONTENT_CHARS,
            in_flight: limits::SENDS_IN_FLIGHT,
            presence_watch: limits::PRESENCE_WATCH,
        }
    }
}
