//! Which users' channels this node hears: subscribed with a user's first socket, unsubscribed some
//! time after the last one, both decided by one task, so that they cannot overtake each other.
//!
//! Requests that arrive while a subscription is under way share the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::UserId;
use tokio::sync::{mpsc, oneshot};

use super::{Bus, BusDown, Channel};
use crate::lifecycle::Tasks;
use crate::metrics;

/// Requests that may wait; a connecting socket beyond it waits for room.
const QUEUE: usize = 4_096;
/// Requests answered by one SUBSCRIBE.
const BATCH_MAX: usize = 1_024;
/// How long a channel outlives its last socket: reconnects and page reloads cost nothing.
const LINGER: Duration = Duration::from_secs(30);
/// How often lingering channels are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

enum Request {
    Join(UserId, oneshot::Sender<Result<(), BusDown>>),
    Leave(UserId),
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
            users: HashMap::new(),
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

    /// One more socket of this user. Resolves once the user's channel is confirmed.
    ///
    /// # Errors
    /// The bus is down; the channel is subscribed when it is back.
    pub async fn join(&self, user: UserId) -> Result<(), BusDown> {
        let (answer, answered) = oneshot::channel();
        if self
            .requests
            .send(Request::Join(user, answer))
            .await
            .is_err()
        {
            return Err(BusDown);
        }
        answered.await.unwrap_or(Err(BusDown))
    }

    /// One socket of this user less; pairs with a `join`, whatever that answered.
    pub async fn leave(&self, user: UserId) {
        // Fails only when the node stops, and its subscriptions with it.
        self.requests.send(Request::Leave(user)).await.ok();
    }
}

struct Entry {
    sockets: usize,
    /// Since when there is no socket.
    empty_since: Option<Instant>,
}

struct Owner {
    bus: Arc<dyn Bus>,
    users: HashMap<UserId, Entry>,
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
                Request::Join(user, answer) => {
                    let entry = self.users.entry(user).or_insert_with(|| {
                        channels.push(Channel::User(user));
                        Entry {
                            sockets: 0,
                            empty_since: None,
                        }
                    });
                    entry.sockets += 1;
                    entry.empty_since = None;
                    answers.push(answer);
                }
                Request::Leave(user) => {
                    if let Some(entry) = self.users.get_mut(&user) {
                        entry.sockets = entry.sockets.saturating_sub(1);
                        if entry.sockets == 0 {
                            entry.empty_since = Some(Instant::now());
                        }
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
        for answer in answers {
            // The socket may be gone by now; its `leave` follows.
            answer.send(result).ok();
        }
    }

    async fn sweep(&mut self) {
        let over = |entry: &Entry| entry.empty_since.is_some_and(|at| at.elapsed() > LINGER);
        let gone: Vec<UserId> = self
            .users
            .iter()
            .filter(|(_, entry)| over(entry))
            .map(|(user, _)| *user)
            .collect();
        if gone.is_empty() {
            return;
        }
        for user in &gone {
            self.users.remove(user);
        }
        let channels: Vec<Channel> = gone.into_iter().map(Channel::User).collect();
        self.bus.unsubscribe(&channels).await;
    }
}
