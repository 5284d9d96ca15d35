//! Marks of others, and one's own, to the sockets of one user. They carry the latest value: they
//! have no place in a conversation's order, and a later one makes up for a lost one.

use std::sync::Arc;

use rookery_protocol::Format;
use rookery_protocol::event::{ConversationRead, Receipt, ServerEvent};

use super::Audience;
use crate::bus::{BusReceipt, OwnRead};
use crate::gateway::{Frame, Lane, Registry, Session};
use crate::store::MarkKind;

/// Passes on what other members have got or read. A slow reader is left alone: it finds the same in
/// what it fetches later.
pub(super) fn receipts(registry: &Registry, to: Audience, receipts: &[BusReceipt]) {
    match to {
        Audience::User(user) => {
            let sessions = registry.of(user);
            receipts
                .iter()
                .for_each(|receipt| pass_on(&sessions, receipt));
        }
        // What goes to the channel of a large conversation is for those who watch it.
        Audience::Room => {
            for receipt in receipts {
                let watchers = &registry.rooms;
                watchers.watchers(receipt.conversation_id, |seats| pass_on(seats, receipt));
            }
        }
    }
}

/// Passes one receipt on to those sockets that know its conversation.
fn pass_on(sessions: &[Arc<Session>], receipt: &BusReceipt) {
    let mut frames = Frames::default();
    for session in sessions {
        let known = session.positions().get(receipt.conversation_id).is_some();
        if known && let Some(frame) = frames.of(session.format, || event_of(receipt)) {
            session.outbox.offer(Lane::Latest, frame);
        }
    }
}

/// Passes on what the user has read, but to the socket it was read on. No later event would mend a
/// wrong count of unread messages, so this is not shed.
pub(super) fn own_reads(registry: &Registry, to: Audience, reads: &[OwnRead], skip: Option<u64>) {
    let Audience::User(user) = to else { return };
    let sessions = registry.of(user);
    for read in reads {
        let mut frames = Frames::default();
        for session in &sessions {
            let known = session.positions().get(read.conversation_id).is_some();
            if known
                && skip != Some(session.id)
                && let Some(frame) = frames.of(session.format, || {
                    ServerEvent::ConversationRead(read.into())
                })
            {
                session.outbox.push(frame);
            }
        }
    }
}

/// One event, encoded at most once for each format.
#[derive(Default)]
struct Frames([Option<Frame>; 2]);

impl Frames {
    fn of(&mut self, format: Format, event: impl FnOnce() -> ServerEvent) -> Option<Frame> {
        let slot = &mut self.0[usize::from(format == Format::MsgPack)];
        if slot.is_none() {
            *slot = Frame::encode(format, &event());
        }
        slot.clone()
    }
}

fn event_of(receipt: &BusReceipt) -> ServerEvent {
    let event = Receipt {
        conversation_id: receipt.conversation_id,
        user_id: receipt.user_id,
        seq: receipt.seq,
        at: receipt.at,
    };
    match receipt.kind {
        MarkKind::Delivered => ServerEvent::ReceiptDelivered(event),
        MarkKind::Read => ServerEvent::ReceiptRead(event),
    }
}

impl From<&OwnRead> for ConversationRead {
    fn from(read: &OwnRead) -> Self {
        Self {
            conversation_id: read.conversation_id,
            seq: read.seq,
            at: read.at,
            last_seq: read.last_seq,
            unread_count: read.unread_count,
            mention_count: read.mention_count,
        }
    }
}
