//! Who must hear about it: from a stored change to publications on its members' channels, or, for
//! a large conversation, to one publication on the conversation's own channel.
//!
//! Publishing comes after storing and never before an ack; what gets lost from here on is found
//! again by `delivery`, so nothing here is retried.

mod receipts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::sync::Cache;
use rookery_protocol::message::{Message, SystemNotice};
use rookery_protocol::{ConversationId, Seq, SessionId, UserId};

use crate::bus::{Bus, BusEvent, BusPresence, BusSocket, Channel, Envelope, VERSION};
use crate::clock::Clock;
use crate::metrics;
use crate::store::{
    Chosen, FanoutMode, FanoutState, MemberList, MessageChanged, Store, StoreError,
};
use crate::telemetry::{MESSAGE, SPANS, of_message};

/// For so long after a conversation changed its way of fan-out both ways are used: nodes have to
/// learn of the change and to subscribe.
const CHANGE_OVER_MS: i64 = 10_000;
/// News that no version comes with (typing) may go by a list of this age; who was removed since
/// hears nothing, since their sockets do not know the conversation any more.
const LIST_AGE: Duration = Duration::from_secs(10);
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
    lists: Cache<ConversationId, Known>,
}

/// A list of members, and when it was known to be the newest.
#[derive(Clone)]
struct Known {
    list: Arc<MemberList>,
    at: Instant,
}

impl Known {
    fn now(list: MemberList) -> Self {
        Self {
            list: Arc::new(list),
            at: Instant::now(),
        }
    }
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

    /// Drops the lists: after the database was set back a version may name another one.
    pub fn forget(&self) {
        self.lists.clear();
    }

    /// Whether [`Self::messages`] can tell of this one.
    pub(super) fn knows_list(&self, outgoing: &Outgoing) -> bool {
        let (id, version) = (outgoing.message.conversation_id, outgoing.member_version);
        self.list(id, version).is_some()
    }

    /// Tells the members of stored messages, in the order given, where the lists are known.
    pub(super) fn messages(&self, outgoing: Vec<Outgoing>) {
        for Outgoing {
            message,
            member_version,
            skip,
        } in outgoing
        {
            let Some(members) = self.list(message.conversation_id, member_version) else {
                self.leave_to_reconciliation(1);
                continue;
            };
            self.publish(message, &members, &[], skip);
        }
    }

    /// So many entries cannot be told, for instance since their lists cannot be read.
    pub(super) fn leave_to_reconciliation(&self, entries: usize) {
        self.bus.unpublished(entries);
    }

    /// Tells the members of an entry, and those in `also`, whom it removed.
    pub fn entry(&self, entry: &Message, members: &MemberList, also: &[UserId]) {
        self.lists
            .insert(members.conversation_id, Known::now(members.clone()));
        self.publish(entry.clone(), members, also, None);
    }

    /// Tells the other members that somebody writes, or ceased to. In groups of more than
    /// `everybody_max` members only those hear it who watch.
    ///
    /// # Errors
    /// The members cannot be read.
    pub async fn typing(
        &self,
        id: ConversationId,
        user_id: UserId,
        active: bool,
        everybody_max: i64,
    ) -> Result<(), StoreError> {
        if self.bus.is_busy() {
            // The first to go when there is too much to tell.
            metrics::typing_shed_total().increment(1);
            return Ok(());
        }
        let list = self.current_list(id).await?;
        // Who is blocked writes for nobody.
        let Some(list) = list.filter(|list| !list.blocked.contains(&user_id)) else {
            return Ok(());
        };
        let watched_only = list.user_ids.len() as i64 > everybody_max;
        let event = BusEvent::Typing {
            conversation_id: id,
            user_id,
            active,
            watched_only,
        };
        let Some(payload) = self.envelope(*id.as_bytes(), event, list.version, None) else {
            return Ok(());
        };
        if watched_only || list.fanout.mode == FanoutMode::Channel {
            self.bus.publish(Channel::Conversation(id), payload);
        } else {
            for other in list.user_ids.iter().filter(|other| **other != user_id) {
                self.bus.publish(Channel::User(*other), payload.clone());
            }
        }
        Ok(())
    }

    /// The members of a conversation as they were a moment ago; `None` if there is no such
    /// conversation.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn current_list(
        &self,
        id: ConversationId,
    ) -> Result<Option<Arc<MemberList>>, StoreError> {
        if let Some(known) = self.lists.get(&id)
            && known.at.elapsed() < LIST_AGE
        {
            return Ok(Some(known.list));
        }
        let Some(list) = self.store.member_lists(&[id]).await?.pop() else {
            return Ok(None);
        };
        let known = Known::now(list);
        self.lists.insert(id, known.clone());
        Ok(Some(known.list))
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
        let Some(members) = self.list(id, entry.member_version) else {
            self.leave_to_reconciliation(1);
            return;
        };
        follow(&message, entry.seq, &members);
        let event = BusEvent::Changed {
            seq: entry.seq,
            by: entry.by,
            kind: entry.kind,
            message,
            windowed: entry.windowed,
        };
        self.to_members(&members, event, std::iter::empty(), None);
    }

    /// Tells the nodes of a user whether `by` blocks that user.
    pub fn blocked(&self, by: UserId, user: UserId, blocked: bool) {
        let event = BusEvent::Blocked { by, blocked };
        self.send(*user.as_bytes(), event, std::iter::once(user));
    }

    /// Tells two users of their new conversation.
    pub fn direct_created(&self, conversation_id: ConversationId, users: [UserId; 2]) {
        let event = BusEvent::DirectCreated { conversation_id };
        self.send(*conversation_id.as_bytes(), event, users.into_iter());
    }

    /// Tells all nodes that sessions of a user were ended.
    pub fn revoked(&self, user_id: UserId, session_ids: &[SessionId]) {
        let event = BusEvent::Revoked {
            user_id,
            session_ids: session_ids.to_vec(),
        };
        self.send(*user_id.as_bytes(), event, std::iter::once(user_id));
    }

    /// Tells those who watch a user how they appear.
    pub fn presence(&self, presence: BusPresence) {
        let user = presence.user_id;
        let event = BusEvent::Presence(presence);
        if let Some(payload) = self.envelope(*user.as_bytes(), event, 0, None) {
            self.bus.publish(Channel::Presence(user), payload);
        }
    }

    /// Tells all nodes which sockets this one has of a user who has too many. `ask`: they are to
    /// tell theirs.
    pub fn sockets(&self, user_id: UserId, ask: bool, sockets: Vec<BusSocket>) {
        let event = BusEvent::Sockets {
            user_id,
            ask,
            sockets,
        };
        if let Some(payload) = self.envelope(*user_id.as_bytes(), event, 0, None) {
            self.bus.publish(Channel::Sockets, payload);
        }
    }

    /// Tells all nodes, and a user's other devices, how the user chose to appear. `skip`: the
    /// socket that has this as its answer.
    pub fn chosen(&self, user_id: UserId, chosen: Chosen, skip: u64) {
        let event = BusEvent::Chosen { user_id, chosen };
        if let Some(payload) = self.envelope(*user_id.as_bytes(), event, 0, Some(skip)) {
            self.bus.publish(Channel::User(user_id), payload);
        }
    }

    fn publish(&self, message: Message, members: &MemberList, also: &[UserId], skip: Option<u64>) {
        let joined = match members.fanout.mode {
            FanoutMode::Channel => joined_by(&message, members),
            FanoutMode::Direct => Vec::new(),
        };
        let span = tracing::debug_span!(target: SPANS, "publish", members = members.user_ids.len());
        let _in = of_message(span, message.message_id).entered();
        follow(&message, message.seq, members);
        let event = BusEvent::Entry { message };
        self.to_members(members, event, also.iter().chain(&joined), skip);
    }

    /// Publishes to the members in their conversation's way, and to `also` on their own channels:
    /// nodes may not hear the conversation's channel for them, yet or any more.
    fn to_members<'a>(
        &self,
        members: &MemberList,
        event: BusEvent,
        also: impl Iterator<Item = &'a UserId>,
        skip: Option<u64>,
    ) {
        let id = members.conversation_id;
        let Some(payload) = self.envelope(*id.as_bytes(), event, members.version, skip) else {
            return;
        };
        let FanoutState { mode, changed_at } = members.fanout;
        let both = self.clock.now().as_millis() - changed_at.as_millis() < CHANGE_OVER_MS;
        if both || mode == FanoutMode::Channel {
            self.bus.publish(Channel::Conversation(id), payload.clone());
        }
        if both || mode == FanoutMode::Direct {
            for user in &members.user_ids {
                self.bus.publish(Channel::User(*user), payload.clone());
            }
        }
        for user in also {
            self.bus.publish(Channel::User(*user), payload.clone());
        }
    }

    fn send(&self, key: [u8; 16], event: BusEvent, users: impl Iterator<Item = UserId>) {
        let Some(payload) = self.envelope(key, event, 0, None) else {
            return;
        };
        for user in users {
            self.bus.publish(Channel::User(user), payload.clone());
        }
    }

    fn envelope(
        &self,
        key: [u8; 16],
        event: BusEvent,
        members: i64,
        skip: Option<u64>,
    ) -> Option<Bytes> {
        let envelope = Envelope {
            key,
            v: VERSION,
            origin: self.node_id.clone(),
            skip,
            at: self.clock.now(),
            members,
            event,
        };
        envelope.encode()
    }

    fn list(&self, id: ConversationId, version: i64) -> Option<Arc<MemberList>> {
        // A newer list is as good: who joined since has a later position, and who left since is
        // told of the notice and reads what came before it.
        let list = self.lists.get(&id)?.list;
        (list.version >= version).then_some(list)
    }

    /// Reads the lists that are not known in the version needed, all at once.
    pub(super) async fn load_lists(&self, outgoing: &[Outgoing]) {
        let unknown = |o: &&Outgoing| !self.knows_list(o);
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
                    self.lists.insert(list.conversation_id, Known::now(list));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "members are told late: their lists cannot be read")
            }
        }
    }
}

fn follow(message: &Message, seq: Seq, members: &MemberList) {
    tracing::debug!(
        target: MESSAGE,
        message_id = %message.message_id,
        conversation_id = %message.conversation_id,
        %seq,
        members = members.user_ids.len(),
        way = ?members.fanout.mode,
        "published"
    );
}

/// The users whose membership an entry began.
fn joined_by(message: &Message, members: &MemberList) -> Vec<UserId> {
    match SystemNotice::of(message) {
        Some(SystemNotice::MembersAdded { user_ids }) => user_ids,
        Some(SystemNotice::GroupCreated) => members.user_ids.clone(),
        _ => Vec::new(),
    }
}
