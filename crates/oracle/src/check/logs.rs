//! The stored logs, to be asked by place.

use std::collections::HashMap;

use rookery_protocol::{ConversationId, MessageId};

use super::fates::Fates;
use crate::state::{EntryKind, FinalState, Stored};

/// One conversation's log.
#[derive(Debug, Default)]
pub(super) struct Log<'a> {
    /// By `seq` - 1.
    entries: Vec<Option<&'a Stored>>,
    /// When the first entry was sent, as far as it was recorded, or any before it, whichever is
    /// later: by `seq` - 1. Never falls, so that it can be searched.
    sent_by: Vec<i64>,
}

impl<'a> Log<'a> {
    pub(super) fn get(&self, seq: i64) -> Option<&'a Stored> {
        let index = usize::try_from(seq).ok()?.checked_sub(1)?;
        self.entries.get(index).copied().flatten()
    }

    pub(super) fn head(&self) -> i64 {
        i64::try_from(self.entries.len()).unwrap_or(i64::MAX)
    }

    /// The first entry that was certainly committed after this moment: an entry takes its place
    /// after it was sent, and so does everything behind it.
    pub(super) fn first_after(&self, moment: i64) -> Option<i64> {
        let index = self.sent_by.partition_point(|sent| *sent <= moment);
        (index < self.sent_by.len()).then(|| index as i64 + 1)
    }

    /// Whether this entry had not been sent yet at this moment.
    pub(super) fn is_after(&self, seq: i64, moment: i64) -> bool {
        self.first_after(moment).is_some_and(|first| first <= seq)
    }

    /// Places without an entry.
    pub(super) fn holes(&self) -> impl Iterator<Item = i64> {
        let places = self.entries.iter().zip(1..);
        places.filter_map(|(entry, seq)| entry.is_none().then_some(seq))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Logs<'a> {
    logs: HashMap<ConversationId, Log<'a>>,
    places: HashMap<(ConversationId, MessageId), i64>,
    /// Second places of one message.
    pub(super) repeated: Vec<&'a Stored>,
    nothing: Log<'a>,
}

impl<'a> Logs<'a> {
    pub(super) fn of(state: &'a FinalState) -> Self {
        let mut all = Self::default();
        for stored in &state.messages {
            let Ok(place @ 1..) = usize::try_from(stored.seq.0) else {
                continue;
            };
            let log = all.logs.entry(stored.conversation).or_default();
            if log.entries.len() < place {
                log.entries.resize(place, None);
            }
            log.entries[place - 1] = Some(stored);
            let key = (stored.conversation, stored.message_id);
            if stored.kind != EntryKind::Change && all.places.insert(key, stored.seq.0).is_some() {
                all.repeated.push(stored);
            }
        }
        all
    }

    /// Notes when entries were sent.
    pub(super) fn time(&mut self, fates: &Fates) {
        for log in self.logs.values_mut() {
            let mut latest = i64::MIN;
            let sent_at = |stored: &&Stored| fates.get(stored.message_id).map(|fate| fate.sent.at);
            let times = log.entries.iter().map(|entry| {
                let sent = entry.as_ref().and_then(sent_at);
                latest = latest.max(sent.unwrap_or(i64::MIN));
                latest
            });
            log.sent_by = times.collect();
        }
    }

    pub(super) fn log(&self, conversation: ConversationId) -> &Log<'a> {
        self.logs.get(&conversation).unwrap_or(&self.nothing)
    }

    pub(super) fn place_of(&self, conversation: ConversationId, id: MessageId) -> Option<i64> {
        self.places.get(&(conversation, id)).copied()
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (ConversationId, &Log<'a>)> {
        self.logs.iter().map(|(id, log)| (*id, log))
    }
}
