//! Turns: of this node's transactions that want the lock of one conversation's head, one waits for it
//! in the database; the others wait here, where waiting takes no connection. So a conversation that
//! is stuck delays whoever wants it, and never uses up the pool that all others need.
//!
//! Sends have a queue of their own (`store/group_commit.rs`); this is for whatever changes a message,
//! a group or a block.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rookery_protocol::ConversationId;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

type Queues = Mutex<HashMap<ConversationId, Arc<Queue<()>>>>;

/// See the module. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Queues>);

/// Held for as long as the transaction lasts.
#[derive(Debug)]
pub(super) struct Turn {
    conversation_id: ConversationId,
    turns: Turns,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until nobody else of this node wants the conversation; first come, first served.
    pub(super) async fn take(&self, conversation_id: ConversationId) -> Turn {
        let mut turn = Turn {
            conversation_id,
            turns: self.clone(),
            held: None,
        };
        let queue = Arc::clone(self.lock().entry(conversation_id).or_default());
        turn.held = Some(queue.lock_owned().await);
        turn
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ConversationId, Arc<Queue<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held = None;
        let mut queues = self.turns.lock();
        if let Some(queue) = queues.get(&self.conversation_id)
            && Arc::strong_count(queue) == 1
        {
            queues.remove(&self.conversation_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rookery_protocol::UserId;
    use uuid::Uuid;

    use super::*;

    fn conversation(number: u128) -> ConversationId {
        let user = |n| UserId::from_uuid(Uuid::from_u128(n));
        ConversationId::direct(user(number), user(number + 1))
    }

    #[tokio::test(start_paused = true)]
    async fn one_conversation_has_one_turn_and_others_have_their_own() {
        let turns = Turns::default();
        let first = turns.take(conversation(1)).await;
        let _other = turns.take(conversation(2)).await;
        let second = turns.take(conversation(1));
        let waited = tokio::time::timeout(Duration::from_secs(60), second).await;
        assert!(waited.is_err());
        drop(first);
        turns.take(conversation(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_turns_that_are_over_or_were_given_up() {
        let turns = Turns::default();
        let first = turns.take(conversation(1)).await;
        let given_up = turns.take(conversation(1));
        let waited = tokio::time::timeout(Duration::from_secs(1), given_up).await;
        assert!(waited.is_err());
        drop(first);
        assert!(turns.lock().is_empty());
    }
}
