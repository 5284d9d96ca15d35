//! A connection that stays up: any node, any number of interruptions, every message once.
//!
//! One task owns the socket. It takes what [`Handle`]s put into its `inbox` (the unsettled sends,
//! `outbox`, and the marks), reads frames from the server, keeps the cursors (`ledger`), and hands
//! out [`Update`]s: `driver` connects and reconnects, `session` is one connection from `ready` to
//! its end, `events` what each event means.
//!
//! Promises: a message that arrived is handed out once, per conversation in `seq` order; what was
//! sent ends as [`Update::Acked`] or [`Update::Failed`], however often the connection breaks
//! between, or is returned by [`Live::close`]; what was sent in one conversation is stored in the
//! order in which it was sent. [`crate::guide`] says how, for clients in other languages.
//!
//! One application task may read updates and send in turn: nothing here waits for an application
//! that waits for this. See [`Handle::send`].

mod backoff;
mod config;
mod driver;
mod end;
mod events;
mod handle;
mod inbox;
mod ledger;
mod marks;
mod nodes;
mod outbox;
mod place;
mod receipts;
mod renewal;
mod session;
mod timers;
mod update;

use std::sync::Arc;

use rookery_protocol::command::MessageSend;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use config::{BadConfig, Credentials, LiveConfig, Start, Tap, Tapped};
pub use handle::{Ended, Handle, Outgoing, SendError, To};
pub use update::Update;

use driver::Driver;
use inbox::Inbox;
use outbox::Outbox;

/// A connection that stays up. Dropping it ends it.
#[derive(Debug)]
pub struct Live {
    updates: mpsc::Receiver<Update>,
    handle: Handle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Closed>,
}

/// What is left of a [`Live`] that was closed.
#[derive(Clone, Debug, Default)]
pub struct Closed {
    /// What was neither acknowledged nor refused, in the order in which it was sent: stored or not,
    /// it may be sent again with the same `message_id`.
    pub unacked: Vec<MessageSend>,
    /// The newest ones, also if the application did not read its last [`Update::Refreshed`].
    pub credentials: Credentials,
}

impl Live {
    /// Starts connecting; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BadConfig`]: no URL, or a queue without room.
    pub fn start(config: LiveConfig) -> Result<Self, BadConfig> {
        config.check()?;
        let outbox = Outbox::new(config.outbox, config.outbox_bytes);
        let inbox = Arc::new(Inbox::new(outbox));
        let (update_queue, updates) = mpsc::channel(config.updates);
        let (stop, stopped) = oneshot::channel();
        let driver = Driver::new(config, Arc::clone(&inbox), update_queue);
        let task = tokio::spawn(driver.supervise(stopped));
        Ok(Self {
            updates,
            handle: Handle::new(inbox),
            stop,
            task,
        })
    }

    /// For sending.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The next update; `None` once the connection was ended for good. Safe to cancel.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }

    /// Ends the connection and returns what has to be kept. Updates that were not read are lost,
    /// and come again for whoever starts with the cursors of what was read.
    pub async fn close(self) -> Closed {
        drop(self.updates);
        drop(self.stop);
        self.task.await.unwrap_or_default()
    }
}
