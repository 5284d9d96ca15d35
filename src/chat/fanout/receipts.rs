//! Publications about marks and settings: several in one, since they come in swarms.

use std::collections::HashMap;
use std::sync::Arc;

use rookery_protocol::{ConversationId, UserId};

use super::{Fanout, Known};
use crate::bus::{BusEvent, BusReceipt, Channel, OwnRead};
use crate::metrics;
use crate::store::MemberList;

/// Receipts in one envelope: some 20 KB, so that none holds the bus up.
const PER_ENVELOPE: usize = 200;

impl Fanout {
    /// Tells a user of other members' marks.
    pub(in crate::chat) fn receipts_for(&self, user: UserId, receipts: &[BusReceipt]) {
        self.receipts(&Channel::User(user), *user.as_bytes(), receipts);
    }

    /// Tells those who watch a large group of its members' marks.
    pub(in crate::chat) fn receipts_in(&self, id: ConversationId, receipts: &[BusReceipt]) {
        self.receipts(&Channel::Conversation(id), *id.as_bytes(), receipts);
    }

    /// Tells a user's devices, but for the socket `skip` of this node, what was read on one.
    pub(in crate::chat) fn own_reads(&self, user: UserId, skip: Option<u64>, reads: &[OwnRead]) {
        for reads in reads.chunks(PER_ENVELOPE) {
            let reads = reads.to_vec();
            let event = BusEvent::OwnRead { reads };
            self.tell(Channel::User(user), *user.as_bytes(), skip, event);
        }
    }

    /// Tells a user's devices that settings of a conversation changed.
    pub(in crate::chat) fn own_settings(&self, user: UserId, conversation_id: ConversationId) {
        let event = BusEvent::OwnSettings { conversation_id };
        self.tell(Channel::User(user), *user.as_bytes(), None, event);
    }

    /// The present members of conversations, each as of this version or a later one. What cannot
    /// be read is left out.
    pub(in crate::chat) async fn lists_of(
        &self,
        wanted: &[(ConversationId, i64)],
    ) -> HashMap<ConversationId, Arc<MemberList>> {
        let mut lists = HashMap::with_capacity(wanted.len());
        let mut unknown = Vec::new();
        for (id, version) in wanted {
            match self.list(*id, *version) {
                Some(list) => drop(lists.insert(*id, list)),
                None => unknown.push(*id),
            }
        }
        if unknown.is_empty() {
            return lists;
        }
        unknown.sort_unstable();
        unknown.dedup();
        match self.store.member_lists(&unknown).await {
            Ok(read) => {
                for known in read.into_iter().map(Known::now) {
                    let id = known.list.conversation_id;
                    lists.insert(id, Arc::clone(&known.list));
                    self.lists.insert(id, known);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "members are not told of marks: their lists cannot be read");
            }
        }
        lists
    }

    fn receipts(&self, channel: &Channel, key: [u8; 16], receipts: &[BusReceipt]) {
        for receipts in receipts.chunks(PER_ENVELOPE) {
            metrics::receipts_published_total().increment(receipts.len() as u64);
            let receipts = receipts.to_vec();
            self.tell(channel.clone(), key, None, BusEvent::Receipts { receipts });
        }
    }

    fn tell(&self, channel: Channel, key: [u8; 16], skip: Option<u64>, event: BusEvent) {
        if let Some(payload) = self.envelope(key, event, 0, skip) {
            self.bus.publish(channel, payload);
        }
    }
}
