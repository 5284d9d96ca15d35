//! Which channels this node hears: subscribed with the first who needs one (a user's first socket,
//! the first member of a large conversation, the first watcher), unsubscribed some time after the
//! last, both decided by one task, so that they cannot overtake each other.
//!
//! Requests that arrive while a subscription is under way share the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::{Bus, BusDown, Channel};
use crate::lifecycle::Tasks;
use crate::metrics;
use crate::sparse;

/// Requests that may wait; a connecting socket beyond it waits for room.
const QUEUE: usize = 4_096;
/// Requests answered by one SUBSCRIBE.
const BATCH_MAX: usize = 1_024;
/// How long a channel outlives its last socket: reconnects and page reloads cost nothing.
const LINGER: Duration = Duration::from_secs(30);
/// How often lingering channels are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

enum Request {
    Join(Vec<Channel>, oneshot::Sender<Result<Joined, BusDown>>),
    Leave(Vec<Channel>),
}

/// Whether a join had to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// All channels were heard already, since before the call.
    Heard,
    /// Some are heard only from now on.
    New,
}

/// The entrance to the owning task. Cloning shares it.
#[derive(Clone)]
pub struct Subscriptions {
    requests: mpsc::Sender<Request>,
}

impl Subscriptions {
    #[must_use]
    pub fn start(bus: Arc<dyn Bus>, tasks: &Tasks) -> Self {
        let (requests, waiting) = mpsc::channel(QUEUE);
        let owner = Owner {
            bus,
            entries: HashMap::new(),
        };
        let stop = tasks.clone();
        tasks.spawn_vital("subscriptions", async move {
            tokio::select! {
                () = owner.run(waiting) => {}
                () = stop.stopping().cancelled() => {}
            }
        });
        Self { requests }
    }

    /// One more who needs each of these channels. Resolves once all of them are confirmed.
    ///
    /// # Errors
    /// The bus is down; the channels are subscribed when it is back.
    pub async fn join(&self, channels: Vec<Channel>) -> Result<Joined, BusDown> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Join(channels, answer);
        if self.requests.send(request).await.is_err() {
            return Err(BusDown);
        }
        answered.await.unwrap_or(Err(BusDown))
    }

    /// One less who needs each of these channels; pairs with a `join`, whatever that answered.
    pub async fn leave(&self, channels: Vec<Channel>) {
        // Fails only when the node stops, and its subscriptions with it.
        self.requests.send(Request::Leave(channels)).await.ok();
    }
}

struct Entry {
    needed_by: usize,
    /// Since when nobody needs it.
    empty_since: Option<Instant>,
}

struct Owner {
    bus: Arc<dyn Bus>,
    entries: HashMap<Channel, Entry>,
}

impl Owner {
    async fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(64);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                received = waiting.recv_many(&mut batch, BATCH_MAX) => {
                    if received == 0 {
                        return;
                    }
                    self.serve(&mut batch).await;
                }
                _ = sweep.tick() => self.sweep().await,
            }
            metrics::bus_subscriptions().set(self.bus.subscription_count() as f64);
        }
    }

    async fn serve(&mut self, batch: &mut Vec<Request>) {
        let mut channels = Vec::new();
        let mut answers = Vec::new();
        for request in batch.drain(..) {
            match request {
                Request::Join(wanted, answer) => {
                    let before = channels.len();
                    for channel in wanted {
                        self.need(channel, &mut channels);
                    }
                    // What another join of this batch subscribes to is new to this one as well.
                    let joined = if before == 0 && channels.is_empty() {
                        Joined::Heard
                    } else {
                        Joined::New
                    };
                    answers.push((answer, joined));
                }
                Request::Leave(left) => {
                    for channel in &left {
                        self.release(channel);
                    }
                }
            }
        }
        let result = if !channels.is_empty() {
            self.bus.subscribe(&channels).await
        } else if self.bus.is_up() {
            Ok(())
        } else {
            Err(BusDown)
        };
        for (answer, joined) in answers {
            // The socket may be gone by now; its `leave` follows.
            answer.send(result.map(|()| joined)).ok();
        }
    }

    fn need(&mut self, channel: Channel, new: &mut Vec<Channel>) {
        let entry = self.entries.entry(channel).or_insert_with_key(|channel| {
            new.push(channel.clone());
            Entry {
                needed_by: 0,
                empty_since: None,
            }
        });
        entry.needed_by += 1;
        entry.empty_since = None;
    }

    fn release(&mut self, channel: &Channel) {
        if let Some(entry) = self.entries.get_mut(channel) {
            entry.needed_by = entry.needed_by.saturating_sub(1);
            if entry.needed_by == 0 {
                entry.empty_since = Some(Instant::now());
            }
        }
    }

    async fn sweep(&mut self) {
        let over = |entry: &Entry| entry.empty_since.is_some_and(|at| at.elapsed() > LINGER);
        let gone: Vec<Channel> = self
            .entries
            .iter()
            .filter(|(_, entry)| over(entry))
            .map(|(channel, _)| channel.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        for channel in &gone {
            self.entries.remove(channel);
        }
        sparse::shrink(&mut self.entries);
        self.bus.unsubscribe(&gone).await;
    }
}
