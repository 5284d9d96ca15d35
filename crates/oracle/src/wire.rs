//! What frames say: for devices that speak to a raw socket.
//!
//! [`of_command`] and [`of_event`] turn frames into events; a [`DeviceRecorder`] notes them. The device itself says what no frame shows: how it resumed ([`DeviceRecorder::ready`]), how the
//! connection ended ([`DeviceRecorder::disconnected`]) and that all is over
//! ([`DeviceRecorder::end`]).

use rookery_protocol::command::ClientCommand;
use rookery_protocol::event::{MessageChanged, Ready, ServerEvent};
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, MessageId, UserId};

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
        if let Some(event) = of_command(self.user(), command) {
            self.note(event);
        }
    }

    /// A frame, as soon as it is read. `ready` is noted apart, by [`DeviceRecorder::ready`].
    pub fn event(&self, event: &ServerEvent) {
        of_event(self.user(), event, |event| self.note(event));
    }
}

/// What a command of this user is in a history, if anything.
#[must_use]
pub fn of_command(user: UserId, command: &ClientCommand) -> Option<Event> {
    match command {
        ClientCommand::MessageSend(send) => {
            let direct = |other| ConversationId::direct(user, other);
            let conversation = send.conversation_id.or(send.recipient_id.map(direct))?;
            Some(Event::Send {
                message_id: send.message_id,
                conversation,
                content: Fingerprint::of(&send.content),
            })
        }
        ClientCommand::MessageEdit(edit) => Some(Event::Edit {
            conversation: edit.conversation_id,
            of: edit.seq,
            content: Fingerprint::of(&edit.content),
        }),
        ClientCommand::MessageDelete(delete) => Some(Event::Edit {
            conversation: delete.conversation_id,
            of: delete.seq,
            content: Fingerprint::EMPTY,
        }),
        ClientCommand::Sync(sync) => Some(Event::Sync {
            resume: match &sync.cursors {
                Some(cursors) => Resume::Cursors(cursors.clone()),
                None => Resume::Undelivered,
            },
        }),
        ClientCommand::PresenceSet(set) => Some(Event::Appear { status: set.status }),
        _ => None,
    }
}

/// What an event that this user's device received is in a history: any number of events. `ready`,
/// which does not say how the device resumes, is left out.
pub fn of_event(user: UserId, event: &ServerEvent, mut note: impl FnMut(Event)) {
    match event {
        ServerEvent::MessageAck(ack) => note(Event::Ack {
            message_id: ack.message_id,
            conversation: ack.conversation_id,
            seq: ack.seq,
            duplicate: ack.duplicate,
        }),
        ServerEvent::MessageNew(new) => note(arrived(&new.message, Way::Live)),
        ServerEvent::MessageEdited(change)
        | ServerEvent::MessageDeleted(change)
        | ServerEvent::ReactionAdded(change)
        | ServerEvent::ReactionRemoved(change) => note(changed_live(change)),
        ServerEvent::SyncStart(_) => note(Event::SyncStarted {}),
        ServerEvent::MessageBatch(batch) => {
            for message in &batch.messages {
                note(arrived(message, Way::Batch));
            }
            for message in &batch.changed {
                note(changed(message));
            }
            note(Event::CaughtUp {
                conversation: batch.conversation_id,
                seq: batch.to_seq,
            });
        }
        ServerEvent::SyncDone(done) => {
            for reset in &done.reset {
                note(Event::Reset {
                    conversation: reset.conversation_id,
                    seq: reset.seq,
                });
            }
            note(Event::Synced {});
        }
        ServerEvent::Error(error) => {
            if let Some(message_id) = error.message_id {
                note(Event::Refused {
                    message_id,
                    code: error.code.as_str().to_owned(),
                    retryable: error.retryable,
                });
            }
        }
        other => people(user, other, note),
    }
}

/// Memberships, receipts and presence.
fn people(user: UserId, event: &ServerEvent, mut note: impl FnMut(Event)) {
    match event {
        ServerEvent::ConversationCreated(created) => note(Event::Joined {
            conversation: created.conversation_id,
            seq: created.seq,
            user,
        }),
        ServerEvent::MemberAdded(added) => note(Event::Joined {
            conversation: added.conversation_id,
            seq: added.seq,
            user: added.member.user_id,
        }),
        ServerEvent::MemberRemoved(removed) => note(Event::Left {
            conversation: removed.conversation_id,
            seq: removed.seq,
            user: removed.member.user_id,
        }),
        ServerEvent::ReceiptDelivered(receipt) | ServerEvent::ReceiptRead(receipt) => {
            note(Event::Receipt {
                conversation: receipt.conversation_id,
                seq: receipt.seq,
                user: receipt.user_id,
                read: matches!(event, ServerEvent::ReceiptRead(_)),
            });
        }
        ServerEvent::Presence(presence) => note(Event::Presence {
            user: presence.user_id,
            status: presence.status,
        }),
        ServerEvent::PresenceState(state) => {
            for presence in &state.users {
                note(Event::Presence {
                    user: presence.user_id,
                    status: presence.status,
                });
            }
        }
        _ => {}
    }
}

fn changed_live(change: &MessageChanged) -> Event {
    Event::Changed {
        conversation: change.conversation_id,
        seq: Some(change.seq),
        of: change.message.seq,
        message_id: change.message.message_id,
        content: Fingerprint::of(&change.message.content),
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
