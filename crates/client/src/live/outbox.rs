//! What was sent and not yet settled, in a lane for each conversation. No I/O.
//!
//! **At most one send of a conversation is on its way.** That is what keeps the order: as long as
//! nobody knows what became of a send (the connection broke) or it was refused for now, nothing
//! behind it may have been stored. Two on their way would do while all goes well, but the first
//! refusal, or the first cut, comes without a warning: then the second is stored and the first
//! leaves again behind it. No rule on this side mends that, since only the server could tie the
//! second to the first. It costs one round trip a message within one conversation, and nothing
//! across conversations; servers allow fewer messages a second (20 by default) than that yields
//! up to a round trip of 50 ms.
//!
//! Every operation costs the same however much waits: what may leave stands in a queue of lanes,
//! what waits for a time in another one.

mod lane;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rand::Rng;
use rookery_protocol::command::MessageSend;
use rookery_protocol::{MessageId, UserId};
use tokio::time::Instant;

use lane::{Entry, Lane, LaneId, State};

/// Sends on their way at once, over all conversations; far below what a server allows, enough for
/// its group commit.
const WINDOW: usize = 64;

/// A moment, and a number that makes it unique.
type Moment = (Instant, u64);

#[derive(Debug)]
pub(super) struct Outbox {
    lanes: HashMap<LaneId, Lane>,
    /// Which lane a send stands in.
    places: HashMap<MessageId, LaneId>,
    /// Lanes whose first send may leave, each once.
    ready: VecDeque<LaneId>,
    /// Lanes whose first send waits for a time.
    delayed: BTreeMap<Moment, LaneId>,
    /// Lanes whose first send is on its way, since when.
    flying: BTreeMap<Moment, LaneId>,
    /// How many may be on their way: one after a refusal because of the rate, one more with each
    /// settled send.
    window: usize,
    /// Numbers sends and moments.
    last: u64,
    bytes: usize,
    room: usize,
    room_bytes: usize,
    /// Whose direct conversations are meant by a recipient's id; known from the first `ready` on.
    me: Option<UserId>,
}

impl Outbox {
    pub(super) fn new(room: usize, room_bytes: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            places: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            flying: BTreeMap::new(),
            window: WINDOW,
            last: 0,
            bytes: 0,
            room,
            room_bytes,
            me: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.room || self.bytes >= self.room_bytes
    }

    /// Takes one more; one that is waiting already is not taken twice.
    pub(super) fn push(&mut self, message: MessageSend) {
        let number = self.number();
        self.enter(Entry::new(number, message));
    }

    fn enter(&mut self, entry: Entry) {
        let id = entry.message.message_id;
        if self.places.contains_key(&id) {
            return;
        }
        let to = LaneId::of(&entry.message, self.me);
        self.places.insert(id, to);
        self.bytes += entry.bytes;
        let lane = self.lanes.entry(to).or_default();
        lane.entries.push_back(entry);
        if lane.entries.len() == 1 {
            self.ready.push_back(to);
        }
    }

    /// Who sends: from now on a direct conversation is the same lane by either of its names.
    /// Nothing has left before.
    pub(super) fn identify(&mut self, me: UserId) {
        if self.me.is_some() {
            return;
        }
        self.me = Some(me);
        for entry in self.take_entries() {
            self.enter(entry);
        }
    }

    /// The next one to leave, now marked as on its way; the server allows this many.
    pub(super) fn next_due(&mut self, now: Instant, allowed: usize) -> Option<MessageSend> {
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now
        {
            let to = first.remove();
            self.ready.push_back(to);
            self.set_state(to, State::Ready);
        }
        if self.flying.len() >= self.window.min(allowed.max(1)) {
            return None;
        }
        let to = self.ready.pop_front()?;
        let moment = (now, self.number());
        let lane = self.lanes.get_mut(&to)?;
        lane.state = State::Flying(moment);
        self.flying.insert(moment, to);
        lane.entries.front().map(|entry| entry.message.clone())
    }

    /// When [`Outbox::next_due`] is worth asking again, if a lane waits for a time.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Since when the oldest one on its way has been unanswered.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    /// This one is settled: acknowledged, seen in the log, or refused for good.
    pub(super) fn settle(&mut self, id: MessageId) -> Option<MessageSend> {
        let to = self.places.remove(&id)?;
        let lane = self.lanes.get_mut(&to)?;
        // Nearly always the first; another one where the application repeats an earlier run's ids.
        let is_it = |entry: &Entry| entry.message.message_id == id;
        let place = lane.entries.iter().position(is_it)?;
        let entry = lane.entries.remove(place)?;
        self.bytes -= entry.bytes;
        if place == 0 {
            lane.went_through();
            let state = std::mem::take(&mut lane.state);
            let was_ready = matches!(state, State::Ready);
            let is_empty = lane.entries.is_empty();
            if is_empty {
                self.lanes.remove(&to);
            } else if !was_ready {
                self.ready.push_back(to);
            }
            match state {
                State::Flying(moment) => drop(self.flying.remove(&moment)),
                State::Delayed(moment) => drop(self.delayed.remove(&moment)),
                State::Ready if is_empty => self.ready.retain(|lane| *lane != to),
                State::Ready => {}
            }
        }
        self.window = (self.window + 1).min(WINDOW);
        Some(entry.message)
    }

    /// This one was refused for now. Its lane waits as long as the server asks, or longer with each
    /// refusal; other lanes go on, one at a time where it was because of the rate.
    pub(super) fn postpone(
        &mut self,
        id: MessageId,
        now: Instant,
        hint: Option<Duration>,
        by_rate: bool,
        dice: &mut impl Rng,
    ) {
        let number = self.number();
        let Some(to) = self.places.get(&id).copied() else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&to) else {
            return;
        };
        let State::Flying(moment) = lane.state else {
            return;
        };
        if lane
            .entries
            .front()
            .is_none_or(|entry| entry.message.message_id != id)
        {
            return;
        }
        self.flying.remove(&moment);
        let then = (now + lane.patience(hint, dice), number);
        lane.state = State::Delayed(then);
        self.delayed.insert(then, to);
        if by_rate {
            self.window = 1;
        }
    }

    /// The connection is gone: what was on its way may be lost, or stored. It leaves again first,
    /// in the order in which it left; what a server asked to wait goes on waiting.
    pub(super) fn interrupted(&mut self) {
        let flying: Vec<LaneId> = std::mem::take(&mut self.flying).into_values().collect();
        for to in flying.into_iter().rev() {
            self.ready.push_front(to);
            self.set_state(to, State::Ready);
        }
        self.window = WINDOW;
    }

    /// Empties it, in the order in which it was filled.
    pub(super) fn take_unsettled(&mut self) -> Vec<MessageSend> {
        let entries = self.take_entries();
        entries.into_iter().map(|entry| entry.message).collect()
    }

    fn take_entries(&mut self) -> Vec<Entry> {
        let lanes = std::mem::take(&mut self.lanes).into_values();
        let mut entries: Vec<Entry> = lanes.flat_map(|lane| lane.entries).collect();
        entries.sort_by_key(|entry| entry.number);
        self.places.clear();
        self.ready.clear();
        self.delayed.clear();
        self.flying.clear();
        self.bytes = 0;
        entries
    }

    fn set_state(&mut self, to: LaneId, state: State) {
        if let Some(lane) = self.lanes.get_mut(&to) {
            lane.state = state;
        }
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests;
