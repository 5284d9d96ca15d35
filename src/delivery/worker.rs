//! One worker: judges entries of its conversations for the sockets of this node and passes them on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::event::{ConversationChanged, MemberChanged, MessageNew, ServerEvent};
use rookery_protocol::message::{Message, MessageKind, MessageStatus, SystemNotice};
use rookery_protocol::{CloseCode, ConversationId, Seq, UserId};
use tokio::sync::mpsc;

use super::fill::{self, Filled};
use super::hold::Holds;
use super::{Behind, Delivery, DeliveryParts, Path, Work};
use crate::bus::{BreakReason, BusEvent, Envelope};
use crate::gateway::{Session, SharedFrame, Verdict};
use crate::metrics;
use crate::store::Membership;

/// How long a fill that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Items taken from the queue at once.
const BATCH: usize = 256;

/// An entry and what its envelope said about it.
#[derive(Clone)]
struct Entry {
    message: Arc<Message>,
    /// The local socket that has it as its ack.
    skip: Option<u64>,
}

/// A conversation that is being read from the store, with what was asked for meanwhile.
#[derive(Default)]
struct Filling {
    next: Option<Behind>,
}

/// See the module.
pub(super) struct Worker {
    parts: DeliveryParts,
    delivery: Delivery,
    holds: Holds<Entry>,
    filling: HashMap<ConversationId, Filling>,
}

impl Worker {
    pub(super) fn new(parts: DeliveryParts, delivery: Delivery) -> Self {
        Self {
            parts,
            delivery,
            holds: Holds::new(),
            filling: HashMap::new(),
        }
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.holds.deadline();
            tokio::select! {
                biased;
                () = self.parts.tasks.stopping().cancelled(), if batch.is_empty() => return,
                received = queue.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                }
                () = sleep_until(deadline), if deadline.is_some() => self.fill_overdue(),
            }
            for work in batch.drain(..) {
                self.work(work);
            }
        }
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::News { user, payload } => match Envelope::decode(&payload) {
                Ok(envelope) => self.news(user, envelope),
                Err(error) => {
                    metrics::bus_undecodable_total().increment(1);
                    tracing::debug!(%error, "skipped what another version published");
                    self.delivery.broke(BreakReason::Undecodable);
                }
            },
            Work::Behind(behind) => self.fill(behind),
            Work::Filled(filled) => self.filled(*filled),
            Work::FillFailed(id) => self.fill_ended(id),
        }
    }

    fn news(&mut self, user: UserId, envelope: Envelope) {
        let lag_ms = self.parts.clock.now().as_millis() - envelope.at.as_millis();
        metrics::bus_lag_seconds().record(lag_ms.max(0) as f64 / 1_000.0);
        match envelope.event {
            BusEvent::Entry { message } => {
                let skip = envelope
                    .skip
                    .filter(|_| envelope.origin == self.parts.node_id);
                if message.kind == MessageKind::System {
                    let target = message.seq;
                    let conversation_id = message.conversation_id;
                    let users = vec![user];
                    self.fill(Behind {
                        conversation_id,
                        users,
                        target,
                        path: Path::Bus,
                    });
                } else {
                    self.entry(
                        user,
                        Entry {
                            message: Arc::new(message),
                            skip,
                        },
                    );
                }
            }
            BusEvent::DirectCreated { conversation_id } => {
                let users = vec![user];
                self.fill(Behind {
                    conversation_id,
                    users,
                    target: Seq::ZERO,
                    path: Path::Bus,
                });
            }
            BusEvent::Revoked {
                user_id,
                session_ids,
            } => {
                self.parts.auth.revocations.add(&session_ids);
                self.parts.registry.revoke(user_id, &session_ids);
            }
            BusEvent::Canary { .. } => {}
        }
    }

    /// Passes an entry and those held behind it on to a user's sockets.
    fn entry(&mut self, user: UserId, entry: Entry) {
        let sessions = self.parts.registry.of(user);
        let id = entry.message.conversation_id;
        let mut next = Some(entry);
        while let Some(entry) = next.take() {
            let seq = entry.message.seq;
            match pass_on(&sessions, &entry, Path::Bus) {
                Passed::Yes => next = self.holds.take((user, id), seq.next()),
                Passed::Hole => self.holds.keep((user, id), seq, entry),
                Passed::Stranger => {
                    let users = vec![user];
                    self.holds.keep((user, id), seq, entry);
                    let target = seq;
                    self.fill(Behind {
                        conversation_id: id,
                        users,
                        target,
                        path: Path::Bus,
                    });
                }
            }
        }
    }

    /// Reads what is behind holds that are over.
    fn fill_overdue(&mut self) {
        for ((user, conversation_id), target) in self.holds.overdue(Instant::now()) {
            let users = vec![user];
            if self.lacking(user, conversation_id, target).is_none() {
                // The socket that lacked something is gone, or has it on another way.
                self.holds.forget((user, conversation_id));
                continue;
            }
            metrics::holes_total().increment(1);
            self.fill(Behind {
                conversation_id,
                users,
                target,
                path: Path::Fill,
            });
        }
    }

    /// Starts reading, or notes what to read next if the conversation is being read.
    fn fill(&mut self, behind: Behind) {
        let id = behind.conversation_id;
        if let Some(filling) = self.filling.get_mut(&id) {
            match &mut filling.next {
                Some(next) => {
                    next.target = next.target.max(behind.target);
                    for user in behind.users {
                        if !next.users.contains(&user) {
                            next.users.push(user);
                        }
                    }
                }
                next => *next = Some(behind),
            }
            return;
        }
        let Some(request) = self.request(behind) else {
            return;
        };
        self.filling.insert(id, Filling::default());
        let store = Arc::clone(&self.parts.store);
        let delivery = self.delivery.clone();
        self.parts.tasks.spawn("fill", async move {
            match fill::read(store.as_ref(), &request).await {
                Ok(filled) => {
                    metrics::fills_total().filled.increment(1);
                    delivery.put(id.as_bytes(), Work::Filled(Box::new(filled)));
                }
                Err(error) => {
                    metrics::fills_total().failed.increment(1);
                    tracing::warn!(%error, "a hole could not be filled yet");
                    tokio::time::sleep(RETRY).await;
                    let Request {
                        conversation_id,
                        users,
                        target,
                        path,
                    } = request.into();
                    delivery.put(id.as_bytes(), Work::FillFailed(id));
                    delivery.behind(Behind {
                        conversation_id,
                        users,
                        target,
                        path,
                    });
                }
            }
        });
    }

    /// What has to be read for those who still lack it; `None` if nobody does.
    fn request(&self, behind: Behind) -> Option<fill::Request> {
        let Behind {
            conversation_id,
            target,
            path,
            ..
        } = behind;
        let lacking = |user: UserId| Some((user, self.lacking(user, conversation_id, target)?));
        let users: Vec<_> = behind.users.into_iter().filter_map(lacking).collect();
        let nobody = users.is_empty();
        (!nobody).then_some(fill::Request {
            conversation_id,
            users,
            target,
            path,
        })
    }

    /// The lowest position among a user's sockets that have not reached `target`, itself `None`
    /// where a socket does not know the conversation; `None` if no socket lacks anything.
    fn lacking(&self, user: UserId, id: ConversationId, target: Seq) -> Option<Option<Seq>> {
        let sessions = self.parts.registry.of(user);
        let positions = sessions.iter().filter_map(|session| {
            let positions = session.positions();
            let known = positions.get(id);
            let lacks = positions.is_based() && known.is_none_or(|seq| seq < target);
            lacks.then_some(known)
        });
        positions.min()
    }

    fn fill_ended(&mut self, id: ConversationId) {
        if let Some(filling) = self.filling.remove(&id)
            && let Some(next) = filling.next
        {
            self.fill(next);
        }
    }

    /// Passes on what was read, then what was held behind it.
    fn filled(&mut self, filled: Filled) {
        let id = filled.conversation_id;
        for user in &filled.users {
            let key = (*user, id);
            let membership = filled.memberships.iter().find(|m| m.user_id == *user);
            let Some(membership) = membership else {
                self.holds.forget(key);
                continue;
            };
            let sessions = self.parts.registry.of(*user);
            for session in &sessions {
                fill_session(session, membership, &filled);
            }
            if !membership.is_present() {
                self.holds.forget(key);
                continue;
            }
            self.release(key, &sessions);
        }
        self.fill_ended(id);
    }

    /// Passes on held entries that follow the sockets' positions.
    fn release(&mut self, key: (UserId, ConversationId), sessions: &[Arc<Session>]) {
        let position = |session: &Arc<Session>| session.positions().get(key.1);
        let Some(lowest) = sessions.iter().filter_map(position).min() else {
            self.holds.forget(key);
            return;
        };
        self.holds.passed(key, lowest);
        if let Some(entry) = self.holds.take(key, lowest.next()) {
            self.entry(key.0, entry);
        }
    }
}

/// A fill's request, as asked for again.
struct Request {
    conversation_id: ConversationId,
    users: Vec<UserId>,
    target: Seq,
    path: Path,
}

impl From<fill::Request> for Request {
    fn from(request: fill::Request) -> Self {
        Self {
            conversation_id: request.conversation_id,
            users: request.users.into_iter().map(|(user, _)| user).collect(),
            target: request.target,
            path: request.path,
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

enum Passed {
    /// No socket lacks anything before it.
    Yes,
    /// Some socket lacks what comes before it.
    Hole,
    /// Some socket did not know that its user is a member.
    Stranger,
}

/// Passes one entry on to those of a user's sockets for which it is the next.
fn pass_on(sessions: &[Arc<Session>], entry: &Entry, path: Path) -> Passed {
    let mut passed = Passed::Yes;
    let message = &entry.message;
    let mut frame = new_message_frame(message);
    for session in sessions {
        let verdict = session
            .positions()
            .advance(message.conversation_id, message.seq);
        match verdict {
            Verdict::Pass => {
                if entry.skip != Some(session.id)
                    && let Some(frame) = frame.for_viewer(session.user_id, session.format)
                {
                    session.outbox.push(frame);
                    path.delivered().increment(1);
                }
            }
            Verdict::Old | Verdict::Noted => {}
            Verdict::Ahead if matches!(passed, Passed::Yes) => passed = Passed::Hole,
            Verdict::Ahead => {}
            Verdict::Unknown => passed = Passed::Stranger,
        }
    }
    passed
}

fn new_message_frame(message: &Message) -> SharedFrame<impl Fn(bool) -> ServerEvent + '_> {
    SharedFrame::new(message.sender_id, move |own| {
        let status = own.then_some(MessageStatus::Sent);
        ServerEvent::MessageNew(MessageNew {
            message: Message {
                status,
                ..message.clone()
            },
        })
    })
}

/// Passes on to one socket what a fill read for it, each entry with what it means for its user.
fn fill_session(session: &Session, membership: &Membership, filled: &Filled) {
    let id = filled.conversation_id;
    let user = session.user_id;
    if !session.positions().is_based() {
        return;
    }
    let known = session.positions().get(id).is_some();
    if !known && !membership.is_present() {
        // Came and went: whatever there was to tell was told in its time.
        return;
    }
    let learned = session.positions().learn(id, membership.joined_seq);
    if learned && let Some(view) = filled.views.get(&user) {
        let seq = membership.joined_seq;
        let changed = ConversationChanged {
            conversation_id: id,
            seq,
            conversation: view.clone(),
        };
        session.send(&ServerEvent::ConversationCreated(changed));
    }
    let visible = |entry: &&Message| {
        entry.seq > membership.visible_from && entry.seq <= membership.visible_to()
    };
    for message in filled.entries.iter().filter(visible) {
        let verdict = session.positions().advance(id, message.seq);
        match verdict {
            Verdict::Pass => tell(session, message, filled, learned),
            // More is missing than a fill reads: the socket starts over with its cursors.
            Verdict::Ahead => {
                session.close(CloseCode::Resynchronise);
                return;
            }
            _ => {}
        }
    }
    // A sync that is under way still has to tell up to the end, and forgets by itself.
    let mut positions = session.positions();
    if !membership.is_present() && positions.get(id) >= membership.left_seq {
        positions.forget(id);
    }
}

/// Queues one entry for one socket and, if it reports a change of the group, that change.
fn tell(session: &Session, message: &Message, filled: &Filled, learned: bool) {
    let user = session.user_id;
    if let Some(frame) = new_message_frame(message).for_viewer(user, session.format) {
        session.outbox.push(frame);
        filled.path.delivered().increment(1);
    }
    let Some(notice) = fill::notice_of(message) else {
        return;
    };
    for event in changes(user, message, &notice, filled, learned) {
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
