//! What was sent and not yet acknowledged, and the marks that were set last. No I/O.

use std::collections::{HashMap, VecDeque};

use rookery_protocol::command::{ClientCommand, Mark, MessageSend};
use rookery_protocol::{ConversationId, MessageId, Seq};
use tokio::time::Instant;

/// Sends in the order they were asked for. After an interruption, or a retryable refusal, they
/// leave again in that order, with the same ids.
#[derive(Debug)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    room: usize,
    /// Nothing leaves before: a server asked for patience.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    message: MessageSend,
    on_its_way: bool,
}

impl Outbox {
    pub(super) fn new(room: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            room,
            not_before: None,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.room
    }

    pub(super) fn push(&mut self, message: MessageSend) {
        self.entries.push_back(Entry {
            message,
            on_its_way: false,
        });
    }

    /// The next one to leave, now marked as on its way; `window` bounds how many are.
    pub(super) fn next_due(&mut self, now: Instant, window: usize) -> Option<&MessageSend> {
        if self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        self.not_before = None;
        let on_their_way = self.entries.iter().filter(|entry| entry.on_its_way).count();
        if on_their_way >= window {
            return None;
        }
        let entry = self.entries.iter_mut().find(|entry| !entry.on_its_way)?;
        entry.on_its_way = true;
        Some(&entry.message)
    }

    /// When [`Outbox::next_due`] is worth asking again, if it waits for a time.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.not_before
    }

    /// This one is settled: acknowledged, seen in the log, or refused for good.
    pub(super) fn settle(&mut self, id: MessageId) -> Option<MessageSend> {
        let place = self
            .entries
            .iter()
            .position(|entry| entry.message.message_id == id)?;
        self.entries.remove(place).map(|entry| entry.message)
    }

    /// This one was refused for now: it leaves again after `then`, and nothing overtakes it.
    pub(super) fn postpone(&mut self, id: MessageId, then: Instant) {
        let place = self
            .entries
            .iter()
            .position(|entry| entry.message.message_id == id);
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            entry.on_its_way = false;
            self.not_before = Some(self.not_before.map_or(then, |set| set.max(then)));
        }
    }

    /// The connection is gone: what was on its way may be lost, or stored.
    pub(super) fn interrupted(&mut self) {
        self.entries
            .iter_mut()
            .for_each(|entry| entry.on_its_way = false);
        self.not_before = None;
    }

    pub(super) fn into_unsettled(self) -> Vec<MessageSend> {
        self.entries
            .into_iter()
            .map(|entry| entry.message)
            .collect()
    }
}

/// Marks have no answer: the newest ones are repeated after an interruption, which is harmless.
const MARKS_REPEATED: usize = 64;

/// Read and delivered marks that wait for a connection, merged to the highest.
#[derive(Debug, Default)]
pub(super) struct Marks {
    waiting: HashMap<(ConversationId, bool), Seq>,
    sent: VecDeque<(ConversationId, bool, Seq)>,
}

impl Marks {
    pub(super) fn set(&mut self, conversation: ConversationId, seq: Seq, read: bool) {
        let mark = self.waiting.entry((conversation, read)).or_default();
        *mark = (*mark).max(seq);
    }

    /// Takes one that waits.
    pub(super) fn next_due(&mut self) -> Option<ClientCommand> {
        let (conversation_id, read) = *self.waiting.keys().next()?;
        let seq = self.waiting.remove(&(conversation_id, read))?;
        if self.sent.len() == MARKS_REPEATED {
            self.sent.pop_front();
        }
        self.sent.push_back((conversation_id, read, seq));
        let mark = Mark {
            reference: None,
            conversation_id,
            seq,
        };
        Some(match read {
            true => ClientCommand::MessageRead(mark),
            false => ClientCommand::MessageDelivered(mark),
        })
    }

    /// The connection is gone: the last ones may not have arrived.
    pub(super) fn interrupted(&mut self) {
        for (conversation, read, seq) in std::mem::take(&mut self.sent) {
            self.set(conversation, seq, read);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Outgoing;
    use super::*;

    fn conversation() -> ConversationId {
        ConversationId::from_uuid(uuid::Uuid::from_u128(1))
    }

    fn outbox_of(texts: &[&str]) -> Outbox {
        let mut outbox = Outbox::new(3);
        for text in texts {
            outbox.push(Outgoing::to_conversation(conversation(), text).into_send());
        }
        outbox
    }

    fn due(outbox: &mut Outbox, now: Instant) -> Vec<(String, MessageId)> {
        let mut due = Vec::new();
        while let Some(message) = outbox.next_due(now, 2) {
            due.push((message.content.clone(), message.message_id));
        }
        due
    }

    #[test]
    fn sends_leave_within_the_window_and_again_in_order_after_an_interruption() {
        let now = Instant::now();
        let mut outbox = outbox_of(&["a", "b", "c"]);
        assert!(outbox.is_full());
        let first = due(&mut outbox, now);
        assert_eq!(
            first
                .iter()
                .map(|(text, _)| text.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(outbox.settle(first[0].1).unwrap().content, "a");
        assert!(outbox.settle(first[0].1).is_none(), "acked twice");
        assert_eq!(due(&mut outbox, now)[0].0, "c");
        outbox.interrupted();
        let again = due(&mut outbox, now);
        assert_eq!(again[0], first[1], "the same id");
        assert_eq!(again[1].0, "c");
        assert_eq!(outbox.into_unsettled().len(), 2);
    }

    #[test]
    fn nothing_overtakes_a_postponed_send() {
        let now = Instant::now();
        let mut outbox = outbox_of(&["a", "b"]);
        let id = outbox.next_due(now, 9).unwrap().message_id;
        outbox.postpone(id, now + Duration::from_secs(1));
        assert!(due(&mut outbox, now).is_empty());
        let later = outbox.wakes_at().unwrap();
        assert_eq!(due(&mut outbox, later)[0].1, id);
    }

    #[test]
    fn marks_are_merged_and_repeated_after_an_interruption() {
        let mut marks = Marks::default();
        marks.set(conversation(), Seq(5), true);
        marks.set(conversation(), Seq(3), true);
        let due = marks.next_due().unwrap();
        assert!(matches!(due, ClientCommand::MessageRead(mark) if mark.seq == Seq(5)));
        assert!(marks.next_due().is_none());
        marks.interrupted();
        assert!(matches!(
            marks.next_due(),
            Some(ClientCommand::MessageRead(_))
        ));
    }
}
