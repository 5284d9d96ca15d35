//! What a device is not owed, or what cannot be known: never reported.

use rookery_oracle::{EntryKind, Event, Kind, Resume, View};
use rookery_protocol::Seq;
use rookery_protocol::message::SystemNotice;

use super::story::{
    ANN, BOB, ROOM, Story, ack, arrived, cursor, end, member, ready, replayed, send, user,
};

/// Bob's connection breaks after entry 1; Ann writes 2 and 3 meanwhile; he comes back.
fn away(resume: Resume) -> Story {
    let mut story = Story::of_two();
    story.ann_sends([1]);
    story.note(BOB, arrived(1, 1));
    story.note(BOB, Event::Disconnected { code: 1006 });
    story.ann_sends([2, 3]);
    story.note(BOB, ready(resume));
    story
}

#[test]
fn without_resume_what_was_committed_before_ready_is_not_owed() {
    let mut story = away(Resume::Fresh);
    story.ann_sends([4, 5]);
    let line = story.note(BOB, arrived(5, 5));
    story.ends();
    // Entry 4 was sent after `ready`.
    story.shows(Kind::Lost, line);
    let mut twin = away(Resume::Fresh);
    twin.ann_sends([4]);
    twin.note(BOB, arrived(4, 4));
    twin.ends();
    twin.is_clean();
}

#[test]
fn with_a_cursor_everything_after_it_is_owed() {
    let mut story = away(cursor(1));
    let line = story.note(
        BOB,
        Event::CaughtUp {
            conversation: ROOM,
            seq: Seq(3),
        },
    );
    story.ends();
    story.shows(Kind::Lost, line);
    assert_eq!(story.check().count(Kind::Lost), 2);
}

#[test]
fn a_reset_forgives_what_it_skips() {
    let reset = Event::Reset {
        conversation: ROOM,
        seq: Seq(3),
    };
    let mut story = away(cursor(1));
    story.note(BOB, reset);
    story.note(BOB, Event::Synced {});
    story.ann_sends([4]);
    story.note(BOB, arrived(4, 4));
    story.ends();
    story.is_clean();
}

#[test]
fn what_comes_live_before_a_reset_is_told_passes_over_nothing() {
    let with_reset = |reset: bool| {
        let mut story = away(cursor(1));
        story.note(BOB, Event::Sync { resume: cursor(1) });
        story.note(BOB, Event::SyncStarted {});
        story.ann_sends([4]);
        let line = story.note(BOB, arrived(4, 4));
        if reset {
            let (conversation, seq) = (ROOM, Seq(3));
            story.note(BOB, Event::Reset { conversation, seq });
        }
        story.note(BOB, Event::Synced {});
        story.ends();
        (story, line)
    };
    with_reset(true).0.is_clean();
    let (story, line) = with_reset(false);
    story.shows(Kind::Lost, line);
}

#[test]
fn a_replay_folds_changes_into_messages() {
    let mut story = Story::of_two();
    story.note(BOB, Event::Disconnected { code: 1006 });
    story.ann_sends([1]);
    story.entry(2, 2, EntryKind::Change).of = Some(Seq(1));
    story.note(ANN, changed(2));
    story.ann_sends([3]);
    story.note(BOB, ready(cursor(0)));
    story.note(BOB, replayed(1, 1));
    story.note(BOB, replayed(3, 3));
    story.ends();
    story.is_clean();
}

fn changed(seq: i64) -> Event {
    Event::Changed {
        conversation: ROOM,
        seq: Some(Seq(seq)),
        of: Seq(1),
        message_id: super::story::id(1),
        content: super::story::text(1),
    }
}

#[test]
fn the_client_library_does_not_say_how_far_a_replay_went() {
    let handed_out_by = |view: View| {
        let mut story = Story::empty();
        story.device(ANN, "ann", View::Wire);
        story.device(BOB, "bob", view);
        for number in [ANN, BOB] {
            story.note(number, ready(Resume::Cursors([].into())));
            story.state.memberships.push(member(number, 0, None));
        }
        story.note(BOB, Event::Synced {});
        story.ann_sends([1]);
        story.note(BOB, arrived(1, 1));
        story.note(BOB, Event::Disconnected { code: 1006 });
        story.note(BOB, ready(Resume::Kept));
        story.ann_sends([2]);
        story.note(BOB, replayed(2, 2));
        // It was in the replay, shown by what message 2 looked like.
        story.entry(3, 3, EntryKind::Change).of = Some(Seq(2));
        story.note(ANN, changed_of(3, 2));
        story.note(BOB, Event::Synced {});
        story.ann_sends([4]);
        story.note(BOB, arrived(4, 4));
        story.ends();
        story
    };
    handed_out_by(View::Client).is_clean();
    assert_eq!(handed_out_by(View::Wire).check().count(Kind::Lost), 1);
}

fn changed_of(seq: i64, of: u32) -> Event {
    Event::Changed {
        conversation: ROOM,
        seq: Some(Seq(seq)),
        of: Seq(i64::from(of)),
        message_id: super::story::id(of),
        content: super::story::text(of),
    }
}

/// Bob is removed with entry 3 and comes back with entry 6; of the messages 2 and 4 to 8 he gets
/// those named.
fn came_back(numbers: &[u32], notices: bool) -> Story {
    let mut story = Story::of_two();
    story.ann_sends([1]);
    story.note(BOB, arrived(1, 1));
    story.note(BOB, Event::Disconnected { code: 1006 });
    story.ann_sends([2]);
    let user_id = user(BOB);
    let removed = SystemNotice::MemberRemoved { user_id };
    story.entry(3, 3, EntryKind::System).notice = notices.then_some(removed);
    story.note(ANN, arrived(3, 3));
    story.ann_sends([4, 5]);
    let user_ids = vec![user(BOB)];
    let added = SystemNotice::MembersAdded { user_ids };
    story.entry(6, 6, EntryKind::System).notice = notices.then_some(added);
    story.note(ANN, arrived(6, 6));
    story.ann_sends([7, 8]);
    story.state.memberships[1] = member(BOB, 5, None);
    story.note(BOB, ready(cursor(1)));
    for number in numbers {
        story.note(BOB, replayed(*number, i64::from(*number)));
    }
    story.ends();
    story
}

#[test]
fn the_rest_of_a_membership_before_a_re_joining_is_not_owed() {
    let story = came_back(&[6, 7, 8], true);
    story.is_clean();
    let unjudged = story.check().unjudged;
    assert_eq!(unjudged.values().sum::<u64>(), 2, "2 and 3: {unjudged:?}");
    // What follows the re-joining is.
    assert_eq!(came_back(&[6, 8], true).check().count(Kind::Lost), 1);
    // What was written while he was no member is not for him, if it is known when that was.
    let leaked = came_back(&[4, 6, 7, 8], true).check();
    assert_eq!(leaked.count(Kind::Leaked), 1);
    came_back(&[4, 6, 7, 8], false).is_clean();
}

#[test]
fn a_membership_that_began_and_ended_while_the_device_was_away_owes_it_nothing() {
    let mut story = Story::of_two();
    story.note(BOB, Event::Disconnected { code: 1006 });
    story.ann_sends([1]);
    let (user_id, user_ids) = (user(BOB), vec![user(BOB)]);
    story.entry(2, 2, EntryKind::System).notice = Some(SystemNotice::MembersAdded { user_ids });
    story.entry(4, 4, EntryKind::System).notice = Some(SystemNotice::MemberLeft { user_id });
    story.note(ANN, arrived(2, 2));
    story.ann_sends([3]);
    story.note(ANN, arrived(4, 4));
    story.state.memberships[1] = member(BOB, 1, Some(4));
    story.note(BOB, ready(Resume::Cursors([].into())));
    story.ends();
    story.is_clean();
}

#[test]
fn what_happened_under_another_epoch_is_not_judged() {
    let mut story = Story::of_two();
    story.note(ANN, send(9));
    story.note(ANN, ack(9, 1));
    story.note(BOB, arrived(9, 1));
    story.note(ANN, send(8));
    story.state.epoch = Some("second".to_owned());
    for device in [ANN, BOB] {
        story.note(device, Event::Disconnected { code: 1006 });
        story.note(
            device,
            Event::Ready {
                node: "a".to_owned(),
                epoch: "second".to_owned(),
                resume: Resume::Cursors([].into()),
            },
        );
    }
    // Its place is bound to nothing that was known before.
    story.note(ANN, ack(8, 1));
    story.stored(8, 1);
    story.note(BOB, arrived(8, 1));
    story.ends();
    story.is_clean();
    story.state.epoch = None;
    let report = story.check();
    assert!(!report.is_clean());
    assert_eq!(report.count(Kind::Reordered), 0);
}

#[test]
fn a_device_that_was_cut_short_keeps_no_secret() {
    let mut story = Story::of_two();
    story.note(ANN, send(1));
    story.note(BOB, end(true));
    story.is_clean();
    let report = story.check();
    assert_eq!(report.counts.cut_short, 1);
    assert_eq!(report.unjudged.values().sum::<u64>(), 1);
}

#[test]
fn a_later_sync_on_a_live_connection_begins_anew() {
    let mut story = Story::of_two();
    story.ann_sends([1, 2]);
    story.note(BOB, arrived(1, 1));
    story.note(BOB, Event::Sync { resume: cursor(0) });
    story.note(BOB, arrived(2, 2));
    story.note(BOB, Event::SyncStarted {});
    story.note(BOB, replayed(1, 1));
    story.note(BOB, replayed(2, 2));
    story.ends();
    story.is_clean();
}

#[test]
fn lag_counts_from_the_ack_or_from_ready() {
    let mut story = away(cursor(1));
    story.note(BOB, replayed(2, 2));
    story.note(BOB, replayed(3, 3));
    story.ends();
    let lag = story.check().lag;
    // 1 came a second after its ack, 2 and 3 one and two after `ready`.
    assert_eq!((lag.count, lag.p50_ms, lag.worst_ms), (3, 1_000, 2_000));
    assert!(lag.worst.unwrap().place.starts_with("one:"));
}
