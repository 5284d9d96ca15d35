//! What this device has of each conversation: cursors, and which messages to hand out. No I/O.

use std::collections::{BTreeMap, HashMap};

use rookery_protocol::{ConversationId, Seq};

/// The cursors of one user's conversations.
///
/// A cursor moves with `message.new`, with what changes a message and with a batch's `to_seq`: the
/// server sends entries in `seq` order, so that whoever has one has all before it. An
/// acknowledgement may overtake earlier messages of others; it moves the cursor only if it is the
/// very next entry, otherwise its `seq` is remembered until the cursor gets there, so that the
/// message is not handed out once more.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    conversations: HashMap<ConversationId, Entry>,
    /// While a `sync` is under way: the highest entry that arrived of each conversation, new or
    /// not. Where the sync then ends in a reset, live goes on from there.
    arriving: Option<HashMap<ConversationId, Seq>>,
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
        Self {
            conversations,
            arriving: None,
        }
    }

    /// A `sync` is asked for.
    pub(super) fn begin_sync(&mut self) {
        self.arriving = Some(HashMap::new());
    }

    /// Its last word, resets included, has been taken note of.
    pub(super) fn end_sync(&mut self) {
        self.arriving = None;
    }

    fn note(&mut self, conversation: ConversationId, seq: Seq) {
        if let Some(arriving) = &mut self.arriving {
            let highest = arriving.entry(conversation).or_default();
            *highest = seq.max(*highest);
        }
    }

    /// A message, or the change of one, arrived in its place: whether it is new, and to be handed
    /// out.
    pub(super) fn arrived(&mut self, conversation: ConversationId, seq: Seq) -> bool {
        self.note(conversation, seq);
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
        // Where no cursor is known, the log may still begin with one's own message.
        if seq == entry.cursor.unwrap_or_default().next() {
            entry.advance(seq);
        } else {
            entry.remember(seq);
        }
        true
    }

    /// The server gave up replaying: on from `seq`, which may lie before the old cursor. What came
    /// after it while the sync was under way may have been handed out already, or passed over as
    /// known, so that it belongs to what is fetched from history: returns up to where.
    pub(super) fn reset(&mut self, conversation: ConversationId, seq: Seq) -> Seq {
        let arrived = self
            .arriving
            .as_ref()
            .and_then(|all| all.get(&conversation));
        let seq = arrived.map_or(seq, |arrived| seq.max(*arrived));
        let entry = Entry {
            cursor: Some(seq),
            acked: BTreeMap::new(),
        };
        self.conversations.insert(conversation, entry);
        seq
    }

    /// One is no member any more: a later membership counts from its own joining.
    pub(super) fn forget(&mut self, conversation: ConversationId) {
        self.conversations.remove(&conversation);
    }

    /// Up to where everything is known, 0 if nothing is.
    pub(super) fn cursor(&self, conversation: ConversationId) -> Seq {
        let entry = self.conversations.get(&conversation);
        entry.and_then(|entry| entry.cursor).unwrap_or_default()
    }

    /// What `sync` is asked with: at most so many, since a frame holds no more. Those that are left
    /// out are replayed from the joining, so the highest, with most before them, are named.
    pub(super) fn cursors(&self, most: usize) -> HashMap<ConversationId, Seq> {
        let known = self.conversations.iter();
        let mut known: Vec<_> = known
            .filter_map(|(id, entry)| Some((*id, entry.cursor?)))
            .collect();
        if known.len() > most {
            known.sort_unstable_by_key(|(_, seq)| std::cmp::Reverse(*seq));
            known.truncate(most);
        }
        known.into_iter().collect()
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
            ledger.cursors(9),
            HashMap::from([(ONE, Seq(8)), (OTHER, Seq(70))])
        );
    }

    #[test]
    fn an_ack_that_overtakes_moves_no_cursor() {
        let mut ledger = ledger(4);
        assert!(ledger.acked(ONE, Seq(6)));
        assert!(!ledger.acked(ONE, Seq(6)), "acked twice");
        assert_eq!(ledger.cursors(9)[&ONE], Seq(4));
        assert!(ledger.arrived(ONE, Seq(5)), "the one that was overtaken");
        assert_eq!(ledger.cursors(9)[&ONE], Seq(6));
        assert!(!ledger.arrived(ONE, Seq(6)), "one's own, as message.new");
        assert!(ledger.acked(ONE, Seq(7)), "the very next one");
        assert_eq!(ledger.cursors(9)[&ONE], Seq(7));
    }

    #[test]
    fn acks_alone_name_no_cursor_where_none_is_known() {
        let mut ledger = Ledger::default();
        assert!(ledger.acked(ONE, Seq(3)));
        assert!(ledger.cursors(9).is_empty());
        assert!(!ledger.arrived(ONE, Seq(3)));
        assert_eq!(ledger.cursors(9)[&ONE], Seq(3));
    }

    #[test]
    fn batches_and_resets_move_the_cursor() {
        let mut ledger = ledger(4);
        ledger.advance(ONE, Seq(9));
        ledger.advance(ONE, Seq(2));
        assert_eq!(ledger.cursors(9)[&ONE], Seq(9));
        ledger.acked(ONE, Seq(12));
        ledger.reset(ONE, Seq(1));
        assert_eq!(ledger.cursors(9)[&ONE], Seq(1), "the database was set back");
        assert!(ledger.arrived(ONE, Seq(12)));
        ledger.forget(ONE);
        assert!(ledger.cursors(9).is_empty());
    }

    #[test]
    fn what_arrives_before_a_reset_belongs_to_it() {
        let mut ledger = ledger(4);
        ledger.begin_sync();
        assert!(ledger.arrived(ONE, Seq(2_001)), "live goes on meanwhile");
        assert_eq!(ledger.reset(ONE, Seq(2_000)), Seq(2_001));
        ledger.end_sync();
        assert!(!ledger.arrived(ONE, Seq(2_001)), "not once more");
        assert!(ledger.arrived(ONE, Seq(2_002)));

        // The database was set back: what is new there looks old here.
        ledger.begin_sync();
        assert!(!ledger.arrived(ONE, Seq(51)));
        assert_eq!(ledger.reset(ONE, Seq(50)), Seq(51));
        ledger.end_sync();
        assert!(ledger.arrived(ONE, Seq(52)));
        assert_eq!(ledger.reset(ONE, Seq(40)), Seq(40), "of another sync");
    }

    #[test]
    fn a_sync_that_cannot_name_all_names_the_highest() {
        let mut ledger = ledger(4);
        ledger.arrived(OTHER, Seq(70));
        assert_eq!(ledger.cursors(1), HashMap::from([(OTHER, Seq(70))]));
    }

    #[test]
    fn a_log_that_begins_with_ones_own_message_needs_no_cursor() {
        let mut ledger = Ledger::default();
        assert!(ledger.acked(ONE, Seq(1)));
        assert_eq!(ledger.cursor(ONE), Seq(1));
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
            assert_eq!(ledger.cursors(9)[&ONE], Seq(60), "seed {seed}");
        }
    }
}
