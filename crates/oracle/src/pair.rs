//! While it happens: what was acknowledged must arrive once, in order, without a hole.
//!
//! For load tests, which have no room for histories: it watches one conversation of two people, and
//! costs a look into a ring for each event. Every message carries a counter of its sender in its
//! id and in its content, so that each arrival can be checked against what was sent. State is kept
//! only for messages that are not yet both acknowledged and delivered. No I/O, no clock.

use std::collections::VecDeque;
use std::ops::AddAssign;

use serde::Serialize;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A = 0,
    B = 1,
}

impl Side {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What was seen, in messages. All that matters is the second half: it must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,

    /// Sent, neither acknowledged nor refused at the end: a server that stopped answering.
    pub unanswered: u64,
    /// Acknowledged, and never received.
    pub lost: u64,
    /// Received twice or more on one connection's watch, or acknowledged with two places.
    pub doubled: u64,
    /// Received after a later one.
    pub reordered: u64,
    /// Places in the log that belong to no message.
    pub holes: u64,
    /// Received with another place than acknowledged, or never sent at all.
    pub foreign: u64,
    /// Answered with an error.
    pub refused: u64,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.unanswered == 0
            && self.lost == 0
            && self.doubled == 0
            && self.reordered == 0
            && self.holes == 0
            && self.foreign == 0
            && self.refused == 0
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.unanswered += other.unanswered;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.holes += other.holes;
        self.foreign += other.foreign;
        self.refused += other.refused;
    }
}

/// One message that is on its way. `S` is what the caller wants back, such as its time.
#[derive(Debug)]
struct Slot<S> {
    stamp: S,
    acked: Option<i64>,
    delivered: Option<i64>,
    refused: bool,
}

impl<S> Slot<S> {
    fn settled(&self) -> bool {
        self.refused || (self.acked.is_some() && self.delivered.is_some())
    }
}

/// What one side sends to the other.
#[derive(Debug)]
struct Flow<S> {
    /// The counter of the first slot; everything before it is settled.
    first: u64,
    slots: VecDeque<Slot<S>>,
    /// Slots that are not settled.
    open: usize,
    /// The highest place at which its messages arrived.
    last_delivered: i64,
}

/// A message by its counter.
enum Found<'a, S> {
    Slot(&'a mut Slot<S>),
    /// Both acknowledged and delivered before.
    Settled,
    NeverSent,
}

/// A message that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<S> {
    pub stamp: S,
    pub acked: bool,
    pub delivered: bool,
}

/// A conversation under watch.
#[derive(Debug)]
pub struct Conversation<S> {
    flows: [Flow<S>; 2],
    verdict: Verdict,
    base: i64,
    /// The highest place that any message had.
    highest: i64,
    /// Messages that have a place.
    placed: u64,
}

impl<S> Flow<S> {
    fn find(&mut self, counter: u64) -> Found<'_, S> {
        let Some(index) = counter.checked_sub(self.first) else {
            return Found::Settled;
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.slots
            .get_mut(index)
            .map_or(Found::NeverSent, Found::Slot)
    }

    fn settle_one(&mut self) {
        self.open -= 1;
        while self.slots.front().is_some_and(Slot::settled) {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

impl<S: Copy> Conversation<S> {
    /// A conversation whose log has `base` entries before the first message of this watch.
    #[must_use]
    pub fn new(base: i64) -> Self {
        let flow = || Flow {
            first: 0,
            slots: VecDeque::new(),
            open: 0,
            last_delivered: base,
        };
        let flows = [flow(), flow()];
        Self {
            flows,
            verdict: Verdict::default(),
            base,
            highest: base,
            placed: 0,
        }
    }

    /// One more message of this side: its counter.
    pub fn sent(&mut self, from: Side, stamp: S) -> u64 {
        self.verdict.sent += 1;
        let flow = &mut self.flows[from as usize];
        flow.slots.push_back(Slot {
            stamp,
            acked: None,
            delivered: None,
            refused: false,
        });
        flow.open += 1;
        flow.first + flow.slots.len() as u64 - 1
    }

    /// Messages of this side that are not yet both acknowledged and delivered.
    #[must_use]
    pub fn in_flight(&self, from: Side) -> usize {
        self.flows[from as usize].open
    }

    /// Whether nothing is on its way in either direction.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.flows.iter().all(|flow| flow.open == 0)
    }

    /// Counters of this side's messages that were neither acknowledged nor refused: to be sent
    /// again after an interruption.
    #[must_use]
    pub fn unanswered(&self, from: Side) -> Vec<u64> {
        let flow = &self.flows[from as usize];
        let open = flow.slots.iter().zip(flow.first..);
        let open = open.filter(|(slot, _)| slot.acked.is_none() && !slot.refused);
        open.map(|(_, counter)| counter).collect()
    }

    /// All messages that are neither refused nor both acknowledged and delivered.
    pub fn open(&self) -> impl Iterator<Item = Open<S>> {
        let slots = self.flows.iter().flat_map(|flow| &flow.slots);
        slots.filter(|slot| !slot.settled()).map(|slot| Open {
            stamp: slot.stamp,
            acked: slot.acked.is_some(),
            delivered: slot.delivered.is_some(),
        })
    }

    /// The highest place at which this side received something: its cursor.
    #[must_use]
    pub fn cursor(&self, side: Side) -> i64 {
        self.flows[side.other() as usize].last_delivered
    }

    /// A message of this side was acknowledged with this place. The stamp, the first time.
    pub fn acked(&mut self, from: Side, counter: u64, seq: i64) -> Option<S> {
        let flow = &mut self.flows[from as usize];
        let slot = match flow.find(counter) {
            Found::Slot(slot) => slot,
            // A repeated send is acknowledged once more.
            Found::Settled => return None,
            Found::NeverSent => {
                self.verdict.foreign += 1;
                return None;
            }
        };
        if let Some(place) = slot.acked {
            self.verdict.doubled += u64::from(place != seq);
            return None;
        }
        slot.acked = Some(seq);
        let (stamp, delivered) = (slot.stamp, slot.delivered);
        if slot.settled() {
            flow.settle_one();
        }
        self.verdict.acked += 1;
        self.place(delivered, seq);
        Some(stamp)
    }

    /// The other side received a message of this side. The stamp, the first time.
    pub fn delivered(&mut self, from: Side, counter: u64, seq: i64) -> Option<S> {
        let flow = &mut self.flows[from as usize];
        let in_order = seq > flow.last_delivered;
        flow.last_delivered = flow.last_delivered.max(seq);
        let slot = match flow.find(counter) {
            Found::Slot(slot) if slot.delivered.is_none() => slot,
            Found::Slot(_) | Found::Settled => {
                self.verdict.doubled += 1;
                return None;
            }
            Found::NeverSent => {
                self.verdict.foreign += 1;
                return None;
            }
        };
        slot.delivered = Some(seq);
        let (stamp, acked) = (slot.stamp, slot.acked);
        if slot.settled() {
            flow.settle_one();
        }
        self.verdict.delivered += 1;
        self.verdict.reordered += u64::from(!in_order);
        self.place(acked, seq);
        Some(stamp)
    }

    /// A send of this side was refused.
    pub fn refused(&mut self, from: Side, counter: u64) {
        let flow = &mut self.flows[from as usize];
        if let Found::Slot(slot) = flow.find(counter)
            && !slot.settled()
        {
            slot.refused = true;
            flow.settle_one();
            self.verdict.refused += 1;
        }
    }

    /// Something arrived that nobody sent.
    pub fn foreign(&mut self) {
        self.verdict.foreign += 1;
    }

    /// The end: what is still missing is lost.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = self.verdict;
        let mut unseen = 0;
        for message in self.open() {
            verdict.lost += u64::from(message.acked);
            verdict.unanswered += u64::from(!message.acked);
            unseen += u64::from(!message.acked && !message.delivered);
        }
        // Sends that nobody has seen may have taken places of their own.
        let entries = u64::try_from(self.highest - self.base).unwrap_or(0);
        verdict.holes += entries.saturating_sub(self.placed + unseen);
        verdict
    }

    /// A message has this place; `known` is the place it was already seen at.
    fn place(&mut self, known: Option<i64>, seq: i64) {
        match known {
            Some(place) => self.verdict.foreign += u64::from(place != seq),
            None => {
                self.placed += 1;
                self.highest = self.highest.max(seq);
            }
        }
    }
}

#[cfg(test)]
mod tests;
