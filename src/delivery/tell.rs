//! Puts entries into the outboxes of those sockets for which they are the next, and what changes
//! of a group mean for each member with them.

use std::sync::Arc;

use rookery_protocol::CloseCode;
use rookery_protocol::event::{
    ConversationChanged, MemberChanged, MessageChanged, MessageNew, ServerEvent, Typing,
};
use rookery_protocol::message::{ChangeKind, Message, MessageStatus, SystemNotice};
use rookery_protocol::{ConversationId, Seq, Timestamp, UserId, limits};

use tracing::field;

use super::fill::Filled;
use super::{Audience, DeliveryParts, Path};
use crate::bus::BusPresence;
use crate::failpoint::{self, Failpoint};
use crate::gateway::{Lane, Positions, Push, Registry, Session, SharedFrame, Verdict};
use crate::presence::shown;
use crate::store::{Change, LogEntry, Membership};
use crate::telemetry::MESSAGE;

/// An entry and what its envelope said about it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) log: Arc<LogEntry>,
    /// The local socket that has it as its ack.
    pub(super) skip: Option<u64>,
    /// When it was stored, or published where that is not known.
    pub(super) at: Timestamp,
}

impl Entry {
    pub(super) fn new(log: LogEntry, skip: Option<u64>, published_at: Timestamp) -> Self {
        Self {
            at: stored_at(&log).unwrap_or(published_at),
            log: Arc::new(log),
            skip,
        }
    }
}

/// What kept an entry from some of the sockets it was for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// A socket lacks what comes before it.
    pub(super) hole: bool,
    /// A socket did not know that its user is a member.
    pub(super) stranger: bool,
    /// A socket was told.
    pub(super) told: bool,
}

/// Passes one entry on to those of a user's sockets for which it is the next.
pub(super) fn pass_on(
    sessions: &[Arc<Session>],
    id: ConversationId,
    entry: &Entry,
    path: Path,
) -> Kept {
    let mut kept = Kept::default();
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
            Verdict::Ahead if failpoint::leaves_out(Failpoint::HoldOff) => {
                positions.synced_to(id, seq);
                frame.push_to(session, path);
            }
            Verdict::Ahead => kept.hole = true,
            Verdict::Unknown if failpoint::leaves_out(Failpoint::BaseNotRead) => {
                positions.learn(id, seq);
                frame.push_to(session, path);
            }
            Verdict::Unknown => kept.stranger = true,
        }
    }
    kept.told = frame.told;
    kept
}

/// Makes an entry's event as the sender of its message sees it (`true`), or somebody else.
type MakeEvent<'a> = Box<dyn Fn(bool) -> ServerEvent + 'a>;

/// The frames of one entry, for all who see it; none for an entry that says nothing.
pub(super) struct EntryFrame<'a> {
    entry: &'a LogEntry,
    frame: Option<SharedFrame<MakeEvent<'a>>>,
    /// It was queued for somebody.
    pub(super) told: bool,
}

impl<'a> EntryFrame<'a> {
    pub(super) fn of(entry: &'a LogEntry) -> Self {
        let frame = about(entry).map(|message| {
            let event: MakeEvent<'a> = Box::new(move |own| event_of(entry, message, own));
            SharedFrame::new(message.sender_id, event)
        });
        Self {
            entry,
            frame,
            told: false,
        }
    }

    fn push_to(&mut self, session: &Session, path: Path) {
        let frame = self.frame.as_mut();
        if let Some(frame) = frame.and_then(|f| f.for_viewer(session.user_id, session.format)) {
            // Counted first: who has received it may look at the counter.
            path.delivered().increment(1);
            let push = session.outbox.push(frame);
            self.told = true;
            follow(self.entry, session, path, push);
        }
    }
}

/// The message that an entry is, or is about.
fn about(entry: &LogEntry) -> Option<&Message> {
    match entry {
        LogEntry::Message(message) => Some(message),
        LogEntry::Change(change) => Some(&change.message),
        LogEntry::Blank { .. } => None,
    }
}

fn follow(entry: &LogEntry, session: &Session, path: Path, push: Push) {
    tracing::debug!(
        target: MESSAGE,
        message_id = about(entry).map(|message| field::display(message.message_id)),
        conversation_id = entry.conversation_id().map(field::display),
        seq = %entry.seq(),
        connection = session.id,
        ?path,
        ?push,
        "delivered"
    );
}

/// When an entry was stored, where it tells: for a reaction it does not.
pub(super) fn stored_at(entry: &LogEntry) -> Option<Timestamp> {
    match entry {
        LogEntry::Message(message) => Some(message.created_at),
        LogEntry::Change(Change { kind, message, .. }) => match kind {
            ChangeKind::Edited => message.edited_at,
            ChangeKind::Deleted => message.deleted_at,
            ChangeKind::ReactionAdded | ChangeKind::ReactionRemoved => None,
        },
        LogEntry::Blank { .. } => None,
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

/// How far a fill got with one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Whatever was read and is for it.
    On,
    /// It lacks something from before what was read.
    Lags,
    /// Until there was no room, and it is the first fill of this socket that waits for some.
    Waits,
}

/// Passes on to one socket what a fill read for it, each entry with what it means for its user. If
/// there is no room for all, the rest is read again up to `target` when there is.
pub(super) fn fill_session(
    session: &Session,
    membership: &Membership,
    filled: &Filled,
    frames: &mut [EntryFrame<'_>],
    target: Seq,
) -> Passed {
    let id = filled.conversation_id;
    let user = session.user_id;
    // Held to the end: no sync may come between an entry's verdict and its frame.
    let mut positions = session.positions();
    if !positions.is_based() {
        return Passed::On;
    }
    let known = positions.get(id).is_some();
    if !known && !membership.is_present() {
        // Came and went: whatever there was to tell was told in its time.
        return Passed::On;
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
    let live = positions.live(id);
    if live.is_some_and(|position| position < membership.visible_from) {
        start_over(session, &mut positions);
        return Passed::On;
    }
    for (entry, frame) in filled.entries.iter().zip(frames) {
        let seq = entry.seq();
        if seq <= membership.visible_from || seq > membership.visible_to() {
            continue;
        }
        let lacks = positions.live(id).is_some_and(|position| position < seq);
        if lacks && !session.outbox.has_room() {
            let is_first = positions.pace(id, target);
            return if is_first { Passed::Waits } else { Passed::On };
        }
        match positions.advance(id, seq) {
            Verdict::Pass if membership.sees(entry) => {
                frame.push_to(session, filled.path);
                tell_change(session, entry, filled, learned);
            }
            Verdict::Pass => {}
            Verdict::Ahead if positions.get(id) < Some(filled.from) => return Passed::Lags,
            Verdict::Ahead => {
                start_over(session, &mut positions);
                return Passed::On;
            }
            _ => {}
        }
    }
    // A sync that is under way still has to tell up to the end, and forgets by itself.
    if !membership.is_present() && positions.get(id) >= membership.left_seq {
        positions.forget(id);
    }
    Passed::On
}

/// What comes next for a socket is not to be had, for instance since its user left and came back: it
/// starts over with its cursors. Until it is gone nothing is read for it any more.
fn start_over(session: &Session, positions: &mut Positions) {
    positions.end();
    session.close(CloseCode::Resynchronise);
}

/// If an entry reports a change of the group, queues what that means for one socket.
fn tell_change(session: &Session, entry: &LogEntry, filled: &Filled, learned: bool) {
    let Some(message) = entry.message() else {
        return;
    };
    let Some(notice) = SystemNotice::of(message) else {
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
        // A hundred members who come at once are told by the message alone.
        SystemNotice::MembersAdded { user_ids } if user_ids.len() > limits::MEMBER_EVENTS => {
            Vec::new()
        }
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

/// Tells an audience that somebody writes, or ceased to. Only those who know the conversation hear
/// it, which one who was removed does not any more, and not the writer's own devices.
pub(super) fn typing(registry: &Registry, to: Audience, typing: &Typing, watched_only: bool) {
    let id = typing.conversation_id;
    let event = ServerEvent::Typing(typing.clone());
    let mut frame = SharedFrame::new(typing.user_id, |_| event.clone());
    let mut tell = |sessions: &[Arc<Session>]| {
        for session in sessions {
            let others = session.user_id != typing.user_id;
            if others
                && session.positions().get(id).is_some()
                && let Some(frame) = frame.for_viewer(session.user_id, session.format)
            {
                session.outbox.offer(Lane::Ephemeral, frame);
            }
        }
    };
    match to {
        Audience::User(user) => tell(&registry.of(user)),
        Audience::Room if watched_only => registry.rooms.watchers(id, tell),
        Audience::Room => {
            registry.rooms.seats(id, tell);
        }
    }
}

/// Shows a user's own devices, but the one that has it as its answer, how the user appears to
/// others now: offline while connected means invisible.
pub(super) fn own_presence(parts: &DeliveryParts, user: UserId, skip: Option<u64>) {
    let Some(listing) = parts.roster.get(user) else {
        return;
    };
    let told = listing
        .told(user)
        .unwrap_or(BusPresence::offline(user, None));
    let event = ServerEvent::Presence(shown(&told, false));
    let mut frame = SharedFrame::new(user, |_| event.clone());
    for session in parts.registry.of(user) {
        if skip != Some(session.id)
            && let Some(frame) = frame.for_viewer(user, session.format)
        {
            session.outbox.offer(Lane::Latest, frame);
        }
    }
}
