//! For each verdict about messages a history with exactly that defect, and its twin without.

use rookery_oracle::{EntryKind, Event, Fingerprint, Kind, Resume, View};
use rookery_protocol::Seq;

use super::story::{
    ANN, BOB, ROOM, Story, ack, arrived, cursor, end, id, ready, refused, replayed, send, text,
};

/// Ann sends three messages, and Bob gets those named.
pub(crate) fn bob_gets(numbers: &[u32]) -> (Story, Vec<usize>) {
    let mut story = Story::of_two();
    story.ann_sends([1, 2, 3]);
    let lines = numbers
        .iter()
        .map(|number| story.note(BOB, arrived(*number, i64::from(*number))))
        .collect();
    (story, lines)
}

#[test]
fn lost_what_a_later_arrival_passed_over() {
    let (mut story, lines) = bob_gets(&[1, 3]);
    story.ends();
    story.shows(Kind::Lost, lines[1]);
    let (mut twin, _) = bob_gets(&[1, 2, 3]);
    twin.ends();
    twin.is_clean();
}

#[test]
fn lost_what_had_not_come_when_all_was_at_rest() {
    let (mut story, _) = bob_gets(&[1, 2]);
    story.note(ANN, end(true));
    let line = story.note(BOB, end(true));
    story.shows(Kind::Lost, line);
    // Who was away then may get it yet.
    let (mut twin, _) = bob_gets(&[1, 2]);
    twin.note(ANN, end(true));
    twin.note(BOB, Event::Disconnected { code: 1006 });
    twin.note(BOB, end(false));
    twin.is_clean();
}

#[test]
fn lost_what_was_acknowledged_and_is_not_stored() {
    let (mut story, _) = bob_gets(&[1, 2, 3]);
    story.note(ANN, send(4));
    let line = story.note(ANN, ack(4, 4));
    story.ends();
    story.shows(Kind::Lost, line);
    story.stored(4, 4);
    let at = story.lines.len() - 1;
    story.lines.insert(at, story.lines[at].clone());
    story.lines[at].event = arrived(4, 4);
    story.is_clean();
}

#[test]
fn lost_a_change_that_should_have_come_live() {
    let with_change = |told: bool| {
        let (mut story, _) = bob_gets(&[1, 2, 3]);
        story.entry(4, 4, EntryKind::Change).of = Some(Seq(2));
        story.ann_sends([5]);
        for device in [ANN, BOB] {
            if told || device == ANN {
                story.note(device, change(4, 2, text(2)));
            }
        }
        let line = story.note(BOB, arrived(5, 5));
        story.ends();
        (story, line)
    };
    let (story, line) = with_change(false);
    story.shows(Kind::Lost, line);
    with_change(true).0.is_clean();
}

fn change(seq: i64, of: u32, content: Fingerprint) -> Event {
    Event::Changed {
        conversation: ROOM,
        seq: Some(Seq(seq)),
        of: Seq(i64::from(of)),
        message_id: id(of),
        content,
    }
}

#[test]
fn phantom_what_the_store_does_not_have() {
    let (mut story, lines) = bob_gets(&[1, 2, 3, 4]);
    story.ends();
    story.shows(Kind::Phantom, lines[3]);
}

#[test]
fn phantom_what_nobody_sent() {
    let (mut story, lines) = bob_gets(&[1, 2, 3, 4]);
    story.note(ANN, arrived(4, 4));
    story.stored(4, 4);
    story.ends();
    story.shows(Kind::Phantom, lines[3]);
    story.options.all_sends_recorded = false;
    story.is_clean();
}

#[test]
fn phantom_what_was_refused_and_is_stored() {
    let refused_with = |code: &str, again: bool| {
        let (mut story, _) = bob_gets(&[1, 2, 3]);
        story.note(ANN, send(4));
        if again {
            story.note(ANN, send(4));
        }
        let line = story.note(ANN, refused(4, code, false));
        story.stored(4, 4);
        story.note(ANN, arrived(4, 4));
        story.note(BOB, arrived(4, 4));
        story.ends();
        (story, line)
    };
    let (story, line) = refused_with("FORBIDDEN", false);
    story.shows(Kind::Phantom, line);
    // It may have been stored nevertheless, or by an attempt before.
    refused_with("INTERNAL", false).0.is_clean();
    refused_with("FORBIDDEN", true).0.is_clean();
}

#[test]
fn duplicated_what_comes_again_on_one_connection() {
    let (mut story, lines) = bob_gets(&[1, 2, 3, 3]);
    story.ends();
    story.shows(Kind::Duplicated, lines[3]);
}

#[test]
fn duplicated_what_a_cursor_had_named() {
    let resumed_from = |seq: i64, view: View| {
        let (mut story, _) = bob_gets(&[1, 2, 3]);
        for line in &mut story.lines {
            if let Event::Device { view: of, .. } = &mut line.event {
                *of = view;
            }
        }
        story.note(BOB, Event::Disconnected { code: 1006 });
        story.note(BOB, ready(cursor(seq)));
        let line = story.note(BOB, replayed(3, 3));
        story.note(BOB, Event::Synced {});
        story.ends();
        (story, line)
    };
    let (story, line) = resumed_from(3, View::Wire);
    story.shows(Kind::Duplicated, line);
    let (twin, _) = resumed_from(2, View::Wire);
    twin.is_clean();
    assert_eq!(twin.check().counts.repeats, 1);
}

#[test]
fn duplicated_what_the_client_library_hands_out_twice() {
    let (mut story, _) = bob_gets(&[1, 2, 3]);
    story.note(BOB, Event::Disconnected { code: 1006 });
    story.note(BOB, ready(Resume::Kept));
    let line = story.note(BOB, replayed(3, 3));
    story.ends();
    story.shows(Kind::Duplicated, line);
}

#[test]
fn duplicated_what_has_two_places() {
    let (mut story, _) = bob_gets(&[1, 2, 3]);
    story.note(ANN, send(3));
    let line = story.note(ANN, ack(3, 4));
    story.ends();
    story.shows(Kind::Duplicated, line);
    // Nor may the store have it twice.
    let (mut story, _) = bob_gets(&[1, 2, 3, 4]);
    story.ann_sends([4]);
    story.state.messages[3].message_id = id(3);
    story.options.all_sends_recorded = false;
    assert!(story.check().count(Kind::Duplicated) > 0);
}

#[test]
fn reordered_what_comes_after_a_later_one() {
    let (mut story, lines) = bob_gets(&[1, 3, 2]);
    story.ends();
    story.shows(Kind::Reordered, lines[2]);
}

#[test]
fn reordered_an_ack_that_comes_after_later_entries() {
    let story_of = |late: bool| {
        let mut story = Story::of_two();
        story.note(ANN, send(1));
        story.note(BOB, send(2));
        story.note(BOB, arrived(1, 1));
        story.note(BOB, ack(2, 2));
        let events = if late {
            [arrived(2, 2), ack(1, 1)]
        } else {
            [ack(1, 1), arrived(2, 2)]
        };
        let lines = events.map(|event| story.note(ANN, event));
        story.stored(1, 1);
        story.stored(2, 2);
        story.ends();
        (story, lines[1])
    };
    let (story, line) = story_of(true);
    story.shows(Kind::Reordered, line);
    story_of(false).0.is_clean();
}

#[test]
fn reordered_what_was_sent_after_the_ack_of_a_later_place() {
    let mut story = Story::of_two();
    story.note(ANN, send(2));
    story.note(ANN, ack(2, 2));
    story.note(ANN, send(1));
    let line = story.note(ANN, ack(1, 1));
    for number in [1, 2] {
        story.stored(number, i64::from(number));
        story.note(BOB, arrived(number, i64::from(number)));
    }
    story.ends();
    story.shows(Kind::Reordered, line);
    // A repeated send is told its first place.
    let Event::Ack { duplicate, .. } = &mut story.lines[line - 1].event else {
        panic!("an ack stands there");
    };
    *duplicate = true;
    story.is_clean();
}

#[test]
fn reordered_a_log_with_a_hole() {
    let (mut story, _) = bob_gets(&[1, 2, 3]);
    story.note(ANN, send(5));
    story.note(ANN, ack(5, 5));
    story.stored(5, 5);
    story.note(BOB, arrived(5, 5));
    story.ends();
    story.shows(Kind::Reordered, 0);
}

#[test]
fn disagreeing_another_content_or_id() {
    for (number, as_number) in [(2, 7), (7, 2)] {
        let (mut story, lines) = bob_gets(&[1, 2, 3]);
        story.lines[lines[1] - 1].event = Event::Arrived {
            conversation: ROOM,
            seq: Seq(2),
            message_id: id(number),
            content: text(as_number),
            way: rookery_oracle::Way::Live,
        };
        story.ends();
        story.shows(Kind::Disagreeing, lines[1]);
    }
}

#[test]
fn disagreeing_an_ack_with_another_place_than_the_store() {
    let (mut story, _) = bob_gets(&[1, 2, 3]);
    story.note(ANN, send(4));
    let line = story.note(ANN, ack(4, 5));
    story.note(ANN, send(5));
    story.note(ANN, ack(5, 5));
    story.note(ANN, arrived(4, 4));
    for number in [4, 5] {
        story.stored(number, i64::from(number));
        story.note(BOB, arrived(number, i64::from(number)));
    }
    story.ends();
    assert_eq!(
        story.check().findings[1].place,
        Some(format!("one:{line}")),
        "{}",
        story.check().to_markdown("")
    );
}

#[test]
fn disagreeing_a_device_that_shows_a_message_as_it_was_before_an_edit() {
    let edited = Fingerprint::of("edited");
    let with_edit = |shown: Fingerprint| {
        let (mut story, lines) = bob_gets(&[1, 2, 3]);
        story.note(
            ANN,
            Event::Edit {
                conversation: ROOM,
                of: Seq(2),
                content: edited,
            },
        );
        story.entry(4, 4, EntryKind::Change).of = Some(Seq(2));
        let second = &mut story.state.messages[1];
        (second.content, second.changed) = (edited, true);
        story.note(ANN, change(4, 2, edited));
        let line = story.note(BOB, change(4, 2, shown));
        story.ends();
        (story, line, lines)
    };
    let (story, line, _) = with_edit(text(2));
    story.shows(Kind::Disagreeing, line);
    with_edit(edited).0.is_clean();
    // And what nobody ever wrote is wrong at any time.
    let (mut story, _, lines) = with_edit(edited);
    if let Event::Arrived { content, .. } = &mut story.lines[lines[1] - 1].event {
        *content = text(9);
    }
    story.shows(Kind::Disagreeing, lines[1]);
}
