//! A device: what others see and ask of it. What it does is in `runner`.

mod memory;
mod runner;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rookery_client::Credentials;
use rookery_oracle::{Recorder, View};
use rookery_protocol::{ConversationId, Seq, SessionId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::keys::head;
use crate::measure::{Measure, lock};
use crate::people::Account;
use crate::rooms::Rooms;

use memory::Memory;
use runner::Runner;

/// What may wait for a device that has no room for more sends: some seconds of its share. Beyond it
/// work is left out, and counted.
const JOBS: usize = 32;
/// Nobody waits for a device that has not followed its last orders.
const ORDERS: usize = 8;

/// One thing that the person does on it; the number chooses among what there is at the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) what: What,
    pub(crate) pick: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Send,
    Edit,
    React,
    Read,
    Delivered,
}

/// What a fault does to it.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// The application ends and starts again with the cursors and unacknowledged sends that it kept;
    /// with `crash` it does not say good-bye.
    Restart { away: Duration, crash: bool },
    /// The application reads nothing for so long; its socket stays open.
    Doze(Duration),
    /// The application ends, gets new tokens, and starts again with its cursors; unless those that it
    /// has are of this key, as when it reads the same order late and often.
    RenewUnless(String),
}

/// A device of a person, with a session of its own.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) account: Arc<Account>,
    pub(crate) seen: Arc<Seen>,
    jobs: mpsc::Sender<Job>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

/// What is known of a device from outside.
#[derive(Default)]
pub(crate) struct Seen {
    unsettled: AtomicUsize,
    in_step: AtomicBool,
    /// Of each conversation the highest `seq` that was shown: cursors and own acks.
    highest: Mutex<HashMap<ConversationId, Seq>>,
    session: Mutex<Option<SessionId>>,
    epoch: Mutex<String>,
    /// Of the present epoch: where it was told that what it had does not count.
    resets: Mutex<HashMap<ConversationId, Seq>>,
    /// What its access token has in common with others of the same key.
    token_head: Mutex<String>,
    /// Since when its session is revoked and its connection is not ended.
    revoked: Mutex<Option<Instant>>,
}

impl Device {
    pub(crate) fn start(
        name: String,
        account: &Arc<Account>,
        credentials: Credentials,
        (rooms, measure, recorder): (&Arc<Rooms>, &Arc<Measure>, &Recorder),
    ) -> Self {
        let (jobs, job_queue) = mpsc::channel(JOBS);
        let (orders, order_queue) = mpsc::channel(ORDERS);
        let seen = Arc::new(Seen::default());
        seen.set_token(&credentials);
        let runner = Runner {
            name: name.clone(),
            recorder: recorder.device(&name, account.id(), View::Client),
            account: Arc::clone(account),
            credentials,
            credentials_since: Instant::now(),
            rooms: Arc::clone(rooms),
            measure: Arc::clone(measure),
            seen: Arc::clone(&seen),
            jobs: job_queue,
            orders: order_queue,
            memory: Memory::default(),
            connected: None,
            in_step: None,
        };
        Self {
            name,
            account: Arc::clone(account),
            seen,
            jobs,
            orders,
            task: tokio::spawn(runner.run()),
        }
    }

    /// Whether it took the job: not when it has too many waiting.
    pub(crate) fn offer(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    pub(crate) fn order(&self, order: Order) {
        // One that is behind with its orders is busy being broken already.
        let _ = self.orders.try_send(order);
    }

    /// The person ends this device's session from somewhere else.
    pub(crate) async fn revoke(&self) -> anyhow::Result<()> {
        let session = *lock(&self.seen.session);
        let Some(session) = session else {
            return Ok(());
        };
        self.account.end_session(session).await?;
        *lock(&self.seen.revoked) = Some(Instant::now());
        Ok(())
    }

    /// Ends it, with the last line of its history.
    pub(crate) async fn end(self) {
        drop(self.orders);
        if let Err(error) = self.task.await {
            eprintln!("{}: {error}", self.name);
        }
    }
}

impl Seen {
    /// Sends that are neither acknowledged nor refused.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::SeqCst)
    }

    /// Connected, with everything caught up that was missed.
    pub(crate) fn is_in_step(&self) -> bool {
        self.in_step.load(Ordering::SeqCst)
    }

    /// The highest `seq` shown of a conversation.
    pub(crate) fn highest(&self, conversation: ConversationId) -> Seq {
        lock(&self.highest)
            .get(&conversation)
            .copied()
            .unwrap_or_default()
    }

    /// The highest `seq` shown of every conversation.
    pub(crate) fn all_highest(&self) -> HashMap<ConversationId, Seq> {
        lock(&self.highest).clone()
    }

    /// The incarnation of the database that it was connected to last.
    pub(crate) fn epoch(&self) -> String {
        lock(&self.epoch).clone()
    }

    /// What it was told to forget in the present epoch, and from where on.
    pub(crate) fn resets(&self) -> HashMap<ConversationId, Seq> {
        lock(&self.resets).clone()
    }

    /// Nothing that was shown counts any more.
    fn forget(&self) {
        lock(&self.highest).clear();
        lock(&self.resets).clear();
    }

    pub(crate) fn token_head(&self) -> String {
        lock(&self.token_head).clone()
    }

    /// Since when the connection of a revoked session has been open.
    pub(crate) fn revoked_since(&self) -> Option<Instant> {
        *lock(&self.revoked)
    }

    fn set_token(&self, credentials: &Credentials) {
        *lock(&self.token_head) = head(&credentials.access_token).to_owned();
    }

    fn show(&self, conversation: ConversationId, seq: Seq) {
        let mut highest = lock(&self.highest);
        let known = highest.entry(conversation).or_default();
        *known = (*known).max(seq);
    }
}
