//! One conversation on one device: what has come, in which order, and what was passed over.

use std::collections::HashMap;

use super::logs::Log;
use super::runs::Runs;
use super::windows::Windows;
use crate::history::Place;
use crate::state::EntryKind;

/// Where a run of arrivals begins. A connection begins one, unless the client library continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Everything after this cursor is owed.
    Cursor(i64),
    /// Everything after the joining is owed.
    Joining,
    /// Nobody knows; what was sent after this moment is owed for certain.
    After(i64),
}

/// How an entry came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// By itself: everything before it had to come the same way.
    Live,
    /// In a replay, or right behind one whose end is not known: changes of messages before it may
    /// have been shown by the messages alone.
    Replayed,
}

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// The next one; how often it is new to this device.
    InOrder { new: bool },
    /// Again, where it must not.
    Again,
    /// After a later one.
    Late,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Order {
    /// The run that this is about; the device counts them.
    pub(super) run: u32,
    from: From,
    /// The last entry that came in this run.
    position: Option<i64>,
    /// What the device said it had when the run began.
    floor: i64,
    in_run: Runs,
    ever: Runs,
    acked: Runs,
    /// Owed and passed over: by what.
    missing: HashMap<i64, Place>,
    /// How many replays the device had been through when an entry last came live.
    pub(super) replays: u32,
}

/// What an order needs to know of the conversation.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) log: &'a Log<'a>,
    pub(super) windows: &'a Windows,
}

impl Order {
    pub(super) fn new(run: u32, from: From) -> Self {
        let mut order = Self {
            run,
            from,
            position: None,
            floor: 0,
            in_run: Runs::default(),
            ever: Runs::default(),
            acked: Runs::default(),
            missing: HashMap::new(),
            replays: 0,
        };
        order.begin(run, from);
        order
    }

    /// Another run begins.
    pub(super) fn begin(&mut self, run: u32, from: From) {
        self.run = run;
        self.from = from;
        self.position = None;
        self.floor = match from {
            From::Cursor(cursor) => cursor,
            From::Joining | From::After(_) => 0,
        };
        self.in_run = Runs::default();
    }

    /// Everything up to `seq` will not come; what is after it will. Forgives what was passed over
    /// since line `since`, where the sync began that ends so: live entries come meanwhile.
    pub(super) fn reset(&mut self, seq: i64, since: usize) {
        self.missing
            .retain(|missing, place| *missing > seq || place.line < since);
        if self.position.is_some_and(|position| position > seq) {
            self.in_run = Runs::default();
        }
        self.position = Some(seq);
        self.floor = seq;
    }

    /// The user learnt of the conversation as it was at `seq`: what comes after it is owed.
    pub(super) fn introduced(&mut self, seq: i64) {
        if self.position.is_none() && matches!(self.from, From::After(_)) {
            self.from = From::Cursor(seq);
        }
    }

    /// One's own message was acknowledged. Whether that was too late.
    pub(super) fn acknowledged(&mut self, seq: i64) -> bool {
        self.acked.insert(seq);
        self.missing.remove(&seq).is_some()
    }

    /// An entry came.
    pub(super) fn arrived(
        &mut self,
        (seq, step): (i64, Step),
        place: Place,
        ground: Ground<'_>,
        work: &mut u64,
    ) -> Judged {
        let again = self.in_run.contains(seq) || seq <= self.floor;
        let late = self.position.is_some_and(|position| seq <= position);
        let new = !self.ever.contains(seq);
        if !again && !late {
            self.pass_over((seq, step), place, ground, work);
            self.position = Some(seq);
        }
        self.missing.remove(&seq);
        self.in_run.insert(seq);
        self.ever.insert(seq);
        match (again, late) {
            (true, _) => Judged::Again,
            (_, true) => Judged::Late,
            _ => Judged::InOrder { new },
        }
    }

    /// A replay has come up to `seq`, entry or not.
    pub(super) fn caught_up(&mut self, seq: i64, place: Place, ground: Ground<'_>, work: &mut u64) {
        if self.position.is_none_or(|position| position < seq) {
            self.pass_over((seq + 1, Step::Replayed), place, ground, work);
            self.position = Some(seq);
        }
    }

    /// Notes what was owed before `seq` and has not come.
    fn pass_over(
        &mut self,
        (seq, step): (i64, Step),
        place: Place,
        ground: Ground<'_>,
        work: &mut u64,
    ) {
        // What ends a replay need not be an entry of this user's.
        let inside = ground.windows.of(seq).or(ground.windows.of(seq - 1));
        let Some((joined, _)) = inside else { return };
        let Some(start) = self.start(ground.log) else {
            return;
        };
        // The rest of an earlier membership is not owed, see `leaves_behind`.
        for missing in start.max(joined) + 1..seq {
            *work += 1;
            if self.owes(missing, step, joined, ground) {
                self.missing.insert(missing, place);
            }
        }
    }

    /// After which entry everything is owed in this run.
    fn start(&self, log: &Log<'_>) -> Option<i64> {
        self.position.or(match self.from {
            From::Cursor(cursor) => Some(cursor),
            From::Joining => Some(0),
            From::After(moment) => log.first_after(moment).map(|first| first - 1),
        })
    }

    fn owes(&self, seq: i64, step: Step, joined: i64, ground: Ground<'_>) -> bool {
        let Some(stored) = ground.log.get(seq) else {
            return false;
        };
        if self.ever.contains(seq) || self.acked.contains(seq) {
            return false;
        }
        match (stored.kind, stored.of) {
            (EntryKind::Text | EntryKind::System, _) => true,
            (EntryKind::Change, Some(target)) => {
                step == Step::Live && ground.windows.shows(target.0, joined)
            }
            // An entry of a kind that nobody knows has a place and nothing to tell.
            (EntryKind::Change, None) => false,
        }
    }

    /// How many entries of an earlier membership never came before the arrival of `seq` in a later
    /// one. The store has forgotten that membership, and with it what was still to be told, so that
    /// they are not owed; that they did not come is worth knowing all the same.
    pub(super) fn leaves_behind(&self, seq: i64, ground: Ground<'_>, work: &mut u64) -> u64 {
        let had = self.position.or(match self.from {
            From::Cursor(cursor) => Some(cursor),
            From::Joining | From::After(_) => None,
        });
        let left = had.and_then(|position| Some((position, ground.windows.of(position)?)));
        let Some((position, (joined, to))) = left.filter(|(_, (_, to))| *to < seq) else {
            return 0;
        };
        let mut count = 0;
        for missing in position + 1..=to.min(ground.log.head()) {
            *work += 1;
            count += u64::from(self.owes(missing, Step::Replayed, joined, ground));
        }
        count
    }

    /// The device was connected to the end: what was owed up to the end and has not come.
    pub(super) fn end(&mut self, step: Step, place: Place, ground: Ground<'_>, work: &mut u64) {
        let Some((joined, left)) = ground.windows.last() else {
            return;
        };
        let Some(start) = self.start(ground.log) else {
            return;
        };
        // Of a membership that has ended one is told only if one knew of it.
        let knew = self.position.is_some() || matches!(self.from, From::Cursor(_));
        if left != i64::MAX && !(knew && start > joined) {
            return;
        }
        for missing in start.max(joined) + 1..=left.min(ground.log.head()) {
            *work += 1;
            if self.owes(missing, step, joined, ground) {
                self.missing.insert(missing, place);
            }
        }
    }

    /// What was passed over and never came.
    pub(super) fn lost(&self) -> impl Iterator<Item = (i64, Place)> {
        self.missing.iter().map(|(seq, place)| (*seq, *place))
    }
}
