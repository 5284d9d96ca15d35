//! Where a socket is in each of its conversations: the last `seq` passed on to it. This is what
//! turns a bus that loses, doubles and reorders into a stream in `seq` order without holes.
//!
//! Pure data: no I/O, no clock. `delivery` asks before it passes an entry on; `sync` moves a
//! conversation to its cursor and back to live.

use rookery_protocol::{ConversationId, Seq};

/// What to do with an entry for one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: the position has moved, pass it on.
    Pass,
    /// The socket has it.
    Old,
    /// There is a hole before it: hold it, then read what is missing.
    Ahead,
    /// A sync reads the store up to it, or the base is not known yet: only noted.
    Noted,
    /// The socket's user was not known to be a member.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    conversation_id: ConversationId,
    /// The last entry passed on.
    seq: Seq,
    /// [`LIVE`]; or the newest entry known of while a sync has the conversation; or, below `LIVE`,
    /// the same while a fill waits for room ([`waiting`]).
    target: Seq,
}

/// The target of a conversation whose entries are passed on as they come.
const LIVE: Seq = Seq(-1);

/// The form in which a position keeps the target of a fill that waits for room.
fn waiting(target: Seq) -> Seq {
    Seq(LIVE.0 - 1 - target.0)
}

impl Position {
    fn is_live(&self) -> bool {
        self.target == LIVE
    }

    /// What a fill that waits for room has to reach.
    fn waits_for(&self) -> Option<Seq> {
        (self.target < LIVE).then(|| waiting(self.target))
    }

    /// Notes an entry, of a conversation that is not live.
    fn raise(&mut self, target: Seq) {
        self.target = match self.waits_for() {
            Some(known) => waiting(known.max(target)),
            None => self.target.max(target),
        };
    }
}

/// All positions of one socket. Small: 32 bytes a conversation, sorted by id.
#[derive(Debug, Default)]
pub struct Positions {
    /// False until the base was read (or, on a resuming socket, the first sync began): until then
    /// entries are only noted as targets.
    based: bool,
    /// A look into the journal told others of something before the base was known.
    passed_over: bool,
    /// The socket is about to be closed and is passed nothing more.
    ended: bool,
    /// Somebody waits for room to go on with the fills that wait for it.
    paced: bool,
    list: Vec<Position>,
}

impl Positions {
    /// Positions before anything is known.
    #[must_use]
    pub fn pending() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn is_based(&self) -> bool {
        self.based
    }

    /// A look into the journal is about to tell what it found. A socket without a base cannot be
    /// compared with that, and the journal tells it once.
    pub fn pass_over(&mut self) {
        self.passed_over |= !self.based;
    }

    /// Whether a look found something before the base was known: the base may be older than that.
    #[must_use]
    pub fn were_passed_over(&self) -> bool {
        self.passed_over
    }

    /// The last entry passed on; `None` for a conversation that is not known.
    #[must_use]
    pub fn get(&self, id: ConversationId) -> Option<Seq> {
        if !self.based {
            return None;
        }
        self.find(id).ok().map(|at| self.list[at].seq)
    }

    /// The last entry passed on live; `None` for a conversation that is not known, or that a sync
    /// is replaying.
    #[must_use]
    pub fn live(&self, id: ConversationId) -> Option<Seq> {
        let position = &self.list[self.find(id).ok()?];
        (self.based && position.is_live()).then_some(position.seq)
    }

    /// Whether entries up to `target` have to be read for this socket, and from where on: after
    /// `Some(Some(seq))`, or all of a conversation that it does not know. A sync that is replaying
    /// the conversation reads them itself.
    pub fn lacks(&mut self, id: ConversationId, target: Seq) -> Option<Option<Seq>> {
        if !self.based || self.ended {
            return None;
        }
        let Ok(at) = self.find(id) else {
            return Some(None);
        };
        let position = &mut self.list[at];
        if !position.is_live() {
            position.raise(target);
            return None;
        }
        (position.seq < target).then_some(Some(position.seq))
    }

    /// Judges an entry and, if it is the next one, moves past it.
    pub fn advance(&mut self, id: ConversationId, seq: Seq) -> Verdict {
        if self.ended {
            return Verdict::Old;
        }
        let found = self.find(id);
        match found {
            Err(at) if !self.based => {
                let noted = Position {
                    conversation_id: id,
                    seq: Seq::ZERO,
                    target: seq,
                };
                self.list.insert(at, noted);
                Verdict::Noted
            }
            Err(_) => Verdict::Unknown,
            Ok(at) => {
                let position = &mut self.list[at];
                if !self.based || !position.is_live() {
                    position.raise(seq);
                    Verdict::Noted
                } else if seq <= position.seq {
                    Verdict::Old
                } else if seq == position.seq.next() {
                    position.seq = seq;
                    Verdict::Pass
                } else {
                    Verdict::Ahead
                }
            }
        }
    }

    /// Sets the base: everything up to these ends counts as passed on. Returns the conversations
    /// of which something newer was noted while the base was being read, with the newest entry.
    pub fn set_base(&mut self, ends: &[(ConversationId, Seq)]) -> Vec<(ConversationId, Seq)> {
        if self.based {
            return Vec::new();
        }
        let noted = self.begin_base();
        let live = |&(conversation_id, seq)| Position {
            conversation_id,
            seq,
            target: LIVE,
        };
        self.list = ends.iter().map(live).collect();
        self.list
            .sort_unstable_by_key(|position| position.conversation_id);
        self.list.dedup_by_key(|position| position.conversation_id);
        self.lacking(&noted)
    }

    /// Makes a conversation known, live from `seq` on. Does nothing if it is known.
    pub fn learn(&mut self, id: ConversationId, seq: Seq) -> bool {
        match self.find(id) {
            Err(at) if self.based && !self.ended => {
                let position = Position {
                    conversation_id: id,
                    seq,
                    target: LIVE,
                };
                self.list.insert(at, position);
                true
            }
            _ => false,
        }
    }

    /// Forgets a conversation that the user has left.
    pub fn forget(&mut self, id: ConversationId) {
        if self.based
            && let Ok(at) = self.find(id)
        {
            self.list.remove(at);
        }
    }

    /// Hands a conversation to a sync: from now on live entries only raise the target, which is at
    /// least `to`. The position becomes `cursor`. Returns the target.
    pub fn begin_sync(&mut self, id: ConversationId, cursor: Seq, to: Seq) -> Seq {
        match self.find(id) {
            Ok(at) => {
                let position = &mut self.list[at];
                // A live position is as far as the socket was told of the log.
                let known = position.waits_for().unwrap_or(position.target);
                position.target = known.max(position.seq).max(to);
                position.seq = cursor;
                position.target
            }
            Err(at) => {
                let position = Position {
                    conversation_id: id,
                    seq: cursor,
                    target: to,
                };
                self.list.insert(at, position);
                to
            }
        }
    }

    /// A sync has passed on everything up to `seq`. Returns the target it still has to reach, or
    /// `None` when it is reached and the conversation is live again.
    pub fn synced_to(&mut self, id: ConversationId, seq: Seq) -> Option<Seq> {
        let at = self.find(id).ok()?;
        let position = &mut self.list[at];
        position.seq = position.seq.max(seq);
        if position.seq < position.target {
            return Some(position.target);
        }
        position.target = LIVE;
        None
    }

    /// Keeps a conversation from going on until [`Self::release`]: what comes meanwhile is only
    /// noted. It counts as passed on up to `seq`, which is what the device is about to be told.
    pub fn hold(&mut self, id: ConversationId, seq: Seq) {
        let end = self.find(id).map_or(seq, |at| self.list[at].seq.max(seq));
        self.begin_sync(id, end, end);
    }

    /// Makes held conversations live. Returns those of which something was noted meanwhile, with
    /// the newest entry.
    pub fn release(
        &mut self,
        held: impl Iterator<Item = ConversationId>,
    ) -> Vec<(ConversationId, Seq)> {
        let mut lacking = Vec::new();
        for id in held {
            if let Ok(at) = self.find(id) {
                let position = &mut self.list[at];
                let noted = std::mem::replace(&mut position.target, LIVE);
                if noted > position.seq {
                    lacking.push((id, noted));
                }
            }
        }
        lacking
    }

    /// Passes nothing on any more: the socket is to be closed and what it was told is not to be
    /// continued.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Begins a resuming socket's life: takes what was noted so far, with its targets. Empty on a
    /// socket that is based already. Call [`Self::begin_sync`] and [`Self::set_live`] for all
    /// conversations next, then [`Self::lacking`].
    pub fn begin_base(&mut self) -> Vec<(ConversationId, Seq)> {
        if self.based {
            return Vec::new();
        }
        self.based = true;
        let noted = std::mem::take(&mut self.list);
        noted
            .iter()
            .map(|noted| (noted.conversation_id, noted.target))
            .collect()
    }

    /// Makes conversations that a sync does not replay live, from these ends on. Those that are
    /// live already stay where they are.
    pub fn set_live(&mut self, ends: &[(ConversationId, Seq)]) {
        for &(id, seq) in ends {
            self.learn(id, seq);
        }
    }

    /// Which of the noted targets nobody will reach: the conversation is not known, or live and
    /// behind. A sync that is under way takes the others on.
    pub fn lacking(&mut self, noted: &[(ConversationId, Seq)]) -> Vec<(ConversationId, Seq)> {
        let mut lacking = Vec::new();
        for &(id, target) in noted {
            match self.find(id) {
                Ok(at) if !self.list[at].is_live() => self.list[at].raise(target),
                Ok(at) if self.list[at].seq >= target => {}
                _ => lacking.push((id, target)),
            }
        }
        lacking
    }

    /// Live conversations whose log has grown past the position; `ends` tells the logs' ends. Of
    /// others the end is noted: whoever has them goes on to it.
    pub fn behind<'a>(
        &'a mut self,
        ends: &'a std::collections::HashMap<ConversationId, Seq>,
    ) -> impl Iterator<Item = (ConversationId, Seq)> + 'a {
        let asked = self.based && !self.ended;
        let known = self.list.iter_mut().filter(move |_| asked);
        known.filter_map(|position| {
            let end = *ends.get(&position.conversation_id)?;
            if !position.is_live() {
                position.raise(end);
                return None;
            }
            (position.seq < end).then_some((position.conversation_id, end))
        })
    }

    /// Has a fill of a live conversation wait for room: what comes meanwhile is only noted. It is to
    /// reach `target`, at least. True if nobody waits for the socket's room yet.
    pub fn pace(&mut self, id: ConversationId, target: Seq) -> bool {
        let Ok(at) = self.find(id) else { return false };
        let position = &mut self.list[at];
        if !position.is_live() || self.ended {
            return false;
        }
        position.target = waiting(target.max(position.seq));
        !std::mem::replace(&mut self.paced, true)
    }

    /// There is room: makes conversations of which fills waited for it live again, one at least and
    /// of others about so many entries. Returns them with what is to be read; with none, nobody waits
    /// for the room any more.
    pub fn go_on(&mut self, entries: i64) -> Vec<(ConversationId, Seq)> {
        let mut left = entries;
        let mut next = Vec::new();
        for position in &mut self.list {
            let Some(target) = position.waits_for().filter(|_| left > 0) else {
                continue;
            };
            left -= target.0 - position.seq.0;
            position.target = LIVE;
            next.push((position.conversation_id, target));
        }
        self.paced = !next.is_empty();
        next
    }

    fn find(&self, id: ConversationId) -> Result<usize, usize> {
        self.list
            .binary_search_by_key(&id, |position| position.conversation_id)
    }
}

#[cfg(test)]
mod tests;
