//! Tasks that are named, tracked and stopped: a soft stop asks, a hard stop ends. Signals say when.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns and stops every task of a node. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Tasks {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that works until it is done or told to stop. It watches [`Self::stopping`]
    /// and finishes what it began; at the hard stop it is dropped.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hard = self.hard.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = future => tracing::trace!(name, "task ended"),
                () = hard.cancelled() => tracing::debug!(name, "task dropped at the hard stop"),
            }
        });
    }

    /// Starts a task that must live as long as the node: if it ends by itself, the node stops.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let soft = self.soft.clone();
        self.spawn(name, async move {
            // A panic unwinds through here as well and stops the node.
            let _stop_when_gone = soft.clone().drop_guard();
            future.await;
            if !soft.is_cancelled() {
                tracing::error!(name, "a task that must not end has ended; stopping");
            }
        });
    }

    /// Cancelled when the node should stop.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.soft
    }

    /// Asks all tasks to stop, waits for them up to `timeout`, then drops what is left.
    /// True if all ended by themselves.
    pub async fn stop(&self, timeout: Duration) -> bool {
        self.soft.cancel();
        self.tracker.close();
        let ended = tokio::time::timeout(timeout, self.tracker.wait())
            .await
            .is_ok();
        self.hard.cancel();
        self.tracker.wait().await;
        ended
    }
}

/// How the system asked this process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The first signal: drain, then end.
    Soft,
    /// Any further one: end now.
    Hard,
}

/// SIGTERM and SIGINT from now on, instead of what they do by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    seen: bool,
}

/// Takes over SIGTERM and SIGINT.
///
/// # Errors
/// The system refuses the handlers.
pub fn signals() -> io::Result<Signals> {
    Ok(Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        seen: false,
    })
}

impl Signals {
    /// Waits for the next signal. Dropping the future loses none.
    pub async fn next(&mut self) -> Stop {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        let stop = if self.seen { Stop::Hard } else { Stop::Soft };
        self.seen = true;
        tracing::info!(name, ?stop, "signal received");
        stop
    }
}
