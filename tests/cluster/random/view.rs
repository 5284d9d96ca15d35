//! What a device believes, from everything that it received.

use std::collections::{BTreeMap, HashMap, HashSet};

use rookery_protocol::conversation::Conversation;
use rookery_protocol::event::{MessageChanged, Presence, ServerEvent};
use rookery_protocol::message::{Message, MessageKind, SystemNotice};
use rookery_protocol::{ConversationId, Seq, UserId};
use rookery_test_support::Record;

use super::Acked;

/// A conversation as a device shows it.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The user is a member.
    pub(super) present: bool,
    /// Everything after it has arrived.
    pub(super) from: Seq,
    pub(super) messages: BTreeMap<Seq, Message>,
    pub(super) acked: Acked,
    pub(super) title: Option<String>,
    pub(super) read: Seq,
}

#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) rooms: HashMap<ConversationId, Room>,
    pub(super) presence: HashMap<UserId, Presence>,
}

impl View {
    pub(super) fn of(me: UserId, record: &Record) -> Self {
        let mut view = Self::default();
        for event in record.all_events() {
            view.take(me, event);
        }
        view
    }

    /// A mark that this device set itself.
    pub(super) fn own_mark(&mut self, id: ConversationId, seq: Seq) {
        let room = self.rooms.entry(id).or_default();
        room.read = room.read.max(seq);
    }

    fn take(&mut self, me: UserId, event: &ServerEvent) {
        match event {
            ServerEvent::ConversationCreated(created) => {
                let room = self.rooms.entry(created.conversation_id).or_default();
                // Whoever comes back starts over from here.
                (room.present, room.from) = (true, created.seq);
                room.shown(&created.conversation);
            }
            ServerEvent::ConversationUpdated(updated) => {
                let room = self.rooms.entry(updated.conversation_id).or_default();
                room.present = true;
                room.shown(&updated.conversation);
            }
            ServerEvent::MemberAdded(added) if added.member.user_id == me => {
                self.rooms.entry(added.conversation_id).or_default().present = true;
            }
            ServerEvent::MemberRemoved(removed) if removed.member.user_id == me => {
                self.rooms
                    .entry(removed.conversation_id)
                    .or_default()
                    .present = false;
            }
            ServerEvent::ConversationRead(read) => {
                let room = self.rooms.entry(read.conversation_id).or_default();
                room.read = room.read.max(read.seq);
            }
            ServerEvent::MessageAck(ack) => {
                let room = self.rooms.entry(ack.conversation_id).or_default();
                room.acked.insert(ack.seq, ack.message_id);
            }
            ServerEvent::MessageNew(new) => self.message(&new.message),
            ServerEvent::MessageBatch(batch) => {
                batch
                    .messages
                    .iter()
                    .for_each(|message| self.message(message));
                batch
                    .changed
                    .iter()
                    .for_each(|message| self.changed(message));
            }
            ServerEvent::MessageEdited(change)
            | ServerEvent::MessageDeleted(change)
            | ServerEvent::ReactionAdded(change)
            | ServerEvent::ReactionRemoved(change) => {
                let MessageChanged { message, .. } = change;
                self.changed(message);
            }
            // A new socket watches nobody; whom its answer lacks one shares no conversation with, so
            // what was seen of them before is of the past.
            ServerEvent::Ready(_) => self.presence.clear(),
            ServerEvent::Presence(presence) => {
                self.presence.insert(presence.user_id, presence.clone());
            }
            ServerEvent::PresenceState(state) => {
                let seen = state.users.iter();
                self.presence
                    .extend(seen.map(|user| (user.user_id, user.clone())));
            }
            _ => {}
        }
    }

    fn message(&mut self, message: &Message) {
        let room = self.rooms.entry(message.conversation_id).or_default();
        if SystemNotice::of(message) == Some(SystemNotice::GroupDeleted) {
            room.present = false;
        }
        room.messages.insert(message.seq, message.clone());
    }

    /// A change shows only what is known: what came before this device is not.
    fn changed(&mut self, message: &Message) {
        let room = self.rooms.entry(message.conversation_id).or_default();
        if room.messages.contains_key(&message.seq) || room.acked.contains_key(&message.seq) {
            room.messages.insert(message.seq, message.clone());
        }
    }
}

impl Room {
    fn shown(&mut self, conversation: &Conversation) {
        self.title.clone_from(&conversation.title);
        self.read = self.read.max(conversation.me.read_seq);
    }

    /// Messages of others beyond the read mark, as far as this device knows the log.
    pub(super) fn unread(&self, me: UserId) -> i64 {
        let of_others = |message: &&Message| {
            message.kind == MessageKind::Text && message.sender_id != me && message.seq > self.read
        };
        self.messages.values().filter(of_others).count() as i64
    }
}

/// The `ref`s of what was refused.
pub(super) fn refused(record: &Record) -> HashSet<String> {
    let refused = record.all_events().filter_map(|event| match event {
        ServerEvent::Error(error) => error.reference.clone(),
        _ => None,
    });
    refused.collect()
}
