//! One device's history, held to the logs: content, order, sight.

mod judge;

use std::collections::HashMap;

use rookery_protocol::user::PresenceStatus;
use rookery_protocol::{ConversationId, MessageId, UserId};

use super::found::{About, Kind};
use super::marks::MarksSeen;
use super::order::{From, Judged, Order, Step};
use super::second::World;
use crate::event::{Event, Fingerprint, Resume, View, Way};
use crate::history::Place;

/// A device on its way through its history.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    user: UserId,
    view: View,
    orders: HashMap<ConversationId, Order>,
    run: u32,
    /// How the present run began: with cursors, or with nothing known.
    cursors: Option<HashMap<ConversationId, i64>>,
    since: i64,
    /// The line with which the present sync began.
    sync_line: usize,
    /// Announced by a `sync`, to begin when the server says so.
    coming: Option<Resume>,
    epoch: Option<String>,
    judged: bool,
    ready: Option<i64>,
    replays: u32,
    /// Where it began from nowhere or skipped something for the last time: of what it showed
    /// before, changes may have passed by.
    gap_line: usize,
    /// What it shows of messages that were changed, and since which event.
    shown: HashMap<(ConversationId, i64), (Fingerprint, Place)>,
    marks: MarksSeen,
    presence: HashMap<UserId, (PresenceStatus, Place)>,
}

/// A message as an event brings it.
#[derive(Clone, Copy)]
struct Brought {
    conversation: ConversationId,
    seq: i64,
    message: MessageId,
    content: Fingerprint,
}

impl Device {
    pub(super) fn new(name: &str, user: UserId, view: View) -> Self {
        Self {
            name: name.to_owned(),
            user,
            view,
            orders: HashMap::new(),
            run: 0,
            cursors: None,
            since: i64::MIN,
            sync_line: 0,
            gap_line: 0,
            coming: None,
            epoch: None,
            judged: true,
            ready: None,
            replays: 0,
            shown: HashMap::new(),
            marks: MarksSeen::default(),
            presence: HashMap::new(),
        }
    }

    pub(super) fn see(&mut self, world: &mut World<'_>, place: Place, event: &Event) {
        match event {
            Event::Ready { epoch, resume, .. } => self.ready(world, place, epoch, resume),
            Event::Disconnected { .. } => self.ready = None,
            _ if !self.judged => {}
            Event::Sync { resume } => self.coming = Some(resume.clone()),
            Event::SyncStarted {} => {
                self.sync_line = place.line;
                if let Some(resume) = self.coming.take() {
                    self.begin(&resume, place);
                }
            }
            Event::Synced {} => self.replays += 1,
            Event::Receipt {
                conversation,
                seq,
                user,
                read,
            } => {
                let mark = (*conversation, *user, *read);
                world.marks.see(place, mark, seq.0);
                let seen = (place, mark, seq.0);
                let logs = (world.logs, world.slack());
                self.marks.see(self.view, seen, logs, &mut world.found);
            }
            Event::Presence { user, status } => {
                self.presence.insert(*user, (*status, place));
            }
            Event::End { connected, .. } => self.end(world, place, *connected),
            event => self.of_a_log(world, place, event),
        }
    }

    fn ready(&mut self, world: &World<'_>, place: Place, epoch: &str, resume: &Resume) {
        self.presence.clear();
        self.ready = Some(place.at);
        self.sync_line = place.line;
        self.judged = world.epoch().is_none_or(|judged| judged == epoch);
        let set_back = self.epoch.as_deref().is_some_and(|known| known != epoch);
        self.epoch = Some(epoch.to_owned());
        if set_back {
            self.orders.clear();
            self.shown.clear();
            self.marks = MarksSeen::default();
        }
        match resume {
            Resume::Kept | Resume::Sync if set_back || self.run == 0 => {
                self.begin(&Resume::Fresh, place);
            }
            Resume::Kept | Resume::Sync => {}
            resume => self.begin(resume, place),
        }
    }

    fn begin(&mut self, resume: &Resume, place: Place) {
        self.run += 1;
        self.since = place.at;
        if !matches!(resume, Resume::Cursors(_)) {
            self.gap_line = place.line;
        }
        self.cursors = match resume {
            Resume::Cursors(cursors) => {
                let cursors = cursors.iter();
                Some(cursors.map(|(id, seq)| (*id, seq.0)).collect())
            }
            Resume::Fresh | Resume::Undelivered | Resume::Sync | Resume::Kept => None,
        };
    }

    /// A conversation, as it is in the present run.
    fn order(&mut self, slack: i64, conversation: ConversationId) -> &mut Order {
        let run = self.run;
        let from = || match &self.cursors {
            None => From::After(self.since.saturating_add(slack)),
            Some(cursors) => cursors
                .get(&conversation)
                .map_or(From::Joining, |cursor| From::Cursor(*cursor)),
        };
        let order = self.orders.entry(conversation);
        let order = order.or_insert_with(|| Order::new(run, from()));
        if order.run != run {
            order.begin(run, from());
        }
        order
    }

    fn of_a_log(&mut self, world: &mut World<'_>, place: Place, event: &Event) {
        match event {
            Event::Arrived {
                conversation,
                seq,
                message_id,
                content,
                way,
            } => {
                let brought = Brought {
                    conversation: *conversation,
                    seq: seq.0,
                    message: *message_id,
                    content: *content,
                };
                self.arrived(world, place, brought, *way);
            }
            Event::Changed {
                conversation,
                seq,
                of,
                message_id,
                content,
            } => {
                let brought = Brought {
                    conversation: *conversation,
                    seq: of.0,
                    message: *message_id,
                    content: *content,
                };
                self.changed(world, place, brought, seq.map(|seq| seq.0));
            }
            Event::Ack {
                message_id,
                conversation,
                seq,
                ..
            } => self.acknowledged(world, place, (*conversation, seq.0), *message_id),
            Event::CaughtUp { conversation, seq } => {
                let ground = world.ground(*conversation, self.user);
                let order = self.order(world.slack(), *conversation);
                order.caught_up(seq.0, place, ground, &mut world.work);
            }
            Event::Reset { conversation, seq } => {
                world.counts.resets += 1;
                self.gap_line = place.line;
                let since = self.sync_line;
                let order = self.order(world.slack(), *conversation);
                order.reset(seq.0, since);
            }
            Event::Joined {
                conversation,
                seq,
                user,
            } if *user == self.user => {
                self.order(world.slack(), *conversation).introduced(seq.0);
            }
            _ => {}
        }
    }

    fn arrived(&mut self, world: &mut World<'_>, place: Place, brought: Brought, way: Way) {
        let Brought {
            conversation, seq, ..
        } = brought;
        world.counts.arrivals += 1;
        self.sight(world, place, brought, seq);
        if !self.content(world, place, brought) {
            return;
        }
        let step = self.step(world.slack(), conversation, way);
        let new = self.entry(world, place, brought, (seq, step));
        if new && let Some(ready) = self.ready {
            world.arrived_after(place, brought.message, ready);
        }
    }

    fn changed(
        &mut self,
        world: &mut World<'_>,
        place: Place,
        brought: Brought,
        entry: Option<i64>,
    ) {
        world.counts.changes += 1;
        self.sight(world, place, brought, entry.unwrap_or(brought.seq));
        let is_stored = self.content(world, place, brought);
        if let Some(seq) = entry.filter(|_| is_stored) {
            let step = self.step(world.slack(), brought.conversation, Way::Live);
            self.entry(world, place, brought, (seq, step));
        }
    }

    fn acknowledged(
        &mut self,
        world: &mut World<'_>,
        place: Place,
        (conversation, seq): (ConversationId, i64),
        message: MessageId,
    ) {
        let late = self.order(world.slack(), conversation).acknowledged(seq);
        let name = &self.name;
        let about = About::entry(conversation, seq).with(message);
        if late {
            world.found.say(Kind::Reordered, Some(place), about, || {
                format!("{name} got the ack of {seq} after later entries")
            });
        }
    }

    /// What the client library hands out after a replay does not say how far the replay went.
    fn step(&mut self, slack: i64, conversation: ConversationId, way: Way) -> Step {
        let (view, replays) = (self.view, self.replays);
        let order = self.order(slack, conversation);
        if way == Way::Batch {
            return Step::Replayed;
        }
        let first = std::mem::replace(&mut order.replays, replays) != replays;
        if first && view == View::Client {
            Step::Replayed
        } else {
            Step::Live
        }
    }

    /// Judges the place of an entry among those that came before; returns whether it is new.
    fn entry(
        &mut self,
        world: &mut World<'_>,
        place: Place,
        brought: Brought,
        (seq, step): (i64, Step),
    ) -> bool {
        let conversation = brought.conversation;
        let ground = world.ground(conversation, self.user);
        let slack = world.slack();
        let order = self.order(slack, conversation);
        let unjudged = order.leaves_behind(seq, ground, &mut world.work);
        let judged = order.arrived((seq, step), place, ground, &mut world.work);
        world.found.cannot_judge(
            "entries between an earlier membership and its end",
            unjudged,
        );
        let about = About::entry(conversation, seq).with(brought.message);
        let name = &self.name;
        match judged {
            Judged::InOrder { new } => {
                world.counts.repeats += u64::from(!new);
                return new;
            }
            Judged::Again => world.found.say(Kind::Duplicated, Some(place), about, || {
                format!("{name} got {seq} again")
            }),
            Judged::Late => world.found.say(Kind::Reordered, Some(place), about, || {
                format!("{name} got {seq} after later entries")
            }),
        }
        false
    }

    /// The history ends: whatever was passed over and never came is lost.
    pub(super) fn finish(self, world: &mut World<'_>) {
        for (conversation, order) in &self.orders {
            for (seq, place) in order.lost() {
                let stored = world.logs.log(*conversation).get(seq);
                let about = stored.map_or(About::entry(*conversation, seq), |stored| {
                    About::entry(*conversation, seq).with(stored.message_id)
                });
                world.found.say(Kind::Lost, Some(place), about, || {
                    format!("{} never got {seq} of {conversation}", self.name)
                });
            }
        }
    }
}
