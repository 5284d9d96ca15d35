//! The same for verdicts about people: who may see what, who was answered, who has read, who is there.

use rookery_oracle::{Block, EntryKind, Event, Kind, Resume, View};
use rookery_protocol::Seq;
use rookery_protocol::message::SystemNotice;
use rookery_protocol::user::PresenceStatus;

use super::story::{ANN, BOB, ROOM, Story, arrived, end, id, member, ready, refused, send, user};
use super::verdicts::bob_gets;

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
