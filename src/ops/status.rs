//! What a node knows of itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

use crate::metrics;

/// A truth that one task sets and others read; orders nothing else.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A number that tasks set and others read; orders nothing else.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    pub fn sub(&self, value: u64) {
        self.0.fetch_sub(value, Ordering::Relaxed);
    }
}

/// The state of a node, kept by its stages and shown by its probes and metrics.
#[derive(Debug, Default)]
pub struct NodeStatus {
    node_id: String,
    cluster: bool,
    /// Everything a socket needs is there.
    pub started: Flag,
    /// On its way out: sockets are sent elsewhere.
    pub draining: Flag,
    /// No room for another socket.
    pub full: Flag,
    /// The subscriber hears its own canary and every user's channel is confirmed.
    pub in_step: Flag,
    /// Redis answers this node and yet its subscriber has not been in step for a while.
    pub behind: Flag,
    /// Redis answers.
    pub redis_up: Flag,
    pub database_up: Flag,
    pub sockets: Number,
    pub users: Number,
    /// Channels subscribed to.
    pub subscriptions: Number,
    /// From publishing the newest event to hearing it, in milliseconds.
    pub lag_ms: Number,
}

/// The answer of `/health` on the operations port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// `starting`, `draining`, `degraded` (Redis or the database is away) or `ok`.
    pub status: &'static str,
    pub version: &'static str,
    pub node_id: String,
    pub sockets: u64,
    pub users: u64,
    /// `up`, `down`, or `none` on a single node.
    pub redis: &'static str,
    /// `up` or `down`.
    pub database: &'static str,
    pub subscriptions: u64,
    pub lag_ms: u64,
    pub draining: bool,
}

impl NodeStatus {
    /// A node that has not started. `cluster`: whether it has a Redis.
    #[must_use]
    pub fn new(node_id: &str, cluster: bool) -> Self {
        Self {
            node_id: node_id.to_owned(),
            cluster,
            ..Self::default()
        }
    }

    /// Why this node should get no new clients; none: send them. A Redis or a database that is
    /// away is no reason, since it is away for every node, and no node would be left.
    #[must_use]
    pub fn not_ready_because(&self) -> Vec<&'static str> {
        [
            (!self.started.get(), "not started"),
            (self.draining.get(), "draining"),
            (self.full.get(), "full"),
            (self.behind.get(), "the subscriber is not in step"),
        ]
        .into_iter()
        .filter_map(|(applies, reason)| applies.then_some(reason))
        .collect()
    }

    #[must_use]
    pub fn is_degraded(&self) -> bool {
        !self.database_up.get() || (self.cluster && !self.redis_up.get())
    }

    /// One word for all of it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if !self.started.get() {
            "starting"
        } else if self.draining.get() {
            "draining"
        } else if self.is_degraded() {
            "degraded"
        } else {
            "ok"
        }
    }

    #[must_use]
    pub fn health(&self) -> Health {
        let up_or_down = |up: bool| if up { "up" } else { "down" };
        Health {
            status: self.word(),
            version: env!("CARGO_PKG_VERSION"),
            node_id: self.node_id.clone(),
            sockets: self.sockets.get(),
            users: self.users.get(),
            redis: if self.cluster {
                up_or_down(self.redis_up.get())
            } else {
                "none"
            },
            database: up_or_down(self.database_up.get()),
            subscriptions: self.subscriptions.get(),
            lag_ms: self.lag_ms.get(),
            draining: self.draining.get(),
        }
    }

    /// Sets the gauges that show this status. Only a scrape does, so that numbers and probes agree.
    pub(super) fn set_gauges(&self) {
        let truth = |value: bool| if value { 1.0 } else { 0.0 };
        // Counts of sockets are far below 2^52, where f64 stops being exact.
        let number = |number: &Number| number.get() as f64;
        metrics::sockets().set(number(&self.sockets));
        metrics::users().set(number(&self.users));
        metrics::bus_subscriptions().set(number(&self.subscriptions));
        metrics::bus_connected().set(truth(self.in_step.get()));
        let away = metrics::away();
        let redis_away = self.cluster && !self.redis_up.get();
        away.redis.set(truth(self.started.get() && redis_away));
        let database_away = !self.database_up.get();
        away.database
            .set(truth(self.started.get() && database_away));
        metrics::degraded().set(truth(self.is_degraded()));
        metrics::draining().set(truth(self.draining.get()));
    }
}
