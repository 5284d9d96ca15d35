//! Notes frames as they went over the wire: for devices that speak to a raw socket.
//!
//! The device itself says what no frame shows: how it resumed ([`DeviceRecorder::ready`]), how the
//! connection ended ([`DeviceRecorder::disconnected`]) and that all is over
//! ([`DeviceRecorder::end`]).

use rookery_protocol::command::{ClientCommand, MessageSend};
use rookery_protocol::event::{MessageChanged, Ready, ServerEvent};
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, MessageId};

use crate::event::{Event, Fingerprint, Resume, Way};
use crate::recorder::DeviceRecorder;

impl DeviceRecorder {
    /// A connection is ready; `resume` is what its first `sync` names, or [`Resume::Fresh`].
    pub fn ready(&self, ready: &Ready, resume: Resume) {
        self.note(Event::Ready {
            node: ready.node_id.clone(),
            epoch: ready.epoch.clone(),
            resume,
        });
    }

    pub fn disconnected(&self, code: u16) {
        self.note(Event::Disconnected { code });
    }

    /// The device stops, with everything at rest: see [`Event::End`].
    pub fn end(&self, connected: bool, outbox: Vec<MessageId>) {
        self.note(Event::End { connected, outbox });
    }

    /// A command, before it is written to the socket: a send must be known before its ack.
    pub fn command(&self, command: &ClientCommand) {
        match command {
            ClientCommand::MessageSend(send) => self.sends(send),
            ClientCommand::MessageEdit(edit) => self.note(Event::Edit {
                conversation: edit.conversation_id,
                of: edit.seq,
                content: Fingerprint::of(&edit.content),
            }),
            ClientCommand::MessageDelete(delete) => self.note(Event::Edit {
                conversation: delete.conversation_id,
                of: delete.seq,
                content: Fingerprint::EMPTY,
            }),
            ClientCommand::Sync(sync) => self.note(Event::Sync {
                resume: match &sync.cursors {
                    Some(cursors) => Resume::Cursors(cursors.clone()),
                    None => Resume::Undelivered,
                },
            }),
            ClientCommand::PresenceSet(set) => self.note(Event::Appear { status: set.status }),
            _ => {}
        }
    }

    fn sends(&self, send: &MessageSend) {
        let direct = |other| ConversationId::direct(self.user(), other);
        if let Some(conversation) = send.conversation_id.or(send.recipient_id.map(direct)) {
            self.note(Event::Send {
                message_id: send.message_id,
                conversation,
                content: Fingerprint::of(&send.content),
            });
        }
    }

    /// A frame, as soon as it is read. `ready` is noted apart, by [`DeviceRecorder::ready`].
    pub fn event(&self, event: &ServerEvent) {
        match event {
            ServerEvent::MessageAck(ack) => self.note(Event::Ack {
                message_id: ack.message_id,
                conversation: ack.conversation_id,
                seq: ack.seq,
                duplicate: ack.duplicate,
            }),
            ServerEvent::MessageNew(new) => self.note(arrived(&new.message, Way::Live)),
            ServerEvent::MessageEdited(change)
            | ServerEvent::MessageDeleted(change)
            | ServerEvent::ReactionAdded(change)
            | ServerEvent::ReactionRemoved(change) => self.change(change),
            ServerEvent::SyncStart(_) => self.note(Event::SyncStarted {}),
            ServerEvent::MessageBatch(batch) => {
                for message in &batch.messages {
                    self.note(arrived(message, Way::Batch));
                }
                for message in &batch.changed {
                    self.note(changed(message));
                }
                self.note(Event::CaughtUp {
                    conversation: batch.conversation_id,
                    seq: batch.to_seq,
                });
            }
            ServerEvent::SyncDone(done) => {
                for reset in &done.reset {
                    self.note(Event::Reset {
                        conversation: reset.conversation_id,
                        seq: reset.seq,
                    });
                }
                self.note(Event::Synced {});
            }
            ServerEvent::Error(error) => {
                if let Some(message_id) = error.message_id {
                    self.note(Event::Refused {
                        message_id,
                        code: error.code.as_str().to_owned(),
                        retryable: error.retryable,
                    });
                }
            }
            other => self.people(other),
        }
    }

    /// Memberships, receipts and presence.
    fn people(&self, event: &ServerEvent) {
        match event {
            ServerEvent::ConversationCreated(created) => self.note(Event::Joined {
                conversation: created.conversation_id,
                seq: created.seq,
                user: self.user(),
            }),
            ServerEvent::MemberAdded(added) => self.note(Event::Joined {
                conversation: added.conversation_id,
                seq: added.seq,
                user: added.member.user_id,
            }),
            ServerEvent::MemberRemoved(removed) => self.note(Event::Left {
                conversation: removed.conversation_id,
                seq: removed.seq,
                user: removed.member.user_id,
            }),
            ServerEvent::ReceiptDelivered(receipt) | ServerEvent::ReceiptRead(receipt) => {
                self.note(Event::Receipt {
                    conversation: receipt.conversation_id,
                    seq: receipt.seq,
                    user: receipt.user_id,
                    read: matches!(event, ServerEvent::ReceiptRead(_)),
                });
            }
            ServerEvent::Presence(presence) => self.note(Event::Presence {
                user: presence.user_id,
                status: presence.status,
            }),
            ServerEvent::PresenceState(state) => {
                for presence in &state.users {
                    self.note(Event::Presence {
                        user: presence.user_id,
                        status: presence.status,
                    });
                }
            }
            _ => {}
        }
    }

    fn change(&self, change: &MessageChanged) {
        self.note(Event::Changed {
            conversation: change.conversation_id,
            seq: Some(change.seq),
            of: change.message.seq,
            message_id: change.message.message_id,
            content: Fingerprint::of(&change.message.content),
        });
    }
}

pub(crate) fn arrived(message: &Message, way: Way) -> Event {
    Event::Arrived {
        conversation: message.conversation_id,
        seq: message.seq,
        message_id: message.message_id,
        content: Fingerprint::of(&message.content),
        way,
    }
}

/// A message that a replay shows as it is now.
pub(crate) fn changed(message: &Message) -> Event {
    Event::Changed {
        conversation: message.conversation_id,
        seq: None,
        of: message.seq,
        message_id: message.message_id,
        content: Fingerprint::of(&message.content),
    }
}
