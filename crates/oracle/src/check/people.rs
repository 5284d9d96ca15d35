//! When users were connected, how they chose to appear, and what others saw of it in the end.

use std::collections::{HashMap, HashSet};

use rookery_protocol::UserId;
use rookery_protocol::user::PresenceStatus;

use crate::event::Event;
use crate::history::Place;
use crate::state::{Block, FinalState};

/// What recorded devices tell of one user.
#[derive(Debug, Default)]
struct Person {
    devices: u64,
    /// Devices that told how it ended for them.
    ended: u64,
    connected_at_end: bool,
    /// The first device ended here: what was seen later may be of what came after.
    first_end: Option<i64>,
    /// The last moment at which anything about the appearance could have changed.
    changed: i64,
    chose: bool,
}

#[derive(Debug, Default)]
pub(super) struct People {
    people: HashMap<UserId, Person>,
    told: HashMap<UserId, PresenceStatus>,
    blocks: HashSet<Block>,
}

/// How somebody has to appear to somebody else in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Status(PresenceStatus),
    /// Connected, and nobody knows what was chosen; not offline unless invisible.
    Unknown(&'static str),
}

impl People {
    pub(super) fn of(state: &FinalState) -> Self {
        let told = state.presence.iter();
        Self {
            people: HashMap::new(),
            told: told.map(|shown| (shown.user, shown.status)).collect(),
            blocks: state.blocks.iter().copied().collect(),
        }
    }

    pub(super) fn device(&mut self, user: UserId) {
        self.people.entry(user).or_default().devices += 1;
    }

    pub(super) fn see(&mut self, user: UserId, place: Place, event: &Event) {
        let person = self.people.entry(user).or_default();
        match event {
            Event::Ready { .. } | Event::Disconnected { .. } => {
                person.changed = person.changed.max(place.at);
            }
            Event::Appear { .. } => {
                person.changed = person.changed.max(place.at);
                person.chose = true;
            }
            Event::End { connected, .. } => {
                person.ended += 1;
                person.connected_at_end |= connected;
                let first = person.first_end.unwrap_or(i64::MAX);
                person.first_end = Some(first.min(place.at));
            }
            _ => {}
        }
    }

    /// What `observer`, who ended at `end`, had to see of `user` by then; `seen` is when it last
    /// saw anything, `bound` how long news may take.
    pub(super) fn truth(
        &self,
        user: UserId,
        observer: UserId,
        (seen, end): (i64, i64),
        bound: i64,
    ) -> Truth {
        let blocked = Block {
            user,
            blocked: observer,
        };
        let is_blocked = self.blocks.contains(&blocked);
        let person = self.people.get(&user);
        if person.is_some_and(|person| person.changed.saturating_add(bound) > end) {
            return Truth::Unknown("presence that changed shortly before the end");
        }
        if is_blocked {
            return Truth::Status(PresenceStatus::Offline);
        }
        if let Some(status) = self.told.get(&user) {
            return Truth::Status(*status);
        }
        match person {
            Some(person) if person.ended == person.devices => {
                if person.first_end.is_some_and(|first| first < seen) {
                    Truth::Unknown("presence seen after its user's own end")
                } else if person.chose {
                    Truth::Unknown("presence of users who chose how to appear")
                } else if person.connected_at_end {
                    Truth::Status(PresenceStatus::Online)
                } else {
                    Truth::Status(PresenceStatus::Offline)
                }
            }
            _ => Truth::Unknown("presence of users who were not recorded to the end"),
        }
    }
}
