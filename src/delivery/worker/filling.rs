//! What a worker has read from the store for its sockets. One read of a conversation at a time:
//! what is asked for meanwhile joins the next one.

use std::sync::Arc;

use rookery_protocol::{ConversationId, Seq, UserId};

use super::Worker;
use crate::delivery::fill::{Filled, Lack, Request};
use crate::delivery::pace::{self, Paced};
use crate::delivery::tell::{EntryFrame, Passed, fill_session, stored_at};
use crate::delivery::{Audience, Behind, seats};
use crate::gateway::Session;
use crate::store::{FanoutMode, Membership};

/// Users who wait for the next read of a conversation before repeated names are thrown out.
const NEXT_USERS: usize = 1_024;

/// A conversation that is being read from the store, with what was asked for meanwhile.
#[derive(Default)]
pub(super) struct Filling {
    next: Option<Behind>,
    /// Dropped when this one is done.
    paced: Vec<Paced>,
    /// As above, of the next one.
    next_paced: Vec<Paced>,
}

impl Filling {
    fn join(&mut self, behind: Behind) {
        let Some(next) = &mut self.next else {
            self.next = Some(behind);
            return;
        };
        next.target = next.target.max(behind.target);
        next.users.extend(behind.users);
        if next.users.len() > NEXT_USERS {
            next.users.sort_unstable();
            next.users.dedup();
        }
    }
}

impl Worker {
    /// Starts reading, or notes what to read next if the conversation is being read.
    pub(super) fn fill(&mut self, behind: Behind) {
        let id = behind.conversation_id;
        if let Some(filling) = self.filling.get_mut(&id) {
            filling.join(behind);
            return;
        }
        let Some(request) = self.request(behind) else {
            return;
        };
        self.filling.insert(id, Filling::default());
        self.fills.ask(&self.parts, &self.delivery, request);
    }

    /// As [`Self::fill`]; drops this once that is done.
    pub(super) fn fill_paced(&mut self, behind: Behind, paced: Paced) {
        let id = behind.conversation_id;
        let joins = self.filling.contains_key(&id);
        self.fill(behind);
        if let Some(filling) = self.filling.get_mut(&id) {
            let with = if joins {
                &mut filling.next_paced
            } else {
                &mut filling.paced
            };
            with.push(paced);
        }
    }

    /// Goes on with what was asked for while a conversation was read.
    fn fill_next(&mut self, filling: Filling) {
        let Some(next) = filling.next else { return };
        let id = next.conversation_id;
        self.fill(next);
        if let Some(now) = self.filling.get_mut(&id) {
            now.paced = filling.next_paced;
        }
    }

    /// What has to be read for those who still lack it; `None` if nobody does.
    fn request(&self, behind: Behind) -> Option<Request> {
        let Behind {
            conversation_id,
            target,
            path,
            ..
        } = behind;
        let mut users = behind.users;
        users.sort_unstable();
        users.dedup();
        let lack = |user: UserId| self.lacking(user, conversation_id, target);
        let lacks: Vec<Lack> = users.into_iter().filter_map(lack).collect();
        let nobody = lacks.is_empty();
        (!nobody).then_some(Request {
            conversation_id,
            lacks,
            target,
            path,
        })
    }

    /// What a user's sockets lack up to `target`; `None` if they have it all.
    pub(super) fn lacking(&self, user: UserId, id: ConversationId, target: Seq) -> Option<Lack> {
        let sessions = self.parts.registry.of(user);
        let lacks = |session: &Arc<Session>| session.positions().lacks(id, target);
        let positions: Vec<Option<Seq>> = sessions.iter().filter_map(lacks).collect();
        (!positions.is_empty()).then(|| Lack {
            user,
            lowest: positions.iter().flatten().min().copied(),
            is_new: positions.contains(&None),
        })
    }

    /// Nobody is left of those for whom a conversation was read.
    pub(super) fn fill_over(&mut self, id: ConversationId) {
        if let Some(filling) = self.filling.remove(&id) {
            self.fill_next(filling);
        }
    }

    /// Passes on what was read, then what was held behind it, and reads on if that was not all.
    pub(super) fn filled(&mut self, filled: Filled) {
        let id = filled.conversation_id;
        let mut lags = filled.more;
        let mut frames: Vec<_> = filled.entries.iter().map(EntryFrame::of).collect();
        for user in &filled.users {
            let key = (Audience::User(*user), id);
            let Some(membership) = filled.memberships.get(user) else {
                self.holds.forget(key);
                continue;
            };
            let sessions = self.parts.registry.of(*user);
            // What is held is given up for a socket that waits, which then has to read it.
            let held = [key, (Audience::Room, id)].map(|key| self.holds.target(key));
            let held = held.into_iter().flatten().max();
            let target = held.map_or(filled.target, |held| held.max(filled.target));
            for session in &sessions {
                match fill_session(session, membership, &filled, &mut frames, target) {
                    Passed::On => {}
                    Passed::Lags => lags = true,
                    Passed::Waits => pace::start(&self.parts, &self.delivery, session),
                }
                self.seat(session, membership);
            }
            if !membership.is_present() {
                self.holds.forget(key);
                continue;
            }
            self.release(key, lowest_position(&sessions, id));
        }
        let rooms = &self.parts.registry.rooms;
        let lowest = rooms.seats(id, |seats| lowest_position(seats, id));
        self.release((Audience::Room, id), lowest.flatten());
        let now = self.parts.clock.now().as_millis();
        for (entry, frame) in filled.entries.iter().zip(&frames) {
            if let (true, Some(at)) = (frame.told, stored_at(entry)) {
                filled.path.took(now - at.as_millis());
            }
        }
        drop(frames);
        // What is left to do and what was asked for meanwhile are read as one: otherwise, who is far
        // behind would keep the others waiting for as long as that takes.
        let mut filling = self.filling.remove(&id).unwrap_or_default();
        if lags {
            filling.join(Behind {
                conversation_id: id,
                users: filled.users,
                target: filled.target,
                path: filled.path,
            });
        }
        self.fill_next(filling);
    }

    /// Makes a socket's seat in the conversation what its membership says.
    fn seat(&self, session: &Arc<Session>, membership: &Membership) {
        let id = membership.conversation_id;
        let rooms = &self.parts.registry.rooms;
        let knows = session.positions().get(id).is_some();
        let change = if knows && membership.fanout == FanoutMode::Channel {
            rooms.join(id, session).then_some(seats::Change::Taken(id))
        } else if knows {
            None
        } else {
            let left = rooms.leave(id, session);
            left.then_some(seats::Change::GivenUp(id))
        };
        let Some(change) = change else { return };
        if let Err(full) = self.delivery.seats.try_send(change) {
            let seats = self.delivery.seats.clone();
            self.parts.tasks.spawn("seats", async move {
                // The other end is gone only when the node is.
                seats.send(full.into_inner()).await.ok();
            });
        }
    }

    /// Passes on held entries that follow the sockets' positions.
    fn release(&mut self, key: (Audience, ConversationId), lowest: Option<Seq>) {
        let Some(lowest) = lowest else {
            self.holds.forget(key);
            return;
        };
        self.holds.passed(key, lowest);
        if let Some(entry) = self.holds.take(key, lowest.next()) {
            let now = self.parts.clock.now();
            self.entry(key.0, entry, now);
        }
        self.holds.renew(key);
    }
}

/// Of those that are live in the conversation.
fn lowest_position(sessions: &[Arc<Session>], id: ConversationId) -> Option<Seq> {
    let positions = sessions.iter().filter_map(|s| s.positions().live(id));
    positions.min()
}
