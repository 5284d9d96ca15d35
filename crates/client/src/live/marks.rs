//! The marks that were set last. No I/O.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rookery_protocol::command::{ClientCommand, Mark};
use rookery_protocol::{ConversationId, Seq};
use tokio::time::Instant;
use uuid::Uuid;

/// A mark that arrived is stored within moments; one that is older than this was.
const REPEATED_FOR: Duration = Duration::from_secs(60);
/// Most marks that are repeated; the oldest are given up first.
const REPEATED: usize = 2_048;

/// One mark: of which conversation, and whether it means read rather than delivered.
type Key = (ConversationId, bool);

/// Read and delivered marks that wait for a connection, merged to the highest.
///
/// A mark has no answer unless it fails, so whether it arrived is never known: those of the last
/// minute are repeated after an interruption, which is harmless.
#[derive(Debug, Default)]
pub(super) struct Marks {
    waiting: HashMap<Key, Seq>,
    sent: VecDeque<(Instant, Key, Seq)>,
    /// Nothing leaves before: a server asked for patience.
    not_before: Option<Instant>,
}

impl Marks {
    pub(super) fn set(&mut self, conversation: ConversationId, seq: Seq, read: bool) {
        let mark = self.waiting.entry((conversation, read)).or_default();
        *mark = (*mark).max(seq);
    }

    /// Takes one that waits.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<ClientCommand> {
        if self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        self.not_before = None;
        let key = *self.waiting.keys().next()?;
        let seq = self.waiting.remove(&key)?;
        let is_old = |(at, ..): &(Instant, Key, Seq)| now.duration_since(*at) > REPEATED_FOR;
        while self.sent.len() >= REPEATED || self.sent.front().is_some_and(is_old) {
            self.sent.pop_front();
        }
        self.sent.push_back((now, key, seq));
        let (conversation_id, read) = key;
        let mark = Mark {
            reference: Some(reference(key, seq)),
            conversation_id,
            seq,
        };
        Some(match read {
            true => ClientCommand::MessageRead(mark),
            false => ClientCommand::MessageDelivered(mark),
        })
    }

    /// When [`Marks::next_due`] is worth asking again, if marks wait for a time.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.waiting.is_empty())
    }

    /// An error about a mark: whether the reference names one. One that was refused for now leaves
    /// again after `then`.
    pub(super) fn refused(&mut self, reference: &str, then: Option<Instant>) -> bool {
        let Some((conversation, read, seq)) = parse(reference) else {
            return false;
        };
        if let Some(then) = then {
            self.set(conversation, seq, read);
            self.not_before = Some(self.not_before.map_or(then, |set| set.max(then)));
        }
        true
    }

    /// The connection is gone: the last ones may not have arrived.
    pub(super) fn interrupted(&mut self, now: Instant) {
        for (at, (conversation, read), seq) in std::mem::take(&mut self.sent) {
            if now.duration_since(at) <= REPEATED_FOR {
                self.set(conversation, seq, read);
            }
        }
    }

    /// The database was set back: old marks may lie beyond its ends.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Lets an error find its mark: marks have no id of their own.
fn reference((conversation, read): Key, seq: Seq) -> String {
    let kind = if read { 'r' } else { 'd' };
    format!("{kind}{}:{seq}", conversation.as_uuid().simple())
}

fn parse(reference: &str) -> Option<(ConversationId, bool, Seq)> {
    let (mark, seq) = reference.split_once(':')?;
    let (read, id) = match mark.split_at_checked(1)? {
        ("r", id) => (true, id),
        ("d", id) => (false, id),
        _ => return None,
    };
    let conversation = ConversationId::from_uuid(Uuid::try_parse(id).ok()?);
    Some((conversation, read, Seq(seq.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));

    fn due(marks: &mut Marks, now: Instant) -> Option<(Seq, bool, String)> {
        match marks.next_due(now)? {
            ClientCommand::MessageRead(mark) => Some((mark.seq, true, mark.reference.unwrap())),
            ClientCommand::MessageDelivered(mark) => {
                Some((mark.seq, false, mark.reference.unwrap()))
            }
            other => panic!("no mark: {other:?}"),
        }
    }

    #[test]
    fn marks_are_merged_and_repeated_after_an_interruption() {
        let now = Instant::now();
        let mut marks = Marks::default();
        marks.set(ROOM, Seq(5), true);
        marks.set(ROOM, Seq(3), true);
        assert_eq!(due(&mut marks, now).unwrap().0, Seq(5));
        assert!(due(&mut marks, now).is_none());
        for seq in 6..5_000 {
            marks.set(ROOM, Seq(seq), true);
            assert_eq!(due(&mut marks, now).unwrap().0, Seq(seq));
        }
        marks.interrupted(now + REPEATED_FOR);
        assert_eq!(due(&mut marks, now).unwrap().0, Seq(4_999), "the highest");
        assert!(due(&mut marks, now).is_none());
        marks.interrupted(now + 2 * REPEATED_FOR);
        assert!(due(&mut marks, now).is_none(), "it was stored long ago");
    }

    #[test]
    fn a_mark_that_was_refused_for_now_leaves_again_later() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut marks = Marks::default();
        marks.set(ROOM, Seq(5), false);
        let (_, _, reference) = due(&mut marks, now).unwrap();
        assert!(reference.len() <= 64, "as long as a reference may be");
        assert!(marks.refused(&reference, Some(later)));
        assert!(due(&mut marks, now).is_none());
        assert_eq!(marks.wakes_at(), Some(later));
        let (seq, read, reference) = due(&mut marks, later).unwrap();
        assert_eq!((seq, read), (Seq(5), false));
        assert!(marks.refused(&reference, None), "for good");
        assert!(due(&mut marks, later).is_none());
        assert!(!marks.refused("sync", Some(later)), "no mark at all");
    }
}
