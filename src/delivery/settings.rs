//! A user's own settings of a conversation changed: its devices are shown the conversation.

use std::sync::Arc;

use rookery_protocol::event::{ConversationChanged, ServerEvent};
use rookery_protocol::{ConversationId, UserId};
use tokio::sync::Mutex;

use super::DeliveryParts;

/// Reads and tells one after the other: of two changes, the later one is told last.
#[derive(Default)]
pub(super) struct Settings {
    turn: Arc<Mutex<()>>,
}

impl Settings {
    /// Reads the conversation as the user sees it now and tells the sockets that know it. Returns
    /// at once.
    pub(super) fn changed(&self, parts: &DeliveryParts, user: UserId, id: ConversationId) {
        if !parts.registry.has(user) {
            return;
        }
        let (parts, turn) = (parts.clone(), Arc::clone(&self.turn));
        parts.tasks.clone().spawn("settings", async move {
            let _turn = turn.lock().await;
            match parts.store.conversation(user, id).await {
                Ok(Some(conversation)) => {
                    for session in parts.registry.of(user) {
                        // No entry of the log: the socket stays where it is.
                        let position = session.positions().get(id);
                        let Some(seq) = position else { continue };
                        session.send(&ServerEvent::ConversationUpdated(ConversationChanged {
                            conversation_id: id,
                            seq,
                            conversation: conversation.clone(),
                        }));
                    }
                }
                // Left meanwhile.
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a device is not told of its user's settings");
                }
            }
        });
    }
}
