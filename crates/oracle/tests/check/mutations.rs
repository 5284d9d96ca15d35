//! One promise broken in a random run that kept all of them: exactly that one is found, where it was
//! broken.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rookery_oracle::{Event, Fingerprint, Kind, Line, Way};
use rookery_protocol::{ConversationId, MessageId, Seq};
use uuid::Uuid;

use super::model::{Run, room_id};

const SEEDS: u64 = 20;
const STEPS: usize = 400;

/// An arrival in the middle of an uninterrupted row: its device got other texts of the room before
/// and after it, on the same connection.
#[derive(Clone, Copy)]
struct InRow {
    before: usize,
    at: usize,
    after: usize,
}

fn of_room(line: &Line) -> Option<(ConversationId, i64)> {
    match &line.event {
        Event::Arrived {
            conversation, seq, ..
        } => Some((*conversation, seq.0)),
        _ => None,
    }
}

/// All of them, in memberships that last.
fn in_rows(run: &Run) -> Vec<InRow> {
    let mut rows = Vec::new();
    for (at, line) in run.lines.iter().enumerate() {
        let Some((room, seq)) = of_room(line) else {
            continue;
        };
        let own = |other: &(usize, &Line)| other.1.device == line.device;
        let breaks = |other: &(usize, &Line)| matches!(other.1.event, Event::Ready { .. });
        let neighbour = |other: (usize, &Line)| {
            (of_room(other.1).is_some_and(|(other, _)| other == room)).then_some(other.0)
        };
        let lines = || run.lines.iter().enumerate();
        let earlier = lines().take(at).rev().filter(own);
        let later = lines().skip(at + 1).filter(own);
        let before = earlier
            .take_while(|other| !breaks(other))
            .find_map(neighbour);
        let after = later.take_while(|other| !breaks(other)).find_map(neighbour);
        let (Some(before), Some(after)) = (before, after) else {
            continue;
        };
        let is_once = lines()
            .filter(own)
            .filter(|(_, other)| names(other, room, seq))
            .count()
            == 1;
        let starts = run.lines[before].clone();
        if is_once && stays(run, line.device, of_room(&starts)) {
            rows.push(InRow { before, at, after });
        }
    }
    rows
}

/// Whether a line shows an entry to its device, be it by an ack.
fn names(line: &Line, room: ConversationId, seq: i64) -> bool {
    match &line.event {
        Event::Arrived {
            conversation,
            seq: at,
            ..
        }
        | Event::Ack {
            conversation,
            seq: at,
            ..
        } => *conversation == room && at.0 == seq,
        _ => false,
    }
}

/// Whether the device's user is a member from this entry to the end.
fn stays(run: &Run, device: u32, from: Option<(ConversationId, i64)>) -> bool {
    let Some((room, seq)) = from else {
        return false;
    };
    let user = user_of(run, device);
    run.state.memberships.iter().any(|member| {
        let is_this = member.conversation == room && Some(member.user) == user;
        is_this && member.joined.0 < seq && member.left.is_none()
    })
}

fn user_of(run: &Run, device: u32) -> Option<rookery_protocol::UserId> {
    run.lines.iter().find_map(|line| match &line.event {
        Event::Device { user, .. } if line.device == device => Some(*user),
        _ => None,
    })
}

/// The end of a device that was connected to the end.
fn ends(run: &Run) -> Vec<usize> {
    let lines = run.lines.iter().enumerate();
    let ends = lines.filter(|(_, line)| {
        matches!(
            line.event,
            Event::End {
                connected: true,
                ..
            }
        )
    });
    ends.map(|(at, _)| at).collect()
}

fn head(run: &Run, room: ConversationId) -> i64 {
    let log = run.state.messages.iter();
    log.filter(|stored| stored.conversation == room).count() as i64
}

fn insert(run: &mut Run, at: usize, device: u32, event: Event) -> usize {
    let t = run.lines[at].t;
    run.lines.insert(at, Line { t, device, event });
    at
}

/// Breaks `kind` in run after run; `broken` returns the line that shows it, if there is a place.
fn found_in_all(kind: Kind, broken: impl Fn(&mut Run, &mut StdRng) -> Option<usize>) {
    let mut tried = 0;
    for seed in 0..SEEDS {
        let mut run = Run::of(seed, STEPS);
        let mut random = StdRng::seed_from_u64(seed);
        let Some(at) = broken(&mut run, &mut random) else {
            continue;
        };
        tried += 1;
        let report = run.check();
        let kinds: Vec<Kind> = report.findings.iter().map(|finding| finding.kind).collect();
        let text = || format!("seed {seed}, line {}: {}", at + 1, report.to_markdown(""));
        assert_eq!(kinds, [kind], "{}", text());
        let place = format!("model:{}", at + 1);
        assert_eq!(report.findings[0].place, Some(place), "{}", text());
    }
    assert!(tried > SEEDS / 2, "only {tried} runs had a place for it");
}

/// The same for one arrival in a row.
fn in_a_row(kind: Kind, broken: impl Fn(&mut Run, InRow) -> usize) {
    found_in_all(kind, |run, random| {
        let rows = in_rows(run);
        let row = *rows.get(random.random_range(0..rows.len().max(1)))?;
        Some(broken(run, row))
    });
}

#[test]
fn a_dropped_arrival_is_lost() {
    in_a_row(Kind::Lost, |run, row| {
        // Whatever else of the room came next passed over it.
        let room = of_room(&run.lines[row.at]).map(|(room, _)| room);
        let device = run.lines[row.at].device;
        let next = (row.at + 1..=row.after).find(|at| {
            let line = &run.lines[*at];
            line.device == device && room.is_some_and(|room| moves(&line.event, room))
        });
        run.lines.remove(row.at);
        next.expect("something follows") - 1
    });
}

/// Whether an event moves its device on in a room.
fn moves(event: &Event, room: ConversationId) -> bool {
    match event {
        Event::Arrived { conversation, .. } | Event::CaughtUp { conversation, .. } => {
            *conversation == room
        }
        Event::Changed {
            conversation, seq, ..
        } => *conversation == room && seq.is_some(),
        _ => false,
    }
}

#[test]
fn a_doubled_arrival_is_duplicated() {
    in_a_row(Kind::Duplicated, |run, row| {
        let line = run.lines[row.at].clone();
        run.lines.insert(row.at + 1, line);
        row.at + 1
    });
}

#[test]
fn swapped_arrivals_are_reordered() {
    in_a_row(Kind::Reordered, |run, row| {
        let (first, second) = (run.lines[row.before].event.clone(), row.at);
        run.lines[row.before].event = run.lines[second].event.clone();
        run.lines[second].event = first;
        let InRow { before, at, .. } = row;
        let room = of_room(&run.lines[at]).map(|(room, _)| room);
        let device = run.lines[at].device;
        // Changes between the two come late as well.
        let first_late = (before + 1..=at).find(|index| {
            let line = &run.lines[*index];
            let is_entry = !matches!(line.event, Event::CaughtUp { .. });
            line.device == device && is_entry && room.is_some_and(|room| moves(&line.event, room))
        });
        first_late.unwrap_or(at)
    });
}

#[test]
fn another_content_disagrees() {
    in_a_row(Kind::Disagreeing, |run, row| {
        if let Event::Arrived { content, .. } = &mut run.lines[row.at].event {
            *content = Fingerprint::of("what nobody wrote");
        }
        row.at
    });
}

#[test]
fn another_message_at_the_same_place_disagrees() {
    in_a_row(Kind::Disagreeing, |run, row| {
        if let Event::Arrived { message_id, .. } = &mut run.lines[row.at].event {
            *message_id = MessageId::from_uuid(Uuid::from_u128(7));
        }
        row.at
    });
}

#[test]
fn what_a_stranger_gets_is_leaked() {
    found_in_all(Kind::Leaked, |run, random| {
        let room = room_id(random.random_range(0..super::model::ROOMS));
        let log = run.state.messages.iter();
        let texts: Vec<_> = log
            .filter(|it| it.conversation == room && it.of.is_none())
            .collect();
        let stored = texts[random.random_range(0..texts.len())];
        let event = Event::Arrived {
            conversation: room,
            seq: stored.seq,
            message_id: stored.message_id,
            content: stored.content,
            way: Way::Live,
        };
        // The first device is the stranger's.
        let end = *ends(run).iter().find(|end| run.lines[**end].device == 1)?;
        Some(insert(run, end, 1, event))
    });
}

#[test]
fn what_is_not_stored_is_a_phantom() {
    found_in_all(Kind::Phantom, |run, random| {
        let ends = ends(run);
        let end = ends[random.random_range(0..ends.len())];
        let device = run.lines[end].device;
        let room = room_id(0);
        let seq = head(run, room) + 1;
        stays(run, device, Some((room, seq))).then(|| {
            let event = Event::Arrived {
                conversation: room,
                seq: Seq(seq),
                message_id: MessageId::from_uuid(Uuid::from_u128(7)),
                content: Fingerprint::of("phantom"),
                way: Way::Live,
            };
            insert(run, end, device, event)
        })
    });
}

fn sent_and(run: &mut Run, random: &mut StdRng, acked: bool) -> Option<usize> {
    let ends = ends(run);
    let end = *ends.get(random.random_range(0..ends.len().max(1)))?;
    let device = run.lines[end].device;
    let (message_id, conversation) = (MessageId::from_uuid(Uuid::from_u128(7)), room_id(0));
    let seq = Seq(head(run, conversation) + 1);
    let content = Fingerprint::of("sent late");
    let send = Event::Send {
        message_id,
        conversation,
        content,
    };
    let at = insert(run, end, device, send);
    if !acked {
        return Some(at);
    }
    let duplicate = false;
    let ack = Event::Ack {
        message_id,
        conversation,
        seq,
        duplicate,
    };
    Some(insert(run, at + 1, device, ack))
}

#[test]
fn an_ack_of_what_is_not_stored_is_a_loss() {
    found_in_all(Kind::Lost, |run, random| sent_and(run, random, true));
}

#[test]
fn a_send_without_an_answer_is_silent() {
    found_in_all(Kind::Silent, |run, random| sent_and(run, random, false));
}

#[test]
fn a_mark_beyond_the_end_is_found() {
    found_in_all(Kind::Receipts, |run, random| {
        let ends = ends(run);
        let end = ends[random.random_range(0..ends.len())];
        let conversation = room_id(0);
        let event = Event::Receipt {
            conversation,
            seq: Seq(head(run, conversation) + 1),
            user: user_of(run, 3)?,
            read: false,
        };
        let device = run.lines[end].device;
        Some(insert(run, end, device, event))
    });
}

#[test]
fn presence_that_stays_wrong_is_found() {
    use rookery_protocol::user::PresenceStatus::{Offline, Online};
    found_in_all(Kind::Presence, |run, random| {
        let lines = run.lines.iter().enumerate();
        let shown = lines.filter(|(_, line)| matches!(line.event, Event::Presence { .. }));
        let shown: Vec<usize> = shown.map(|(at, _)| at).collect();
        let at = shown[random.random_range(0..shown.len())];
        if let Event::Presence { status, .. } = &mut run.lines[at].event {
            *status = if *status == Online { Offline } else { Online };
        }
        Some(at)
    });
}
