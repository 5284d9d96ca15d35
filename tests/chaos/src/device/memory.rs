//! What an application keeps on its disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use rookery_client::{Outgoing, Start};
use rookery_protocol::{ConversationId, MessageId, Seq};

/// Messages that are remembered to be edited or reacted to.
const RECENT: usize = 32;

#[derive(Default)]
pub(super) struct Memory {
    /// None before the first connection: then it starts with what was never delivered.
    cursors: Option<HashMap<ConversationId, Seq>>,
    pub(super) epoch: Option<String>,
    /// In the order of sending: ids grow.
    unsettled: BTreeMap<MessageId, Unsettled>,
    pub(super) own: Recent,
    pub(super) others: Recent,
    /// Makes contents unique.
    pub(super) sent: u64,
}

pub(super) struct Unsettled {
    message: Outgoing,
    pub(super) since: Instant,
}

impl Memory {
    pub(super) fn start(&self) -> Start {
        match &self.cursors {
            Some(cursors) => Start::Cursors(cursors.clone()),
            None => Start::Undelivered,
        }
    }

    pub(super) fn cursors(&mut self) -> &mut HashMap<ConversationId, Seq> {
        self.cursors.get_or_insert_default()
    }

    /// The database was set back: what was shown counts no more; what was not acknowledged does.
    pub(super) fn forget(&mut self) {
        self.cursors().clear();
        self.own = Recent::default();
        self.others = Recent::default();
    }

    /// One's own ack moves a cursor only when it is the very next entry.
    pub(super) fn acked(&mut self, conversation: ConversationId, seq: Seq) {
        if let Some(cursor) = self.cursors().get_mut(&conversation)
            && cursor.next() == seq
        {
            *cursor = seq;
        }
    }

    pub(super) fn keep(&mut self, message: Outgoing) {
        let since = Instant::now();
        self.unsettled
            .insert(message.message_id, Unsettled { message, since });
    }

    pub(super) fn settle(&mut self, message: MessageId) -> Option<Unsettled> {
        self.unsettled.remove(&message)
    }

    /// Neither acknowledged nor refused, in the order of sending.
    pub(super) fn unsettled(&self) -> Vec<Outgoing> {
        let messages = self.unsettled.values().map(|unsettled| &unsettled.message);
        messages.cloned().collect()
    }

    pub(super) fn unsettled_count(&self) -> usize {
        self.unsettled.len()
    }
}

/// The newest messages.
#[derive(Default)]
pub(super) struct Recent(VecDeque<(ConversationId, Seq)>);

impl Recent {
    pub(super) fn push(&mut self, entry: (ConversationId, Seq)) {
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(super) fn choose(&self, pick: u32) -> Option<(ConversationId, Seq)> {
        self.0.get(pick as usize % self.0.len().max(1)).copied()
    }
}
