//! Receipts: marks only grow, and nobody has what was not there.

use std::collections::HashMap;

use rookery_protocol::{ConversationId, UserId};

use super::found::{About, Found, Kind};
use super::logs::Logs;
use crate::event::View;
use crate::history::Place;
use crate::state::FinalState;

/// A mark: whose, where, and whether it is of reading.
type Mark = (ConversationId, UserId, bool);

/// The highest marks that anybody was told of.
#[derive(Debug, Default)]
pub(super) struct Marks {
    highest: HashMap<Mark, (i64, Place)>,
}

/// The marks that one device was told of.
#[derive(Debug, Default)]
pub(super) struct MarksSeen {
    highest: HashMap<Mark, i64>,
}

impl Marks {
    pub(super) fn see(&mut self, place: Place, mark: Mark, seq: i64) {
        let highest = self.highest.entry(mark).or_insert((seq, place));
        if highest.0 < seq {
            *highest = (seq, place);
        }
    }

    /// What was told must have been stored.
    pub(super) fn compare(&self, state: &FinalState, found: &mut Found) {
        for member in &state.memberships {
            for (read, stored) in [(false, member.delivered.0), (true, member.read.0)] {
                let mark = (member.conversation, member.user, read);
                let Some(&(seq, place)) = self.highest.get(&mark) else {
                    continue;
                };
                if seq > stored {
                    let about = About::entry(member.conversation, seq);
                    found.say(Kind::Receipts, Some(place), about, || {
                        format!(
                            "{} was told to have {} up to {seq}, the store says {stored}",
                            member.user,
                            verb(read)
                        )
                    });
                }
            }
        }
    }
}

impl MarksSeen {
    /// Over the wire receipts may overtake each other (clients keep the highest); the client
    /// library hands out only what says more than before.
    pub(super) fn see(
        &mut self,
        view: View,
        (place, mark, seq): (Place, Mark, i64),
        (logs, slack): (&Logs<'_>, i64),
        found: &mut Found,
    ) {
        let (conversation, user, read) = mark;
        let about = About::entry(conversation, seq);
        let log = logs.log(conversation);
        if seq > log.head() {
            found.say(Kind::Receipts, Some(place), about, || {
                let end = log.head();
                format!(
                    "{user} has {} up to {seq}, the log ends at {end}",
                    verb(read)
                )
            });
        } else if log.is_after(seq, place.at.saturating_add(slack)) {
            found.say(Kind::Receipts, Some(place), about, || {
                format!(
                    "{user} has {} up to {seq}, which was sent later",
                    verb(read)
                )
            });
        }
        let before = self.highest.entry(mark).or_insert(seq);
        if seq < *before && view == View::Client {
            let before = *before;
            found.say(Kind::Receipts, Some(place), about, || {
                format!("{user} has {} up to {seq}, and had {before}", verb(read))
            });
        }
        *before = seq.max(*before);
    }
}

const fn verb(read: bool) -> &'static str {
    if read { "read" } else { "got" }
}
