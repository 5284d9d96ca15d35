//! Seats in large conversations that are taken or given up while a socket lives: its user joined
//! or left, or the conversation changed its way of fan-out. The map changes at once, by whoever
//! finds out; the subscriptions follow here, since they have to wait for the bus.
//!
//! What is published before a subscription is confirmed is not lost: for some time after a change
//! both ways are used, and reconciliation finds the rest.

use rookery_protocol::ConversationId;
use tokio::sync::mpsc;

use super::DeliveryParts;
use crate::bus::{Channel, Subscriptions};

/// Changes that may wait; a worker that finds no room has the change sent later.
const QUEUE: usize = 4_096;

/// A seat more or less in a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Taken(ConversationId),
    GivenUp(ConversationId),
}

/// The task that makes the subscriptions follow the seats.
pub struct Seating {
    changes: mpsc::Receiver<Change>,
    parts: DeliveryParts,
}

pub(super) fn queue(parts: DeliveryParts) -> (mpsc::Sender<Change>, Seating) {
    let (sender, changes) = mpsc::channel(QUEUE);
    (sender, Seating { changes, parts })
}

impl Seating {
    /// Runs until the node stops.
    pub async fn run(mut self, subscriptions: Subscriptions) {
        let stopping = self.parts.tasks.stopping().clone();
        loop {
            let change = tokio::select! {
                change = self.changes.recv() => change,
                () = stopping.cancelled() => return,
            };
            match change {
                Some(Change::Taken(id)) => {
                    let confirmed = subscriptions.join(vec![Channel::Conversation(id)]).await;
                    if confirmed.is_ok() {
                        self.parts.registry.rooms.heard(&[id]);
                    }
                }
                Some(Change::GivenUp(id)) => {
                    subscriptions.leave(vec![Channel::Conversation(id)]).await;
                }
                None => return,
            }
        }
    }
}
