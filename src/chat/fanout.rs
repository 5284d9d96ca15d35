//! Who must hear about it: from a stored change to publications on its members' channels.
//!
//! Publishing comes after storing and never before an ack; what gets lost from here on is found
//! again by `delivery`, so nothing here is retried.

use std::sync::Arc;

use quick_cache::sync::Cache;
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, SessionId, UserId};

use crate::bus::{Bus, BusEvent, Channel, Envelope, VERSION};
use crate::clock::Clock;
use crate::store::{MemberList, MessageChanged, Store};

/// Member lists kept. A direct conversation's costs about 150 bytes.
const LISTS_MAX: usize = 100_000;

/// A stored message on its way to its members.
#[derive(Debug)]
pub struct Outgoing {
    pub message: Message,
    /// Version of the member list at this entry, as the transaction returned it.
    pub member_version: i64,
    /// The socket of this node that gets it as its ack.
    pub skip: Option<u64>,
}

/// See the module.
pub struct Fanout {
    node_id: String,
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    clock: Clock,
    /// Valid for the version a transaction returned: never stale, never invalidated.
    lists: Cache<ConversationId, Arc<MemberList>>,
}

impl Fanout {
    #[must_use]
    pub fn new(node_id: &str, store: Arc<dyn Store>, bus: Arc<dyn Bus>, clock: Clock) -> Self {
        Self {
            node_id: node_id.to_owned(),
            store,
            bus,
            clock,
            lists: Cache::new(LISTS_MAX),
        }
    }

    /// Tells the members of stored messages, in the order given.
    pub async fn messages(&self, outgoing: Vec<Outgoing>) {
        self.load_lists(&outgoing).await;
        for Outgoing {
            message,
            member_version,
            skip,
        } in outgoing
        {
            // Without its list an entry is left to reconciliation.
            let Some(members) = self.list(message.conversation_id, member_version) else {
                continue;
            };
            self.publish(message, &members, &[], skip);
        }
    }

    /// Tells the members of an entry, and those in `also`, whom it removed.
    pub fn entry(&self, entry: &Message, members: &MemberList, also: &[UserId]) {
        self.lists
            .insert(members.conversation_id, Arc::new(members.clone()));
        self.publish(entry.clone(), members, also, None);
    }

    /// Tells the members that a message was changed, if it was.
    pub async fn changed(&self, changed: &MessageChanged) {
        let Some(entry) = changed.entry else {
            return;
        };
        let outgoing = [Outgoing {
            message: changed.message.clone(),
            member_version: entry.member_version,
            skip: None,
        }];
        self.load_lists(&outgoing).await;
        let [Outgoing { message, .. }] = outgoing;
        let id = message.conversation_id;
        // Without its list an entry is left to reconciliation.
        let Some(members) = self.list(id, entry.member_version) else {
            return;
        };
        let event = BusEvent::Changed {
            seq: entry.seq,
            by: entry.by,
            kind: entry.kind,
            message,
            windowed: entry.windowed,
        };
        let users = members.user_ids.iter().copied();
        self.send(*id.as_bytes(), event, members.version, None, users);
    }

    /// Tells the nodes of a user whether `by` blocks that user.
    pub fn blocked(&self, by: UserId, user: UserId, blocked: bool) {
        let event = BusEvent::Blocked { by, blocked };
        self.send(*user.as_bytes(), event, 0, None, std::iter::once(user));
    }

    /// Tells two users of their new conversation.
    pub fn direct_created(&self, conversation_id: ConversationId, users: [UserId; 2]) {
        let event = BusEvent::DirectCreated { conversation_id };
        self.send(
            *conversation_id.as_bytes(),
            event,
            0,
            None,
            users.into_iter(),
        );
    }

    /// Tells all nodes that sessions of a user were ended.
    pub fn revoked(&self, user_id: UserId, session_ids: &[SessionId]) {
        let event = BusEvent::Revoked {
            user_id,
            session_ids: session_ids.to_vec(),
        };
        self.send(
            *user_id.as_bytes(),
            event,
            0,
            None,
            std::iter::once(user_id),
        );
    }

    fn publish(&self, message: Message, members: &MemberList, also: &[UserId], skip: Option<u64>) {
        let key = *message.conversation_id.as_bytes();
        let users = members.user_ids.iter().chain(also).copied();
        self.send(
            key,
            BusEvent::Entry { message },
            members.version,
            skip,
            users,
        );
    }

    fn send(
        &self,
        key: [u8; 16],
        event: BusEvent,
        members: i64,
        skip: Option<u64>,
        users: impl Iterator<Item = UserId>,
    ) {
        let envelope = Envelope {
            key,
            v: VERSION,
            origin: self.node_id.clone(),
            skip,
            at: self.clock.now(),
            members,
            event,
        };
        let Some(payload) = envelope.encode() else {
            return;
        };
        for user in users {
            self.bus.publish(Channel::User(user), payload.clone());
        }
    }

    fn list(&self, id: ConversationId, version: i64) -> Option<Arc<MemberList>> {
        // A newer list is as good: who joined since has a later position, and who left since is
        // told of the notice and reads what came before it.
        self.lists.get(&id).filter(|list| list.version >= version)
    }

    /// Reads the lists that are not known in the version needed, all at once.
    async fn load_lists(&self, outgoing: &[Outgoing]) {
        let unknown = |o: &&Outgoing| {
            self.list(o.message.conversation_id, o.member_version)
                .is_none()
        };
        let mut ids: Vec<ConversationId> = outgoing
            .iter()
            .filter(unknown)
            .map(|o| o.message.conversation_id)
            .collect();
        if ids.is_empty() {
            return;
        }
        ids.sort_unstable();
        ids.dedup();
        match self.store.member_lists(&ids).await {
            Ok(lists) => {
                for list in lists {
                    self.lists.insert(list.conversation_id, Arc::new(list));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "members are told late: their lists cannot be read")
            }
        }
    }
}
