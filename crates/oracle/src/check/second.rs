//! The second reading: every device, held to what the first one and the store say.

use std::collections::HashMap;

use rookery_protocol::{ConversationId, MessageId, UserId};

use super::Options;
use super::device::Device;
use super::fates::Fates;
use super::found::{About, Found, Kind};
use super::logs::Logs;
use super::marks::Marks;
use super::order::Ground;
use super::people::People;
use super::windows::Memberships;
use crate::event::{Event, Fingerprint, Line, PROCESS};
use crate::history::Place;
use crate::report::Counts;
use crate::state::{EntryKind, FinalState, Stored};

/// What all devices are held to, and what is found.
pub(super) struct World<'a> {
    pub(super) state: &'a FinalState,
    pub(super) options: &'a Options,
    pub(super) logs: &'a Logs<'a>,
    pub(super) memberships: &'a Memberships,
    pub(super) fates: &'a Fates,
    pub(super) people: &'a People,
    pub(super) marks: Marks,
    pub(super) found: Found,
    pub(super) counts: Counts,
    /// Between ack and arrival, in milliseconds.
    pub(super) lags: Vec<u32>,
    pub(super) slowest: Option<(u32, Place, MessageId)>,
    /// Entries looked at: what shows that the check is linear.
    pub(super) work: u64,
}

impl<'a> World<'a> {
    pub(super) fn ground(&self, conversation: ConversationId, user: UserId) -> Ground<'a> {
        Ground {
            log: self.logs.log(conversation),
            windows: self.memberships.windows(conversation, user),
        }
    }

    pub(super) fn epoch(&self) -> Option<&'a str> {
        self.state.epoch.as_deref()
    }

    pub(super) fn slack(&self) -> i64 {
        self.options.clock_slack_ms
    }

    /// A text that is stored although no recorded device sent it.
    pub(super) fn nobody_sent(&mut self, stored: &Stored, place: Option<Place>) {
        let expected = stored.kind == EntryKind::Text && self.options.all_sends_recorded;
        if expected && self.fates.get(stored.message_id).is_none() {
            let (conversation, seq) = (stored.conversation, stored.seq.0);
            let about = About::entry(conversation, seq).with(stored.message_id);
            self.found.say(Kind::Phantom, place, about, || {
                format!("nobody sent {} at {seq}", stored.message_id)
            });
        }
    }

    /// Whether a device may ever have been shown this content of a stored message.
    pub(super) fn may_show(&self, stored: &Stored, content: Fingerprint) -> bool {
        if content == stored.content {
            return true;
        }
        if !stored.changed {
            return false;
        }
        let place = (stored.conversation, stored.seq.0);
        match self.fates.get(stored.message_id) {
            Some(fate) if fate.content == content => true,
            _ if self.fates.edited_to(place, content) == Some(true) => true,
            Some(_) => !self.options.all_sends_recorded,
            None => true,
        }
    }

    /// A message came to a device for the first time, on a connection that was ready at `ready`.
    pub(super) fn arrived_after(&mut self, place: Place, message: MessageId, ready: i64) {
        let Some((_, acked)) = self.fates.get(message).and_then(|fate| fate.acked) else {
            return;
        };
        let lag = place.at.saturating_sub(acked.at.max(ready)).max(0);
        let lag = u32::try_from(lag).unwrap_or(u32::MAX);
        self.lags.push(lag);
        if self.slowest.is_none_or(|(slowest, ..)| slowest < lag) {
            self.slowest = Some((lag, place, message));
        }
    }
}

/// Reads one history.
pub(super) struct SecondReading<'w, 'a> {
    world: &'w mut World<'a>,
    devices: HashMap<u32, Device>,
}

impl<'w, 'a> SecondReading<'w, 'a> {
    pub(super) fn new(world: &'w mut World<'a>) -> Self {
        Self {
            world,
            devices: HashMap::new(),
        }
    }

    pub(super) fn see(&mut self, place: Place, line: &Line) {
        if line.device == PROCESS {
            return;
        }
        if let Event::Device { name, user, view } = &line.event {
            let device = Device::new(name, *user, *view);
            self.devices.insert(line.device, device);
        } else if let Some(device) = self.devices.get_mut(&line.device) {
            device.see(self.world, place, &line.event);
        }
    }

    pub(super) fn finish(self) {
        for device in self.devices.into_values() {
            device.finish(self.world);
        }
    }
}
