//! Who hears of marks that grew: in small groups everybody, in large ones the authors concerned
//! and who watches; and the reader's own other devices. Everything one user has to hear of a flush
//! is one publication.

use std::collections::HashMap;

use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};

use super::flush::Flusher;
use super::table::Marks;
use crate::bus::{BusReceipt, OwnRead};
use crate::store::{MarkKind, MarksGrown, ReadMark, Stretch};

impl Flusher {
    /// Tells of what grew. What cannot be found out is not told: the next mark of the same member
    /// says it all.
    pub(super) async fn tell(&self, grown: &[MarksGrown], marks: &Marks) {
        let at = self.clock.now();
        let present = |grown: &&MarksGrown| grown.present;
        let (small, large): (Vec<MarksGrown>, Vec<MarksGrown>) = grown
            .iter()
            .filter(present)
            .partition(|grown| grown.member_count <= self.fanout_max);
        let mut outgoing: HashMap<UserId, Vec<BusReceipt>> = HashMap::new();
        self.for_members(&small, at, &mut outgoing).await;
        self.for_authors(&large, at, &mut outgoing).await;
        for (user, receipts) in outgoing {
            self.fanout.receipts_for(user, &receipts);
        }
        let mut watched: HashMap<ConversationId, Vec<BusReceipt>> = HashMap::new();
        for grown in &large {
            let receipts = receipts_of(grown, at).map(|(receipt, _)| receipt);
            let of = watched.entry(grown.conversation_id).or_default();
            of.extend(receipts);
        }
        for (id, receipts) in watched {
            self.fanout.receipts_in(id, &receipts);
        }
        self.own_reads(grown, marks, at).await;
    }

    async fn for_members(
        &self,
        small: &[MarksGrown],
        at: Timestamp,
        outgoing: &mut HashMap<UserId, Vec<BusReceipt>>,
    ) {
        let wanted = small.iter().filter(|grown| grown.member_count > 1);
        let wanted: Vec<_> = wanted
            .map(|grown| (grown.conversation_id, grown.member_version))
            .collect();
        let lists = self.fanout.lists_of(&wanted).await;
        for grown in small {
            let Some(list) = lists.get(&grown.conversation_id) else {
                continue;
            };
            for user in list.user_ids.iter().filter(|user| **user != grown.user_id) {
                let receipts = receipts_of(grown, at).map(|(receipt, _)| receipt);
                outgoing.entry(*user).or_default().extend(receipts);
            }
        }
    }

    async fn for_authors(
        &self,
        large: &[MarksGrown],
        at: Timestamp,
        outgoing: &mut HashMap<UserId, Vec<BusReceipt>>,
    ) {
        let receipts: Vec<(BusReceipt, Seq)> = large
            .iter()
            .flat_map(|grown| receipts_of(grown, at))
            .collect();
        let stretch = |(receipt, before): &(BusReceipt, Seq)| Stretch {
            conversation_id: receipt.conversation_id,
            // Among many entries of other kinds the messages concerned may be far apart.
            after: (*before).max(Seq(receipt.seq.0 - AUTHORS_WITHIN)),
            to: receipt.seq,
        };
        let stretches: Vec<Stretch> = receipts.iter().map(stretch).collect();
        let authors = match self.store.authors(&stretches).await {
            Ok(authors) => authors,
            Err(error) => {
                tracing::warn!(%error, "authors are not told: they cannot be read");
                return;
            }
        };
        for ((receipt, _), authors) in receipts.iter().zip(authors) {
            for author in authors.into_iter().filter(|user| *user != receipt.user_id) {
                outgoing.entry(author).or_default().push(*receipt);
            }
        }
    }

    /// Tells the readers' own other devices.
    async fn own_reads(&self, grown: &[MarksGrown], marks: &Marks, at: Timestamp) {
        let read = |grown: &&MarksGrown| grown.present && grown.read > grown.read_before;
        let (to_the_end, others): (Vec<MarksGrown>, Vec<MarksGrown>) = grown
            .iter()
            .filter(read)
            .partition(|grown| grown.read == grown.last_seq);
        let to_be_counted: Vec<_> = others
            .iter()
            .map(|grown| (grown.conversation_id, grown.user_id))
            .collect();
        let counted = match self.store.read_marks(&to_be_counted).await {
            Ok(counted) => counted,
            Err(error) => {
                tracing::warn!(%error, "own devices are not told: nothing can be counted");
                Vec::new()
            }
        };
        let nothing_unread = |grown: &MarksGrown| ReadMark {
            conversation_id: grown.conversation_id,
            user_id: grown.user_id,
            seq: grown.read,
            at,
            last_seq: grown.last_seq,
            unread_count: 0,
            mention_count: 0,
        };
        let all = to_the_end.iter().map(nothing_unread).chain(counted);
        let mut outgoing: HashMap<(UserId, Option<u64>), Vec<OwnRead>> = HashMap::new();
        for mark in all {
            let key = (mark.conversation_id, mark.user_id);
            let reader = marks.get(&key).and_then(|waiting| waiting.reader);
            let of = outgoing.entry((mark.user_id, reader)).or_default();
            of.push(mark.into());
        }
        for ((user, reader), reads) in outgoing {
            self.fanout.own_reads(user, reader, &reads);
        }
    }
}

/// How far behind a mark authors are looked for.
const AUTHORS_WITHIN: i64 = 500;

/// What others are told of one member, each with the mark as it was: that more was read, which
/// implies that it was delivered; that more was delivered, if that is further.
fn receipts_of(
    grown: &MarksGrown,
    at: Timestamp,
) -> impl Iterator<Item = (BusReceipt, Seq)> + use<> {
    let grown = *grown;
    let receipt = move |kind, seq, before| {
        let receipt = BusReceipt {
            conversation_id: grown.conversation_id,
            user_id: grown.user_id,
            kind,
            seq,
            at,
        };
        (receipt, before)
    };
    let read = (grown.read > grown.read_before)
        .then(|| receipt(MarkKind::Read, grown.read, grown.read_before));
    let delivered = (grown.delivered > grown.delivered_before && grown.delivered > grown.read)
        .then(|| receipt(MarkKind::Delivered, grown.delivered, grown.delivered_before));
    read.into_iter().chain(delivered)
}

impl From<ReadMark> for OwnRead {
    fn from(mark: ReadMark) -> Self {
        Self {
            conversation_id: mark.conversation_id,
            seq: mark.seq,
            at: mark.at,
            last_seq: mark.last_seq,
            unread_count: mark.unread_count,
            mention_count: mark.mention_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_read_is_not_told_as_delivered_as_well() {
        let told = |delivered: (i64, i64), read: (i64, i64)| {
            let grown = MarksGrown {
                conversation_id: ConversationId::from_uuid(Uuid::from_u128(1)),
                user_id: UserId::from_uuid(Uuid::from_u128(2)),
                delivered_before: Seq(delivered.0),
                delivered: Seq(delivered.1),
                read_before: Seq(read.0),
                read: Seq(read.1),
                present: true,
                last_seq: Seq(9),
                member_count: 2,
                member_version: 1,
            };
            let receipts = receipts_of(&grown, Timestamp::default());
            receipts
                .map(|(receipt, before)| (receipt.kind, before.0, receipt.seq.0))
                .collect::<Vec<_>>()
        };
        let (delivered, read) = (MarkKind::Delivered, MarkKind::Read);
        assert_eq!(told((1, 4), (1, 1)), [(delivered, 1, 4)]);
        assert_eq!(told((1, 4), (1, 4)), [(read, 1, 4)]);
        assert_eq!(told((4, 4), (1, 3)), [(read, 1, 3)]);
        assert_eq!(told((1, 5), (1, 3)), [(read, 1, 3), (delivered, 1, 5)]);
    }
}
