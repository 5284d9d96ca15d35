//! Watched users with how they appear and who watches them. Sends under the lock of its owner, so
//! that what a socket is shown comes in one order.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::event::{Presence, ServerEvent};
use rookery_protocol::{Timestamp, UserId};

use crate::bus::BusPresence;
use crate::gateway::{Lane, Push, Session, SharedFrame};
use crate::metrics;
use crate::presence::shown;

/// Changes of one user within this time become one.
const TICK: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    users: HashMap<UserId, Watched>,
    /// When users are to be told of again.
    due: BinaryHeap<Reverse<(Instant, UserId)>>,
}

#[derive(Default)]
struct Watched {
    /// As known; none before the first look.
    now: Option<BusPresence>,
    changed_at: Option<Instant>,
    /// As told last.
    told: Option<BusPresence>,
    told_at: Option<Instant>,
    is_due: bool,
    /// Found to be listed nowhere by a look, while nobody has noted yet when they were seen last.
    is_missing: bool,
    watchers: Vec<Watcher>,
}

struct Watcher {
    session: Arc<Session>,
    /// Waits for the answer to its `presence.subscribe`.
    is_waiting: bool,
    /// To whom the user looks offline.
    is_hidden: bool,
    /// When that was found out.
    judged_at: Instant,
    /// Its outbox had no room for the last change; or it was shown one of which the others are told
    /// only later, and which may be taken back before.
    is_owed: bool,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    pub(super) fn users(&self) -> Vec<UserId> {
        self.users.keys().copied().collect()
    }

    /// Whoever watches some of these users.
    pub(super) fn viewers(&self, users: &[UserId]) -> Vec<UserId> {
        let watched = users.iter().filter_map(|user| self.users.get(user));
        let watchers = watched.flat_map(|watched| &watched.watchers);
        let viewers: HashSet<UserId> = watchers.map(|watcher| watcher.session.user_id).collect();
        viewers.into_iter().collect()
    }

    pub(super) fn is_watched(&self, user: UserId) -> bool {
        self.users.contains_key(&user)
    }

    pub(super) fn is_shown_online(&self, user: UserId) -> bool {
        let now = self.users.get(&user).and_then(|watched| watched.now);
        now.is_some_and(|now| !now.is_offline())
    }

    pub(super) fn is_known(&self, user: UserId) -> bool {
        let watched = self.users.get(&user);
        watched.is_some_and(|watched| watched.now.is_some())
    }

    /// Whether to tell now that a user, shown as online, is listed nowhere. Whoever saw them leave
    /// is about to tell it, with the time; only if that is lost they are gone without one.
    pub(super) fn is_gone(&mut self, user: UserId, last_seen_at: Option<Timestamp>) -> bool {
        let Some(watched) = self.users.get_mut(&user) else {
            return false;
        };
        let since = watched.now.and_then(|now| now.online_since);
        last_seen_at >= since || std::mem::replace(&mut watched.is_missing, true)
    }

    pub(super) fn changed_since(&self, user: UserId, since: Instant) -> bool {
        let at = self.users.get(&user).and_then(|watched| watched.changed_at);
        at.is_some_and(|at| at >= since)
    }

    pub(super) fn begin(&mut self, session: &Arc<Session>, user: UserId, is_hidden: bool) {
        let watchers = &mut self.users.entry(user).or_default().watchers;
        let judged_at = Instant::now();
        match watchers.iter_mut().find(|w| w.session.id == session.id) {
            // Goes on hearing of changes, whatever becomes of this request.
            Some(watcher) => (watcher.is_hidden, watcher.judged_at) = (is_hidden, judged_at),
            None => watchers.push(Watcher {
                session: Arc::clone(session),
                is_waiting: true,
                is_hidden,
                judged_at,
                is_owed: false,
            }),
        }
    }

    /// How a user appears to a socket, which is told of changes from now on.
    pub(super) fn show(&mut self, session_id: u64, user: UserId) -> Option<Presence> {
        let watched = self.users.get_mut(&user)?;
        let mut watchers = watched.watchers.iter_mut();
        let watcher = watchers.find(|watcher| watcher.session.id == session_id)?;
        watcher.is_waiting = false;
        watcher.is_owed = !watcher.is_hidden && watched.told != watched.now;
        let now = watched.now.unwrap_or(BusPresence::offline(user, None));
        Some(shown(&now, watcher.is_hidden))
    }

    pub(super) fn end(&mut self, session_id: u64, user: UserId) {
        if let Entry::Occupied(mut watched) = self.users.entry(user) {
            let watchers = &mut watched.get_mut().watchers;
            watchers.retain(|watcher| watcher.session.id != session_id);
            if watchers.is_empty() {
                watched.remove();
            }
        }
    }

    /// Shows a user as offline to the sockets of `viewer`, or as everybody sees them again.
    pub(super) fn hide(&mut self, user: UserId, viewer: UserId, is_hidden: bool) {
        self.judge(user, Instant::now(), |watcher| {
            (watcher.session.user_id == viewer).then_some(is_hidden)
        });
    }

    /// Takes in who of these users blocks whom, each with the one who is blocked. What a watcher was
    /// told of since it was read is newer.
    pub(super) fn hide_by(
        &mut self,
        users: &[UserId],
        blocks: &HashSet<(UserId, UserId)>,
        read_at: Instant,
    ) {
        for user in users {
            self.judge(*user, read_at, |watcher| {
                let is_hidden = blocks.contains(&(*user, watcher.session.user_id));
                (watcher.judged_at < read_at).then_some(is_hidden)
            });
        }
    }

    /// Shows a user, or hides them, as `verdict` has it for each who watches; those it has nothing
    /// for stay as they are.
    fn judge(&mut self, user: UserId, at: Instant, verdict: impl Fn(&Watcher) -> Option<bool>) {
        let Some(watched) = self.users.get_mut(&user) else {
            return;
        };
        let now = watched.now.unwrap_or(BusPresence::offline(user, None));
        let is_early = watched.told != watched.now;
        let mut is_owed = false;
        for watcher in &mut watched.watchers {
            let Some(is_hidden) = verdict(watcher) else {
                continue;
            };
            watcher.judged_at = at;
            if watcher.is_hidden != is_hidden {
                watcher.is_hidden = is_hidden;
                let event = ServerEvent::Presence(shown(&now, is_hidden));
                let mut frame = SharedFrame::new(user, |_| event.clone());
                watcher.tell(&mut frame);
                watcher.is_owed |= !is_hidden && is_early;
                is_owed |= watcher.is_owed;
            }
        }
        if is_owed {
            self.put_off(user, Instant::now());
        }
    }

    /// Takes in how a user appears: told at once, or within a second of the last time.
    pub(super) fn learn(&mut self, news: BusPresence, now: Instant) {
        let Some(watched) = self.users.get_mut(&news.user_id) else {
            return;
        };
        if let Some(known) = watched.now {
            let is_older = !news.is_offline() && news.chosen_at < known.chosen_at;
            if known == news || is_older {
                return;
            }
        }
        let is_first = watched.now.is_none();
        watched.now = Some(news);
        watched.changed_at = Some(now);
        watched.is_missing = false;
        if is_first && watched.watchers.iter().all(|watcher| watcher.is_waiting) {
            // Nobody was shown anything yet: their answers are still to come.
            watched.told = Some(news);
            return;
        }
        if watched.is_due {
            metrics::presence_merged_total().increment(1);
            return;
        }
        match watched.told_at.map(|at| at + TICK).filter(|due| *due > now) {
            Some(due) => {
                watched.is_due = true;
                self.due.push(Reverse((due, news.user_id)));
            }
            None => self.tell(news.user_id, now),
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Tells of those whose second is over.
    pub(super) fn tell_due(&mut self, now: Instant) {
        while let Some(Reverse((due, user))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            self.tell(user, now);
        }
    }

    /// Tells all who watch a user, if they know otherwise, and those who are owed.
    fn tell(&mut self, user: UserId, now: Instant) {
        let Some(watched) = self.users.get_mut(&user) else {
            return;
        };
        watched.is_due = false;
        let Some(news) = watched.now else {
            return;
        };
        let is_new = watched.told != Some(news);
        if is_new {
            watched.told = Some(news);
            watched.told_at = Some(now);
        }
        let event = |is_hidden| ServerEvent::Presence(shown(&news, is_hidden));
        let mut frame = SharedFrame::new(user, |_| event(false));
        let mut is_owed = false;
        for watcher in &mut watched.watchers {
            if watcher.is_waiting {
                continue;
            }
            if watcher.is_hidden {
                // Knows nothing of changes, but may be owed the hiding itself.
                if watcher.is_owed {
                    watcher.tell(&mut SharedFrame::new(user, |_| event(true)));
                }
            } else if is_new || watcher.is_owed {
                watcher.tell(&mut frame);
            }
            is_owed |= watcher.is_owed;
        }
        if is_owed {
            self.put_off(user, now);
        }
    }

    fn put_off(&mut self, user: UserId, now: Instant) {
        if let Some(watched) = self.users.get_mut(&user)
            && !watched.is_due
        {
            watched.is_due = true;
            self.due.push(Reverse((now + TICK, user)));
        }
    }
}

impl Watcher {
    fn tell<F: Fn(bool) -> ServerEvent>(&mut self, frame: &mut SharedFrame<F>) {
        let session = &self.session;
        if let Some(frame) = frame.for_viewer(session.user_id, session.format) {
            self.is_owed = session.outbox.offer(Lane::Latest, frame) == Push::Shed;
        }
    }
}

#[cfg(test)]
mod tests;
