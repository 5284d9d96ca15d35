//! What this device has of each conversation: cursors, and which messages to hand out. No I/O.

use std::collections::{BTreeMap, HashMap};

use rookery_protocol::{ConversationId, Seq};

/// The cursors of one user's conversations.
///
/// A cursor moves with `message.new`, with what changes a message and with a batch's `to_seq`: the server sends entries in
/// `seq` order, so that whoever has one has all before it. An acknowledgement may overtake earlier
/// messages of others; it moves the cursor only if it is the very next entry, otherwise its `seq`
/// is remembered until the cursor gets there, so that the message is not handed out once more.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    conversations: HashMap<ConversationId, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Unknown where nothing but acknowledgements was seen.
    cursor: Option<Seq>,
    /// Acknowledged ones above the cursor: first and last of each run. As many runs as there are
    /// gaps left by others, all of which close when those arrive.
    acked: BTreeMap<Seq, Seq>,
}

impl Ledger {
    pub(super) fn new(cursors: HashMap<ConversationId, Seq>) -> Self {
        let entry = |cursor| Entry {
            cursor: Some(cursor),
            acked: BTreeMap::new(),
        };
        let conversations = cursors
            .into_iter()
            .map(|(id, seq)| (id, entry(seq)))
            .collect();
        Self { conversations }
    }

    /// A message, or the change of one, arrived in its place: whether it is new, and to be handed
    /// out.
    pub(super) fn arrived(&mut self, conversation: ConversationId, seq: Seq) -> bool {
        let entry = self.conversations.entry(conversation).or_default();
        if entry.cursor.is_some_and(|cursor| seq <= cursor) {
            return false;
        }
        let known = entry.has_acked(seq);
        entry.advance(seq);
        !known
    }

    /// Everything up to `to_seq` was received, or is none of this device's business.
    pub(super) fn advance(&mut self, conversation: ConversationId, to_seq: Seq) {
        let entry = self.conversations.entry(conversation).or_default();
        if entry.cursor.is_none_or(|cursor| cursor < to_seq) {
            entry.advance(to_seq);
        }
    }

    /// One's own message has this place. Whether that was news.
    pub(super) fn acked(&mut self, conversation: ConversationId, seq: Seq) -> bool {
        let entry = self.conversations.entry(conversation).or_default();
        if entry.cursor.is_some_and(|cursor| seq <= cursor) || entry.has_acked(seq) {
            return false;
        }
        if entry.cursor.is_some_and(|cursor| seq == cursor.next()) {
            entry.advance(seq);
        } else {
            entry.remember(seq);
        }
        true
    }

    /// The server gave up replaying: on from `seq`, which may lie before the old cursor.
    pub(super) fn reset(&mut self, conversation: ConversationId, seq: Seq) {
        let entry = Entry {
            cursor: Some(seq),
            acked: BTreeMap::new(),
        };
        self.conversations.insert(conversation, entry);
    }

    /// One is no member any more: a later membership counts from its own joining.
    pub(super) fn forget(&mut self, conversation: ConversationId) {
        self.conversations.remove(&conversation);
    }

    /// What `sync` is asked with.
    pub(super) fn cursors(&self) -> HashMap<ConversationId, Seq> {
        let known = self.conversations.iter();
        known
            .filter_map(|(id, entry)| Some((*id, entry.cursor?)))
            .collect()
    }
}

impl Entry {
    fn has_acked(&self, seq: Seq) -> bool {
        self.acked
            .range(..=seq)
            .next_back()
            .is_some_and(|(_, last)| seq <= *last)
    }

    fn remember(&mut self, seq: Seq) {
        let mut last = seq;
        if let Some(end) = self.acked.remove(&seq.next()) {
            last = end;
        }
        match self.acked.range_mut(..seq).next_back() {
            Some((_, end)) if *end == seq.previous() => *end = last,
            _ => {
                self.acked.insert(seq, last);
            }
        }
    }

    /// Moves the cursor to `seq`, and on over the run of acknowledged ones that follows it.
    fn advance(&mut self, seq: Seq) {
        let mut cursor = seq;
        while let Some((first, last)) = self.acked.first_key_value().map(|(f, l)| (*f, *l)) {
            if first > cursor.next() {
                break;
            }
            cursor = cursor.max(last);
            self.acked.remove(&first);
        }
        self.cursor = Some(cursor);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use uuid::Uuid;

    use super::*;

    const ONE: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));
    const OTHER: ConversationId = ConversationId::from_uuid(Uuid::from_u128(2));

    fn ledger(cursor: i64) -> Ledger {
        Ledger::new(HashMap::from([(ONE, Seq(cursor))]))
    }

    #[test]
    fn a_message_is_handed_out_once() {
        let mut ledger = ledger(4);
        assert!(!ledger.arrived(ONE, Seq(4)), "known from before");
        assert!(ledger.arrived(ONE, Seq(5)));
        assert!(!ledger.arrived(ONE, Seq(5)), "sent twice by the server");
        assert!(
            ledger.arrived(ONE, Seq(8)),
            "6 and 7 were entries of other kinds"
        );
        assert!(
            !ledger.arrived(ONE, Seq(7)),
            "order is the server's promise"
        );
        assert!(
            ledger.arrived(OTHER, Seq(70)),
            "an unknown conversation starts where it is"
        );
        assert_eq!(
            ledger.cursors(),
            HashMap::from([(ONE, Seq(8)), (OTHER, Seq(70))])
        );
    }

    #[test]
    fn an_ack_that_overtakes_moves_no_cursor() {
        let mut ledger = ledger(4);
        assert!(ledger.acked(ONE, Seq(6)));
        assert!(!ledger.acked(ONE, Seq(6)), "acked twice");
        assert_eq!(ledger.cursors()[&ONE], Seq(4));
        assert!(ledger.arrived(ONE, Seq(5)), "the one that was overtaken");
        assert_eq!(ledger.cursors()[&ONE], Seq(6));
        assert!(!ledger.arrived(ONE, Seq(6)), "one's own, as message.new");
        assert!(ledger.acked(ONE, Seq(7)), "the very next one");
        assert_eq!(ledger.cursors()[&ONE], Seq(7));
    }

    #[test]
    fn acks_alone_name_no_cursor_where_none_is_known() {
        let mut ledger = Ledger::default();
        assert!(ledger.acked(ONE, Seq(3)));
        assert!(ledger.cursors().is_empty());
        assert!(!ledger.arrived(ONE, Seq(3)));
        assert_eq!(ledger.cursors()[&ONE], Seq(3));
    }

    #[test]
    fn batches_and_resets_move_the_cursor() {
        let mut ledger = ledger(4);
        ledger.advance(ONE, Seq(9));
        ledger.advance(ONE, Seq(2));
        assert_eq!(ledger.cursors()[&ONE], Seq(9));
        ledger.acked(ONE, Seq(12));
        ledger.reset(ONE, Seq(1));
        assert_eq!(ledger.cursors()[&ONE], Seq(1), "the database was set back");
        assert!(ledger.arrived(ONE, Seq(12)));
        ledger.forget(ONE);
        assert!(ledger.cursors().is_empty());
    }

    /// Any mixture of own acks (in any order) and others' messages (in order) hands out each of
    /// the others' once and ends with the cursor at the end.
    #[test]
    fn any_mixture_ends_complete() {
        for seed in 0..200 {
            let mut dice = SmallRng::seed_from_u64(seed);
            let own: Vec<bool> = (0..60).map(|_| dice.random()).collect();
            let mut acks: Vec<i64> = (1..=60).filter(|seq| own[*seq as usize - 1]).collect();
            acks.shuffle(&mut dice);
            let mut ledger = ledger(0);
            let mut handed_out = Vec::new();
            for seq in 1..=60 {
                while dice.random_bool(0.4)
                    && let Some(acked) = acks.pop()
                {
                    ledger.acked(ONE, Seq(acked));
                }
                let echoed = dice.random_bool(0.1);
                if (!own[seq as usize - 1] || echoed) && ledger.arrived(ONE, Seq(seq)) {
                    handed_out.push(seq);
                }
            }
            for seq in acks {
                ledger.acked(ONE, Seq(seq));
            }
            let others: Vec<i64> = (1..=60).filter(|seq| !own[*seq as usize - 1]).collect();
            handed_out.retain(|seq| !own[*seq as usize - 1]);
            assert_eq!(handed_out, others, "seed {seed}");
            assert_eq!(ledger.cursors()[&ONE], Seq(60), "seed {seed}");
        }
    }
}
