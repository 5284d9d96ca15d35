//! What is known of marks, so that only what is news is handed out. No I/O.

use std::collections::HashMap;

use rookery_protocol::event::{ConversationRead, Receipt};
use rookery_protocol::{ConversationId, Seq, UserId};

/// Members whose marks are remembered; beyond it all is forgotten, and old news may come again.
const MEMBERS_MAX: usize = 20_000;

/// The highest marks seen.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    others: HashMap<(ConversationId, UserId), Marks>,
    own: HashMap<ConversationId, Seq>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    delivered: Seq,
    read: Seq,
}

impl Receipts {
    /// Whether a receipt says more than those before it; what is read is delivered, too.
    pub(super) fn is_news(&mut self, receipt: &Receipt, read: bool) -> bool {
        if self.others.len() >= MEMBERS_MAX {
            self.others.clear();
        }
        let key = (receipt.conversation_id, receipt.user_id);
        let marks = self.others.entry(key).or_default();
        let mark = if read {
            &mut marks.read
        } else {
            &mut marks.delivered
        };
        if receipt.seq <= *mark {
            return false;
        }
        *mark = receipt.seq;
        marks.delivered = marks.delivered.max(receipt.seq);
        true
    }

    /// Whether one's own read mark is not behind one that was seen before. The same one may come
    /// with newer counts.
    pub(super) fn is_current(&mut self, read: &ConversationRead) -> bool {
        if self.own.len() >= MEMBERS_MAX {
            self.own.clear();
        }
        let seen = self.own.entry(read.conversation_id).or_default();
        let current = read.seq >= *seen;
        *seen = read.seq.max(*seen);
        current
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::Timestamp;
    use uuid::Uuid;

    use super::*;

    const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));
    const NOW: Timestamp = Timestamp::from_millis(0);

    #[test]
    fn a_receipt_is_news_only_if_it_says_more() {
        let mut receipts = Receipts::default();
        let receipt = |seq| Receipt {
            conversation_id: ROOM,
            user_id: UserId::from_uuid(Uuid::from_u128(2)),
            seq: Seq(seq),
            at: NOW,
        };
        assert!(receipts.is_news(&receipt(3), false));
        assert!(!receipts.is_news(&receipt(3), false));
        assert!(
            receipts.is_news(&receipt(2), true),
            "read for the first time"
        );
        assert!(receipts.is_news(&receipt(5), true));
        assert!(
            !receipts.is_news(&receipt(4), false),
            "read implies delivered"
        );
        assert!(receipts.is_news(&receipt(6), false));
    }

    #[test]
    fn an_older_read_mark_of_ones_own_is_passed_over() {
        let mut receipts = Receipts::default();
        let read = |seq| ConversationRead {
            conversation_id: ROOM,
            seq: Seq(seq),
            at: NOW,
            last_seq: Seq(9),
            unread_count: 0,
            mention_count: 0,
        };
        assert!(receipts.is_current(&read(4)));
        assert!(receipts.is_current(&read(4)), "counted anew");
        assert!(!receipts.is_current(&read(3)));
    }
}
