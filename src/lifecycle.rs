//! Tasks that are named, tracked and stopped: a soft stop asks, a hard stop ends. Signals say when.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns and stops every task of a node. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Those that have to outlive the others, since these hand them their last work.
    late_tracker: TaskTracker,
    soft: CancellationToken,
    late: CancellationToken,
    hard: CancellationToken,
    crashed: Arc<AtomicBool>,
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
        self.tracker.spawn(self.until_hard(name, future));
    }

    /// Starts a task that must live as long as the node: if it ends by itself, the node stops.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let vital = Vital::of(self, name, self.soft.clone());
        self.spawn(name, vital.run(future));
    }

    /// As [`Self::spawn_vital`], for a task that others hand their last work to: it works on while
    /// they stop, and watches [`Self::stopping_late`] instead.
    pub fn spawn_late<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let vital = Vital::of(self, name, self.late.clone());
        let late = self.until_hard(name, vital.run(future));
        self.late_tracker.spawn(late);
    }

    /// Combinators instead of an `async` block: that would hold the future twice, as what it captured
    /// and as what it waits for, and every socket's task is one of these.
    fn until_hard<F>(&self, name: &'static str, future: F) -> impl Future<Output = ()> + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        future
            .with_cancellation_token_owned(self.hard.clone())
            .map(move |ended| match ended {
                Some(()) => tracing::trace!(name, "task ended"),
                None => tracing::debug!(name, "task dropped at the hard stop"),
            })
    }

    /// Cancelled when the node should stop.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when all that watch [`Self::stopping`] have ended.
    #[must_use]
    pub fn stopping_late(&self) -> &CancellationToken {
        &self.late
    }

    /// Whether a task ended that must not.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }

    /// Asks all tasks to stop, the late ones after the others, waits for them up to `timeout`, then
    /// drops what is left. True if all ended by themselves.
    pub async fn stop(&self, timeout: Duration) -> bool {
        let in_order = async {
            self.soft.cancel();
            self.tracker.close();
            self.tracker.wait().await;
            self.late.cancel();
            self.late_tracker.close();
            self.late_tracker.wait().await;
        };
        let ended = tokio::time::timeout(timeout, in_order).await.is_ok();
        for token in [&self.soft, &self.late, &self.hard] {
            token.cancel();
        }
        for tracker in [&self.tracker, &self.late_tracker] {
            tracker.close();
            tracker.wait().await;
        }
        ended
    }
}

/// Stops the node when its task ends before it was told to, by a panic or otherwise.
struct Vital {
    name: &'static str,
    told: CancellationToken,
    soft: CancellationToken,
    crashed: Arc<AtomicBool>,
}

impl Vital {
    fn of(tasks: &Tasks, name: &'static str, told: CancellationToken) -> Self {
        Self {
            name,
            told,
            soft: tasks.soft.clone(),
            crashed: Arc::clone(&tasks.crashed),
        }
    }

    async fn run(self, future: impl Future<Output = ()>) {
        future.await;
        drop(self);
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.told.is_cancelled() {
            let name = self.name;
            tracing::error!(name, "a task that must not end has ended; stopping");
            self.crashed.store(true, Ordering::SeqCst);
            self.soft.cancel();
        }
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

    /// Waits for a signal to a process that is stopping already: whatever made it stop, one more
    /// ends it.
    pub async fn hard(&mut self) {
        self.seen = true;
        self.next().await;
    }
}

/// SIGHUP from now on: a request to read the configuration again.
#[derive(Debug)]
pub struct Hangups(Option<Signal>);

/// Takes over SIGHUP, unless this process runs in a terminal: there the signal goes on to mean that
/// the terminal is gone, and the process with it.
///
/// # Errors
/// The system refuses the handler.
pub fn hangups() -> io::Result<Hangups> {
    if io::stderr().is_terminal() {
        return Ok(Hangups(None));
    }
    Ok(Hangups(Some(signal(SignalKind::hangup())?)))
}

impl Hangups {
    /// Waits for the next one. Dropping the future loses none.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn late_tasks_get_the_last_work_of_the_others() {
        let tasks = Tasks::new();
        let (hand_on, handed_on) = oneshot::channel();
        let (stopping, late) = (tasks.stopping().clone(), tasks.stopping_late().clone());
        let told = late.clone();
        tasks.spawn_vital("early", async move {
            stopping.cancelled().await;
            tokio::task::yield_now().await;
            hand_on.send(told.is_cancelled()).ok();
        });
        let (tell, heard) = oneshot::channel();
        tasks.spawn_late("late", async move {
            let too_early = handed_on.await;
            late.cancelled().await;
            tell.send(too_early).ok();
        });
        assert!(tasks.stop(LONG).await);
        assert_eq!(heard.await.unwrap(), Ok(false), "it was still at work");
        assert!(!tasks.crashed());
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_or_panics_is_a_crash() {
        for panics in [false, true] {
            let tasks = Tasks::new();
            tasks.spawn_vital("short", async move { assert!(!panics, "on purpose") });
            tasks.stopping().cancelled().await;
            assert!(tasks.stop(LONG).await);
            assert!(tasks.crashed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_dropped() {
        let tasks = Tasks::new();
        tasks.spawn("stuck", std::future::pending());
        tasks.spawn_late("late", std::future::pending());
        assert!(!tasks.stop(LONG).await);
        assert!(!tasks.crashed(), "they were told");
    }
}
