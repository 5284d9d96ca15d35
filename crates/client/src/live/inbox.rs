//! What the application asked for, where the task that owns the connection finds it.
//!
//! Not a channel: one application task may read updates and send in turn, while the task behind it
//! waits for room among the updates. Two bounded queues would then wait for each other. So marks
//! and commands never wait, and a send waits only as long as the updates are being read.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rookery_protocol::command::MessageSend;
use rookery_protocol::{ConversationId, MessageId, Seq};
use tokio::sync::Notify;

use super::handle::{Ended, Outgoing, SendError};
use super::marks::Marks;
use super::outbox::Outbox;
use crate::ClientCommand;

/// Commands that wait to be written: what comes beyond is dropped, as if there were no connection.
const COMMANDS: usize = 64;

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// There is something for the task to do.
    filled: Notify,
    /// A send that waits has to look again.
    moved: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) outbox: Outbox,
    pub(super) marks: Marks,
    pub(super) commands: VecDeque<ClientCommand>,
    connected: bool,
    /// The task waits until the application reads an update.
    stalled: bool,
    ended: bool,
}

impl Inbox {
    pub(super) fn new(outbox: Outbox) -> Self {
        let state = State {
            outbox,
            marks: Marks::default(),
            commands: VecDeque::new(),
            connected: false,
            stalled: false,
            ended: false,
        };
        Self {
            state: Mutex::new(state),
            filled: Notify::new(),
            moved: Notify::new(),
        }
    }

    /// Held for moments only, never while waiting.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn push(&self, message: Outgoing) -> Result<MessageId, SendError> {
        let message_id = message.message_id;
        loop {
            let moved = self.moved.notified();
            {
                let mut state = self.lock();
                if state.ended {
                    return Err(SendError::Ended);
                }
                if !state.outbox.is_full() {
                    state.outbox.push(message.into_send());
                    drop(state);
                    self.filled.notify_one();
                    return Ok(message_id);
                }
                if state.stalled {
                    return Err(SendError::Full(Box::new(message)));
                }
            }
            moved.await;
        }
    }

    pub(super) fn mark(
        &self,
        conversation: ConversationId,
        seq: Seq,
        read: bool,
    ) -> Result<(), Ended> {
        self.put(|state| state.marks.set(conversation, seq, read))
    }

    pub(super) fn command(&self, command: ClientCommand) -> Result<(), Ended> {
        self.put(|state| {
            if state.connected && state.commands.len() < COMMANDS {
                state.commands.push_back(command);
            }
        })
    }

    fn put(&self, change: impl FnOnce(&mut State)) -> Result<(), Ended> {
        let mut state = self.lock();
        if state.ended {
            return Err(Ended);
        }
        change(&mut state);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Something was put in since the last call. Safe to cancel.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// This send is settled: acknowledged, seen in the log, or refused for good.
    pub(super) fn settle(&self, id: MessageId) -> Option<MessageSend> {
        let settled = self.lock().outbox.settle(id)?;
        self.moved.notify_waiters();
        Some(settled)
    }

    pub(super) fn stalled(&self, stalled: bool) {
        self.lock().stalled = stalled;
        self.moved.notify_waiters();
    }

    pub(super) fn connected(&self, connected: bool) {
        let mut state = self.lock();
        state.connected = connected;
        state.commands.clear();
    }

    /// Takes nothing more; returns what was never settled, in the order in which it was put in.
    pub(super) fn end(&self) -> Vec<MessageSend> {
        let unsettled = {
            let mut state = self.lock();
            state.ended = true;
            state.outbox.take_unsettled()
        };
        self.moved.notify_waiters();
        unsettled
    }
}
