//! A history made by hand: one process, one room, a few devices.

use std::collections::HashMap;

use rookery_oracle::{
    EntryKind, Event, FinalState, Fingerprint, History, Kind, Line, Member, Options, Report,
    Resume, Stored, View, Way, check,
};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use uuid::Uuid;

pub(crate) const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(100));
/// The recorded people; their devices have the same numbers.
pub(crate) const ANN: u32 = 1;
pub(crate) const BOB: u32 = 2;
/// What both begin with.
const OPENING: usize = 5;

/// Lines of a story and the store behind it. Message number `n` has the content `text n`.
pub(crate) struct Story {
    pub(crate) lines: Vec<Line>,
    pub(crate) state: FinalState,
    pub(crate) options: Options,
    pub(crate) now: u64,
}

pub(crate) fn user(number: u32) -> UserId {
    UserId::from_uuid(Uuid::from_u128(u128::from(number)))
}

pub(crate) fn id(number: u32) -> MessageId {
    MessageId::from_uuid(Uuid::from_u128(1_000 + u128::from(number)))
}

pub(crate) fn text(number: u32) -> Fingerprint {
    Fingerprint::of(&format!("text {number}"))
}

pub(crate) fn member(number: u32, joined: i64, left: Option<i64>) -> Member {
    Member {
        conversation: ROOM,
        user: user(number),
        joined: Seq(joined),
        left: left.map(Seq),
        history_visible: false,
        delivered: Seq(joined),
        read: Seq(joined),
    }
}

pub(crate) fn ready(resume: Resume) -> Event {
    Event::Ready {
        node: "a".to_owned(),
        epoch: "first".to_owned(),
        resume,
    }
}

pub(crate) fn cursor(seq: i64) -> Resume {
    Resume::Cursors(HashMap::from([(ROOM, Seq(seq))]))
}

pub(crate) fn send(number: u32) -> Event {
    Event::Send {
        message_id: id(number),
        conversation: ROOM,
        content: text(number),
    }
}

pub(crate) fn ack(number: u32, seq: i64) -> Event {
    Event::Ack {
        message_id: id(number),
        conversation: ROOM,
        seq: Seq(seq),
        duplicate: false,
    }
}

pub(crate) fn arrived(number: u32, seq: i64) -> Event {
    came(number, seq, Way::Live)
}

pub(crate) fn replayed(number: u32, seq: i64) -> Event {
    came(number, seq, Way::Batch)
}

fn came(number: u32, seq: i64, way: Way) -> Event {
    Event::Arrived {
        conversation: ROOM,
        seq: Seq(seq),
        message_id: id(number),
        content: text(number),
        way,
    }
}

pub(crate) fn refused(number: u32, code: &str, retryable: bool) -> Event {
    Event::Refused {
        message_id: id(number),
        code: code.to_owned(),
        retryable,
    }
}

pub(crate) fn end(connected: bool) -> Event {
    Event::End {
        connected,
        outbox: Vec::new(),
    }
}

impl Story {
    /// Nobody yet.
    pub(crate) fn empty() -> Self {
        let mut story = Self {
            lines: Vec::new(),
            state: FinalState::default(),
            options: Options {
                all_sends_recorded: true,
                ..Options::default()
            },
            now: 0,
        };
        let process = Event::Process {
            format: 1,
            name: "one".to_owned(),
            wall_ms: 1_000_000,
        };
        story.note(0, process);
        story
    }

    /// Ann and Bob, members of the room from its beginning, connected, each with everything since
    /// then owed.
    pub(crate) fn of_two() -> Self {
        let mut story = Self::empty();
        for (number, name) in [(ANN, "ann"), (BOB, "bob")] {
            story.device(number, name, View::Wire);
            story.note(number, ready(Resume::Cursors(HashMap::new())));
            story.state.memberships.push(member(number, 0, None));
        }
        assert_eq!(story.lines.len(), OPENING);
        story
    }

    pub(crate) fn device(&mut self, number: u32, name: &str, view: View) {
        let name = name.to_owned();
        let user = user(number);
        self.note(number, Event::Device { name, user, view });
    }

    /// One second later; returns the line's number.
    pub(crate) fn note(&mut self, device: u32, event: Event) -> usize {
        self.now += 1_000;
        self.lines.push(Line {
            t: self.now,
            device,
            event,
        });
        self.lines.len()
    }

    pub(crate) fn stored(&mut self, number: u32, seq: i64) -> &mut Stored {
        self.entry(number, seq, EntryKind::Text)
    }

    pub(crate) fn entry(&mut self, number: u32, seq: i64, kind: EntryKind) -> &mut Stored {
        self.state.messages.push(Stored {
            conversation: ROOM,
            seq: Seq(seq),
            message_id: id(number),
            sender: user(ANN),
            kind,
            of: None,
            content: text(number),
            changed: false,
            notice: None,
        });
        self.state.messages.last_mut().expect("one was pushed")
    }

    /// Ann sends messages that get the places of their numbers.
    pub(crate) fn ann_sends(&mut self, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            self.note(ANN, send(number));
            self.note(ANN, ack(number, i64::from(number)));
            self.stored(number, i64::from(number));
        }
    }

    /// Both are connected to the end.
    pub(crate) fn ends(&mut self) {
        self.note(ANN, end(true));
        self.note(BOB, end(true));
    }

    pub(crate) fn check(&self) -> Report {
        let history = History::of_lines("one", self.lines.clone());
        check(&[history], &self.state, &self.options).expect("histories in memory can be read")
    }

    pub(crate) fn is_clean(&self) {
        let report = self.check();
        assert!(report.is_clean(), "{}", report.to_markdown("not clean"));
    }

    /// Nothing but this is found, first at this line; 0 stands for the store.
    pub(crate) fn shows(&self, kind: Kind, line: usize) {
        let report = self.check();
        let kinds: Vec<Kind> = report.findings.iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [kind], "{}", report.to_markdown("another one"));
        let place = (line > 0).then(|| format!("one:{line}"));
        assert_eq!(report.findings[0].place, place, "{:?}", report.findings[0]);
    }
}
