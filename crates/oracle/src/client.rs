//! Notes what the client library does and hands out: for devices that are a [`Live`]. What it hands out
//! is one view ([`LiveRecorder`]), what really went over its connections another
//! ([`DeviceRecorder::tap`]); who records both makes two devices of it.
//!
//! [`Live`]: rookery_client::Live

use std::sync::atomic::{AtomicBool, Ordering};

use rookery_client::live::To;
use rookery_client::{Outgoing, ServerEvent, Start, Tap, Tapped, Update};
use rookery_protocol::ConversationId;
use rookery_protocol::command::MessageSend;

use crate::event::{Event, Fingerprint, Resume, Way};
use crate::recorder::DeviceRecorder;
use crate::wire;

/// Notes the updates of one `Live`, which do not say themselves whether they are replayed.
pub struct LiveRecorder {
    device: DeviceRecorder,
    /// Where the next connection begins.
    resume: Resume,
    /// Everything missed has been handed out.
    synced: bool,
    connected: bool,
}

impl LiveRecorder {
    /// `start` is what the `Live` was started with.
    #[must_use]
    pub fn new(device: DeviceRecorder, start: &Start) -> Self {
        let resume = match start {
            Start::Undelivered => Resume::Undelivered,
            Start::Now => Resume::Fresh,
            Start::Cursors(cursors) => Resume::Cursors(cursors.clone()),
        };
        Self {
            device,
            resume,
            synced: false,
            connected: false,
        }
    }

    /// The device, for what others than the `Live` know of it: sends are noted by any task before
    /// they are handed over.
    #[must_use]
    pub fn device(&self) -> &DeviceRecorder {
        &self.device
    }

    /// An update, as soon as it was handed out.
    pub fn update(&mut self, update: &Update) {
        match update {
            Update::Connected { node_id, epoch, .. } => {
                self.synced = false;
                self.connected = true;
                self.device.note(Event::Ready {
                    node: node_id.clone(),
                    epoch: epoch.clone(),
                    resume: std::mem::replace(&mut self.resume, Resume::Kept),
                });
            }
            Update::Synced { .. } => {
                self.synced = true;
                self.device.note(Event::Synced {});
            }
            Update::Message(message) => {
                let way = if self.synced { Way::Live } else { Way::Batch };
                self.device.note(wire::arrived(message, way));
            }
            Update::Changed { cursor, message } => {
                let mut event = wire::changed(message);
                // In a replay the cursor is not the place of one entry.
                if let (Event::Changed { seq, .. }, true) = (&mut event, self.synced) {
                    *seq = Some(*cursor);
                }
                self.device.note(event);
            }
            Update::Cursor {
                conversation_id,
                seq,
            } => self.device.note(Event::CaughtUp {
                conversation: *conversation_id,
                seq: *seq,
            }),
            Update::Acked(ack) => self.device.note(Event::Ack {
                message_id: ack.message_id,
                conversation: ack.conversation_id,
                seq: ack.seq,
                duplicate: ack.duplicate,
            }),
            Update::Failed { message_id, error } => self.device.note(Event::Refused {
                message_id: *message_id,
                code: error.code.as_str().to_owned(),
                retryable: error.retryable,
            }),
            Update::Reset(reset) => self.device.note(Event::Reset {
                conversation: reset.conversation_id,
                seq: reset.seq,
            }),
            Update::Disconnected { code, .. } | Update::Stopped { code, .. } => {
                self.ended(*code);
            }
            other => self.people(other),
        }
    }

    /// All is over: `outbox` is what [`rookery_client::Live::close`] left unacknowledged. To be called when
    /// everything has come to rest.
    pub fn end(&self, outbox: &[MessageSend]) {
        let outbox = outbox.iter().map(|send| send.message_id).collect();
        self.device.end(self.connected && self.synced, outbox);
    }

    /// A failed attempt to connect is reported like the end of a connection; only the latter counts.
    fn ended(&mut self, code: u16) {
        if std::mem::take(&mut self.connected) {
            self.device.disconnected(code);
        }
    }

    fn people(&self, update: &Update) {
        match update {
            Update::ConversationChanged {
                seq,
                created: true,
                conversation,
            } => self.device.note(Event::Joined {
                conversation: conversation.conversation_id,
                seq: *seq,
                user: self.device.user(),
            }),
            Update::MemberChanged {
                conversation_id,
                seq,
                added,
                member,
            } => {
                let (conversation, seq, user) = (*conversation_id, *seq, member.user_id);
                self.device.note(if *added {
                    Event::Joined {
                        conversation,
                        seq,
                        user,
                    }
                } else {
                    Event::Left {
                        conversation,
                        seq,
                        user,
                    }
                });
            }
            Update::Receipt { receipt, read } => self.device.note(Event::Receipt {
                conversation: receipt.conversation_id,
                seq: receipt.seq,
                user: receipt.user_id,
                read: *read,
            }),
            Update::Event(event) => self.device.event(event),
            _ => {}
        }
    }
}

impl DeviceRecorder {
    /// Looks on at the connections of a `Live`, for a device with [`View::Wire`]: repetitions and
    /// refusals that the library deals with by itself are seen, too.
    ///
    /// [`View::Wire`]: crate::View::Wire
    #[must_use]
    pub fn tap(&self) -> Tap {
        let device = self.clone();
        let connected = AtomicBool::new(false);
        Tap::new(move |tapped| match tapped {
            Tapped::Opened { .. } => {}
            Tapped::Out(command) => device.command(command),
            Tapped::In(ServerEvent::Ready(ready)) => {
                connected.store(true, Ordering::Relaxed);
                device.ready(ready, Resume::Sync);
            }
            Tapped::In(event) => device.event(event),
            Tapped::Closed { code, .. } => {
                if connected.swap(false, Ordering::Relaxed) {
                    device.disconnected(code);
                }
            }
        })
    }

    /// A message, before it is handed to the client library.
    pub fn outgoing(&self, message: &Outgoing) {
        let conversation = match message.to {
            To::Conversation(conversation) => conversation,
            To::User(other) => ConversationId::direct(self.user(), other),
        };
        self.note(Event::Send {
            message_id: message.message_id,
            conversation,
            content: Fingerprint::of(&message.content),
        });
    }
}
