//! Holds histories to the final state, in time linear in the number of events.
//!
//! The first reading (`fates`) learns what became of every send. The second one (`second`) follows
//! each device through its own history (`device`), conversation by conversation (`order`), against the
//! stored logs (`logs`) and the memberships (`windows`). Then the store is held to the acks (`store`).
//! If anything is wrong, a third reading collects the surroundings (`around`).
//!
//! # What a device is owed
//!
//! An entry is owed to a device if it lies in its user's membership, after the start of the present
//! run of arrivals (cursors where they were given, else the first arrival, or the first entry that
//! was sent after `ready`: what was committed before it is not owed), and before something that
//! arrived on the same run, or before the log's end where the device was connected to the end.
//! An ack stands for the arrival of one's own message. `reset` forgives what it skips. Replays show
//! messages as they are now and fold changes into them; a change that came live is owed like a message.
//!
//! # What cannot be concluded
//!
//! Never reported, but counted as unjudged: the rest of an earlier membership after the last arrival
//! in it, since the store forgets it with the re-joining (a membership that began and ended while the
//! device was away owes it nothing); what arrived from before a re-joining, if the notices of the
//! log were not given; sends of devices whose history is cut short; presence that changed shortly
//! before the end, or of users whose choice is not known. Never reported and not counted: whatever
//! happened under another epoch; the first content of a message that was edited by devices that
//! were not recorded; a refusal after several attempts, of which an earlier one may have been stored.

mod around;
mod device;
mod fates;
mod found;
mod logs;
mod marks;
mod order;
mod people;
mod runs;
mod second;
mod store;
mod windows;

pub use found::Kind;

use self::fates::{Fates, FirstReading};
use self::found::{Found, Offence};
use self::logs::Logs;
use self::marks::Marks;
use self::people::People;
use self::second::{SecondReading, World};
use self::windows::Memberships;
use crate::history::{Ending, History, HistoryError, Place};
use crate::report::{Counts, Finding, Lag, Report, Slowest};
use crate::state::FinalState;

/// What is known of a run besides its histories.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything that was sent was recorded: a stored text that nobody sent is a phantom.
    pub all_sends_recorded: bool,
    /// How far the clocks of the recording processes may be apart.
    pub clock_slack_ms: i64,
    /// How long before the end presence must have come to rest to be judged: a node's silent death
    /// shows within 20 s.
    pub presence_bound_ms: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            all_sends_recorded: false,
            clock_slack_ms: 100,
            presence_bound_ms: 25_000,
        }
    }
}

/// Checks what devices recorded against what the store holds in the end.
///
/// # Errors
/// A history cannot be read.
pub fn check(
    histories: &[History],
    state: &FinalState,
    options: &Options,
) -> Result<Report, HistoryError> {
    let mut fates = Fates::default();
    let mut people = People::of(state);
    let mut found = Found::default();
    let mut counts = Counts::default();
    let epoch = state.epoch.as_deref();
    for (number, history) in histories.iter().enumerate() {
        let mut reading =
            FirstReading::new(&mut fates, &mut people, &mut found, &mut counts, epoch);
        let ending = history.each(number, |place, line| reading.see(place, line))?;
        reading.finish();
        counts.torn += u64::from(ending == Ending::Torn);
    }
    let mut logs = Logs::of(state);
    logs.time(&fates);
    let memberships = Memberships::of(state);
    let mut world = World {
        state,
        options,
        logs: &logs,
        memberships: &memberships,
        fates: &fates,
        people: &people,
        marks: Marks::default(),
        found,
        counts,
        lags: Vec::new(),
        slowest: None,
        work: 0,
    };
    for (number, history) in histories.iter().enumerate() {
        let mut reading = SecondReading::new(&mut world);
        history.each(number, |place, line| reading.see(place, line))?;
        reading.finish();
    }
    store::check(&mut world);
    report(histories, world)
}

fn report(histories: &[History], world: World<'_>) -> Result<Report, HistoryError> {
    let at = |place: Place| format!("{}:{}", histories[place.history].name(), place.line);
    let slowest = world.slowest.map(|(_, place, message_id)| Slowest {
        place: at(place),
        message_id,
    });
    let kinds = world.found.kinds;
    let surroundings = if kinds.is_empty() {
        Vec::new()
    } else {
        around::of(histories, kinds.values().map(|(_, first)| first))?
    };
    let findings = kinds.into_iter().zip(surroundings);
    let findings = findings.map(|((kind, (count, first)), surroundings)| {
        let Offence { place, text, .. } = first;
        Finding {
            kind,
            count,
            first: text,
            place: place.map(at),
            at_ms: place.map(|place| place.at),
            around: surroundings.around,
            story: surroundings.story,
            faults: surroundings.faults,
        }
    });
    let unjudged = world.found.unjudged.into_iter();
    Ok(Report {
        findings: findings.collect(),
        unjudged: unjudged
            .map(|(why, count)| (why.to_owned(), count))
            .collect(),
        counts: world.counts,
        lag: Lag::of(world.lags, slowest),
        work: world.work,
    })
}
