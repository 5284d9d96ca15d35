//! For each verdict a history with exactly that defect, and its twin without.

use rookery_oracle::{Block, EntryKind, Event, Fingerprint, Kind, Resume, View};
use rookery_protocol::Seq;
use rookery_protocol::message::SystemNotice;
use rookery_protocol::user::PresenceStatus;

use super::story::{
    ANN, BOB, ROOM, Story, ack, arrived, cursor, end, id, member, ready, refused, replayed, send,
    text, user,
};

/// Ann sends three messages, and Bob gets those named.
fn bob_gets(numbers: &[u32]) -> (Story, Vec<usize>) {
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

/// Bob's membership ends with entry 2; then Ann writes another message, which he gets.
fn after_his_removal(number: u32) -> (Story, usize) {
    let mut story = Story::of_two();
    story.ann_sends([1]);
    let user_id = user(BOB);
    story.entry(2, 2, EntryKind::System).notice = Some(SystemNotice::MemberRemoved { user_id });
    story.note(ANN, arrived(2, 2));
    story.ann_sends([3]);
    story.note(BOB, arrived(1, 1));
    story.note(BOB, arrived(2, 2));
    story.state.memberships[1] = member(BOB, 0, Some(2));
    let line = if number > 2 {
        story.note(BOB, arrived(number, i64::from(number)))
    } else {
        0
    };
    story.ends();
    (story, line)
}

#[test]
fn leaked_what_came_after_the_end_of_a_membership() {
    let (story, line) = after_his_removal(3);
    story.shows(Kind::Leaked, line);
    after_his_removal(0).0.is_clean();
}

#[test]
fn leaked_what_was_written_before_the_joining() {
    let joined_later = |history_visible: bool| {
        let mut story = Story::of_two();
        story.ann_sends([1]);
        let user_ids = vec![user(BOB)];
        story.entry(2, 2, EntryKind::System).notice = Some(SystemNotice::MembersAdded { user_ids });
        story.note(ANN, arrived(2, 2));
        story.state.memberships[1] = member(BOB, 1, None);
        story.state.memberships[1].history_visible = history_visible;
        let line = story.note(BOB, arrived(1, 1));
        story.note(BOB, arrived(2, 2));
        story.ends();
        (story, line)
    };
    let (story, line) = joined_later(false);
    story.shows(Kind::Leaked, line);
    joined_later(true).0.is_clean();
}

#[test]
fn silent_a_send_that_nobody_answered() {
    let ended_by = |event: Option<Event>, outbox: Vec<u32>| {
        let (mut story, _) = bob_gets(&[1, 2, 3]);
        let line = story.note(ANN, send(4));
        if let Some(event) = event {
            story.note(ANN, event);
        }
        let outbox = outbox.into_iter().map(id).collect();
        let connected = true;
        story.note(ANN, Event::End { connected, outbox });
        story.note(BOB, end(true));
        (story, line)
    };
    let (story, line) = ended_by(None, Vec::new());
    story.shows(Kind::Silent, line);
    ended_by(None, vec![4]).0.is_clean();
    ended_by(Some(refused(4, "FORBIDDEN", false)), Vec::new())
        .0
        .is_clean();
    let message_id = id(4);
    ended_by(Some(Event::GivenUp { message_id }), Vec::new())
        .0
        .is_clean();
}

fn receipt(seq: i64) -> Event {
    Event::Receipt {
        conversation: ROOM,
        seq: Seq(seq),
        user: user(BOB),
        read: true,
    }
}

#[test]
fn receipts_that_went_back_in_the_store() {
    let (mut story, _) = bob_gets(&[1, 2, 3]);
    story.note(ANN, receipt(2));
    let line = story.note(ANN, receipt(3));
    story.ends();
    story.state.memberships[1].read = Seq(2);
    story.shows(Kind::Receipts, line);
    story.state.memberships[1].read = Seq(3);
    story.is_clean();
}

#[test]
fn receipts_of_what_was_not_there() {
    let (mut story, _) = bob_gets(&[1, 2, 3]);
    story.state.memberships[1].read = Seq(9);
    let line = story.note(ANN, receipt(4));
    story.ann_sends([4]);
    story.note(BOB, arrived(4, 4));
    story.ends();
    story.shows(Kind::Receipts, line);
    if let Event::Receipt { seq, .. } = &mut story.lines[line - 1].event {
        *seq = Seq(5);
    }
    story.shows(Kind::Receipts, line);
}

#[test]
fn receipts_that_the_client_library_hands_out_backwards() {
    let handed_out_by = |view: View| {
        let mut story = Story::empty();
        story.device(ANN, "ann", view);
        story.note(ANN, ready(Resume::Cursors([].into())));
        story.state.memberships = vec![member(ANN, 0, None), member(BOB, 0, None)];
        story.state.memberships[1].read = Seq(2);
        story.ann_sends([1, 2]);
        story.note(ANN, receipt(2));
        let line = story.note(ANN, receipt(1));
        story.note(ANN, end(true));
        (story, line)
    };
    let (story, line) = handed_out_by(View::Client);
    story.shows(Kind::Receipts, line);
    handed_out_by(View::Wire).0.is_clean();
}

#[test]
fn presence_that_did_not_come_to_rest() {
    let seen_as = |status: PresenceStatus| {
        let mut story = Story::of_two();
        let user = user(BOB);
        let line = story.note(ANN, Event::Presence { user, status });
        story.now += 60_000;
        story.ends();
        (story, line)
    };
    let (mut story, line) = seen_as(PresenceStatus::Offline);
    story.shows(Kind::Presence, line);
    seen_as(PresenceStatus::Online).0.is_clean();
    // One who is blocked sees the other one offline.
    story.state.blocks = vec![Block {
        user: user(BOB),
        blocked: user(ANN),
    }];
    story.is_clean();
}

#[test]
fn presence_that_may_still_change_is_not_judged() {
    let mut story = Story::of_two();
    let (user, status) = (user(BOB), PresenceStatus::Offline);
    story.note(ANN, Event::Presence { user, status });
    story.ends();
    story.is_clean();
    let unjudged = story.check().unjudged;
    assert_eq!(unjudged.values().sum::<u64>(), 1, "{unjudged:?}");
}
