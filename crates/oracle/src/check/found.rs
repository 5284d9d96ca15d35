//! What was found wrong: of each kind the number and the first one.

use std::collections::BTreeMap;

use rookery_protocol::{ConversationId, MessageId};
use serde::{Deserialize, Serialize};

use crate::history::Place;

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Owed to a device and never arrived there, or acknowledged and not in the store.
    Lost,
    /// Arrived or was stored, and nobody sent it; or stored although it was refused.
    Phantom,
    /// Arrived again where nothing may come again, or has two places.
    Duplicated,
    /// Arrived after a later entry, or the log itself has a hole or an order that contradicts what
    /// its sender knew.
    Reordered,
    /// Another content or id than elsewhere at the same place.
    Disagreeing,
    /// Shown to somebody who was no member then.
    Leaked,
    /// A send that ended neither acknowledged, nor refused, nor waiting.
    Silent,
    /// A mark that went back, or beyond what there was to mark.
    Receipts,
    /// Somebody is still shown as they are not.
    Presence,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Phantom,
        Self::Duplicated,
        Self::Reordered,
        Self::Disagreeing,
        Self::Leaked,
        Self::Silent,
        Self::Receipts,
        Self::Presence,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Phantom => "phantom",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Disagreeing => "disagreeing",
            Self::Leaked => "leaked",
            Self::Silent => "unacked but silent",
            Self::Receipts => "receipts going back",
            Self::Presence => "presence not converging",
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug)]
pub(super) struct Offence {
    /// The event that shows it; none where only the store does.
    pub(super) place: Option<Place>,
    pub(super) about: About,
    pub(super) text: String,
}

/// The entry or message concerned, for its story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) entry: Option<(ConversationId, i64)>,
    pub(super) message: Option<MessageId>,
}

impl About {
    pub(super) fn entry(conversation: ConversationId, seq: i64) -> Self {
        Self {
            entry: Some((conversation, seq)),
            message: None,
        }
    }

    pub(super) fn message(message: MessageId) -> Self {
        Self {
            entry: None,
            message: Some(message),
        }
    }

    pub(super) fn with(mut self, message: MessageId) -> Self {
        self.message = Some(message);
        self
    }
}

#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) kinds: BTreeMap<Kind, (u64, Offence)>,
    /// What could not be judged, by reason.
    pub(super) unjudged: BTreeMap<&'static str, u64>,
}

impl Found {
    /// `text` is put together only for an offence that is the first of its kind so far.
    pub(super) fn say(
        &mut self,
        kind: Kind,
        place: Option<Place>,
        about: About,
        text: impl FnOnce() -> String,
    ) {
        let when = |place: Option<Place>| place.map_or(i64::MAX, |place| place.at);
        let offence = |text| Offence { place, about, text };
        match self.kinds.get_mut(&kind) {
            None => {
                self.kinds.insert(kind, (1, offence(text())));
            }
            Some((count, first)) => {
                *count += 1;
                if when(place) < when(first.place) {
                    *first = offence(text());
                }
            }
        }
    }

    pub(super) fn cannot_judge(&mut self, why: &'static str, count: u64) {
        if count > 0 {
            *self.unjudged.entry(why).or_default() += count;
        }
    }
}
