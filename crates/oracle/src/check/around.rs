//! The surroundings of an offence: what its device saw around it, what others saw of the same
//! message, and which faults were on. Read again from the histories, and only if there is any.

use std::collections::{BTreeMap, VecDeque};

use rookery_protocol::{ConversationId, MessageId};

use super::found::{About, Offence};
use crate::event::{Event, Line, PROCESS};
use crate::history::{History, HistoryError, Place};

/// Lines shown before an offence, and after it.
const BESIDE: usize = 10;
/// Lines shown of the message's own story.
const STORY: usize = 20;
/// A fault that ended this long before an offence is still shown.
const AFTERMATH_MS: i64 = 10_000;

/// See the module. Each line begins with its file and number.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub(super) around: Vec<String>,
    pub(super) story: Vec<String>,
    pub(super) faults: Vec<String>,
}

struct Search {
    place: Option<Place>,
    about: About,
    before: VecDeque<String>,
    after: Vec<String>,
    story: Vec<(i64, String)>,
}

/// A fault, from when to when.
struct Fault {
    began: i64,
    ended: i64,
    text: String,
}

/// Reads all histories once more.
pub(super) fn of<'o>(
    histories: &[History],
    offences: impl Iterator<Item = &'o Offence>,
) -> Result<Vec<Surroundings>, HistoryError> {
    let mut searches: Vec<Search> = offences.map(Search::new).collect();
    let mut faults = Vec::new();
    for (number, history) in histories.iter().enumerate() {
        let mut on: BTreeMap<u64, Fault> = BTreeMap::new();
        history.each(number, |place, line| {
            note_fault(&mut on, &mut faults, place, &line.event);
            for search in &mut searches {
                search.see(history.name(), place, line);
            }
        })?;
        faults.extend(on.into_values());
    }
    Ok(searches
        .into_iter()
        .map(|search| search.finish(&faults))
        .collect())
}

fn note_fault(on: &mut BTreeMap<u64, Fault>, over: &mut Vec<Fault>, place: Place, event: &Event) {
    match event {
        Event::FaultBegan { id, kind, what } => {
            let fault = Fault {
                began: place.at,
                ended: i64::MAX,
                text: format!("{kind}: {what}"),
            };
            on.insert(*id, fault);
        }
        Event::FaultEnded { id } => {
            if let Some(mut fault) = on.remove(id) {
                fault.ended = place.at;
                over.push(fault);
            }
        }
        _ => {}
    }
}

impl Search {
    fn new(offence: &Offence) -> Self {
        Self {
            place: offence.place,
            about: offence.about,
            before: VecDeque::new(),
            after: Vec::new(),
            story: Vec::new(),
        }
    }

    fn see(&mut self, history: &str, place: Place, line: &Line) {
        if let Some(offence) = self.place
            && offence.history == place.history
            && [offence.device, PROCESS].contains(&place.device)
        {
            if place.line <= offence.line {
                // One more for the offence itself.
                if self.before.len() > BESIDE {
                    self.before.pop_front();
                }
                self.before.push_back(shown(history, place, line));
            } else if self.after.len() < BESIDE {
                self.after.push(shown(history, place, line));
            }
        }
        if self.story.len() < STORY && concerns(self.about, &line.event) {
            self.story.push((place.at, shown(history, place, line)));
        }
    }

    fn finish(mut self, faults: &[Fault]) -> Surroundings {
        self.story.sort_by_key(|(at, _)| *at);
        let on = |fault: &&Fault| {
            self.place.is_some_and(|place| {
                fault.began <= place.at && place.at <= fault.ended.saturating_add(AFTERMATH_MS)
            })
        };
        Surroundings {
            around: self.before.into_iter().chain(self.after).collect(),
            story: self.story.into_iter().map(|(_, line)| line).collect(),
            faults: faults.iter().filter(on).map(|f| f.text.clone()).collect(),
        }
    }
}

fn concerns(about: About, event: &Event) -> bool {
    let names_message = |id: &MessageId| about.message == Some(*id);
    let names_entry = |conversation: &ConversationId, seq: i64| {
        about.entry == Some((*conversation, seq)) && about.message.is_none()
    };
    match event {
        Event::Send { message_id, .. }
        | Event::Refused { message_id, .. }
        | Event::GivenUp { message_id } => names_message(message_id),
        Event::Ack {
            message_id,
            conversation,
            seq,
            ..
        }
        | Event::Arrived {
            message_id,
            conversation,
            seq,
            ..
        } => names_message(message_id) || names_entry(conversation, seq.0),
        Event::Changed {
            message_id,
            conversation,
            of,
            ..
        } => names_message(message_id) || names_entry(conversation, of.0),
        _ => false,
    }
}

fn shown(history: &str, place: Place, line: &Line) -> String {
    let event = serde_json::to_string(line).unwrap_or_default();
    format!("{history}:{} {event}", place.line)
}
