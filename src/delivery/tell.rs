//! Puts entries into the outboxes of those sockets for which they are the next, and what changes
//! of a group mean for each member with them.

use std::sync::Arc;

use rookery_protocol::CloseCode;
use rookery_protocol::event::{
    ConversationChanged, MemberChanged, MessageChanged, MessageNew, ServerEvent,
};
use rookery_protocol::message::{ChangeKind, Message, MessageStatus, SystemNotice};
use rookery_protocol::{ConversationId, UserId};

use super::Path;
use super::fill::{self, Filled};
use crate::gateway::{Session, SharedFrame, Verdict};
use crate::store::{LogEntry, Membership};

/// An entry and what its envelope said about it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) log: Arc<LogEntry>,
    /// The local socket that has it as its ack.
    pub(super) skip: Option<u64>,
}

/// Whether a user's sockets could take an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// No socket lacks anything before it.
    Yes,
    /// Some socket lacks what comes before it.
    Hole,
    /// Some socket did not know that its user is a member.
    Stranger,
}

/// Passes one entry on to those of a user's sockets for which it is the next.
pub(super) fn pass_on(
    sessions: &[Arc<Session>],
    id: ConversationId,
    entry: &Entry,
    path: Path,
) -> Passed {
    let mut passed = Passed::Yes;
    let seq = entry.log.seq();
    let mut frame = EntryFrame::of(&entry.log);
    for session in sessions {
        // Held until the frame is queued: no sync may come between.
        let mut positions = session.positions();
        match positions.advance(id, seq) {
            Verdict::Pass => {
                if entry.skip != Some(session.id) {
                    frame.push_to(session, path);
                }
            }
            Verdict::Old | Verdict::Noted => {}
            Verdict::Ahead if passed == Passed::Yes => passed = Passed::Hole,
            Verdict::Ahead => {}
            Verdict::Unknown => passed = Passed::Stranger,
        }
    }
    passed
}

/// The frames of one entry, for all who see it; none for an entry that says nothing.
struct EntryFrame<'a>(Option<SharedFrame<Box<dyn Fn(bool) -> ServerEvent + 'a>>>);

impl<'a> EntryFrame<'a> {
    fn of(entry: &'a LogEntry) -> Self {
        let message = match entry {
            LogEntry::Message(message) => message,
            LogEntry::Change(change) => &change.message,
            LogEntry::Blank { .. } => return Self(None),
        };
        let event: Box<dyn Fn(bool) -> ServerEvent + 'a> =
            Box::new(move |own| event_of(entry, message, own));
        Self(Some(SharedFrame::new(message.sender_id, event)))
    }

    fn push_to(&mut self, session: &Session, path: Path) {
        let frame = self.0.as_mut();
        if let Some(frame) = frame.and_then(|f| f.for_viewer(session.user_id, session.format)) {
            session.outbox.push(frame);
            path.delivered().increment(1);
        }
    }
}

/// An entry as the sender of its message sees it, or somebody else.
fn event_of(entry: &LogEntry, message: &Message, own: bool) -> ServerEvent {
    let known = message.status.unwrap_or(MessageStatus::Sent);
    let message = Message {
        status: own.then_some(known),
        ..message.clone()
    };
    let LogEntry::Change(change) = entry else {
        return ServerEvent::MessageNew(MessageNew { message });
    };
    let changed = MessageChanged {
        conversation_id: message.conversation_id,
        seq: change.seq,
        by: change.by,
        message,
    };
    match change.kind {
        ChangeKind::Edited => ServerEvent::MessageEdited(changed),
        ChangeKind::Deleted => ServerEvent::MessageDeleted(changed),
        ChangeKind::ReactionAdded => ServerEvent::ReactionAdded(changed),
        ChangeKind::ReactionRemoved => ServerEvent::ReactionRemoved(changed),
    }
}

/// Passes on to one socket what a fill read for it, each entry with what it means for its user.
pub(super) fn fill_session(session: &Session, membership: &Membership, filled: &Filled) {
    let id = filled.conversation_id;
    let user = session.user_id;
    // Held to the end: no sync may come between an entry's verdict and its frame.
    let mut positions = session.positions();
    if !positions.is_based() {
        return;
    }
    let known = positions.get(id).is_some();
    if !known && !membership.is_present() {
        // Came and went: whatever there was to tell was told in its time.
        return;
    }
    let learned = positions.learn(id, membership.joined_seq);
    if learned && let Some(view) = filled.views.get(&user) {
        let seq = membership.joined_seq;
        let changed = ConversationChanged {
            conversation_id: id,
            seq,
            conversation: view.clone(),
        };
        session.send(&ServerEvent::ConversationCreated(changed));
    }
    let visible = |entry: &&LogEntry| {
        entry.seq() > membership.visible_from && entry.seq() <= membership.visible_to()
    };
    for entry in filled.entries.iter().filter(visible) {
        match positions.advance(id, entry.seq()) {
            Verdict::Pass if membership.sees(entry) => tell(session, entry, filled, learned),
            Verdict::Pass => {}
            // More is missing than a fill reads: the socket starts over with its cursors.
            Verdict::Ahead => {
                session.close(CloseCode::Resynchronise);
                return;
            }
            _ => {}
        }
    }
    // A sync that is under way still has to tell up to the end, and forgets by itself.
    if !membership.is_present() && positions.get(id) >= membership.left_seq {
        positions.forget(id);
    }
}

/// Queues one entry for one socket and, if it reports a change of the group, that change.
fn tell(session: &Session, entry: &LogEntry, filled: &Filled, learned: bool) {
    EntryFrame::of(entry).push_to(session, filled.path);
    let Some(message) = entry.message() else {
        return;
    };
    let Some(notice) = fill::notice_of(message) else {
        return;
    };
    for event in changes(session.user_id, message, &notice, filled, learned) {
        session.send(&event);
    }
}

/// The events that go with a notice, as one user sees them.
fn changes(
    user: UserId,
    message: &Message,
    notice: &SystemNotice,
    filled: &Filled,
    learned: bool,
) -> Vec<ServerEvent> {
    let (conversation_id, seq) = (message.conversation_id, message.seq);
    let member = |id: &UserId| {
        let member = filled.members.get(id)?.clone();
        Some(MemberChanged {
            conversation_id,
            seq,
            member,
        })
    };
    match notice {
        SystemNotice::MembersAdded { user_ids } => {
            let others = user_ids.iter().filter(|id| **id != user || !learned);
            others
                .filter_map(member)
                .map(ServerEvent::MemberAdded)
                .collect()
        }
        SystemNotice::MemberRemoved { user_id } | SystemNotice::MemberLeft { user_id } => {
            member(user_id)
                .map(ServerEvent::MemberRemoved)
                .into_iter()
                .collect()
        }
        SystemNotice::GroupUpdated { .. } | SystemNotice::RoleChanged { .. } => {
            let view = filled.views.get(&user).cloned();
            let changed = |conversation| ConversationChanged {
                conversation_id,
                seq,
                conversation,
            };
            view.map(changed)
                .map(ServerEvent::ConversationUpdated)
                .into_iter()
                .collect()
        }
        SystemNotice::GroupCreated | SystemNotice::GroupDeleted => Vec::new(),
    }
}
