use uuid::Uuid;

use super::*;

fn id(n: u128) -> ConversationId {
    ConversationId::from_uuid(Uuid::from_u128(n))
}

#[test]
fn only_the_next_entry_passes() {
    let mut positions = Positions::pending();
    positions.set_base(&[(id(1), Seq(4))]);
    assert_eq!(positions.advance(id(1), Seq(6)), Verdict::Ahead);
    assert_eq!(positions.advance(id(1), Seq(5)), Verdict::Pass);
    assert_eq!(positions.advance(id(1), Seq(5)), Verdict::Old);
    assert_eq!(positions.advance(id(1), Seq(6)), Verdict::Pass);
    assert_eq!(positions.advance(id(2), Seq(1)), Verdict::Unknown);
}

#[test]
fn what_comes_before_the_base_is_noted_and_reported_if_newer() {
    let mut positions = Positions::pending();
    assert_eq!(positions.advance(id(1), Seq(5)), Verdict::Noted);
    assert_eq!(positions.advance(id(2), Seq(9)), Verdict::Noted);
    assert_eq!(positions.advance(id(3), Seq(1)), Verdict::Noted);
    let newer = positions.set_base(&[(id(2), Seq(8)), (id(1), Seq(5))]);
    assert_eq!(newer, [(id(2), Seq(9)), (id(3), Seq(1))]);
    assert_eq!(positions.get(id(1)), Some(Seq(5)));
}

#[test]
fn a_sync_ends_only_when_nothing_newer_was_noted() {
    let mut positions = Positions::pending();
    positions.set_base(&[(id(1), Seq(10))]);
    assert_eq!(positions.begin_sync(id(1), Seq(3), Seq(8)), Seq(10));
    assert_eq!(positions.advance(id(1), Seq(11)), Verdict::Noted);
    assert_eq!(positions.synced_to(id(1), Seq(10)), Some(Seq(11)));
    assert_eq!(positions.synced_to(id(1), Seq(11)), None);
    assert_eq!(positions.advance(id(1), Seq(12)), Verdict::Pass);
}

#[test]
fn a_resuming_socket_goes_live_with_its_first_sync() {
    let mut positions = Positions::pending();
    positions.advance(id(1), Seq(7));
    positions.advance(id(2), Seq(3));
    positions.advance(id(4), Seq(1));
    let noted = positions.begin_base();
    positions.begin_sync(id(1), Seq(2), Seq(6));
    positions.set_live(&[(id(2), Seq(2)), (id(3), Seq(0))]);
    let lacking = positions.lacking(&noted);
    assert_eq!(lacking, [(id(2), Seq(3)), (id(4), Seq(1))]);
    assert_eq!(positions.advance(id(3), Seq(1)), Verdict::Pass);
    assert_eq!(positions.advance(id(1), Seq(8)), Verdict::Noted);
    assert_eq!(positions.synced_to(id(1), Seq(7)), Some(Seq(8)));
    assert_eq!(positions.advance(id(4), Seq(1)), Verdict::Unknown);
}

#[test]
fn what_is_held_goes_on_only_once_it_is_released() {
    let mut positions = Positions::pending();
    positions.begin_base();
    positions.hold(id(1), Seq(7));
    positions.hold(id(2), Seq(0));
    assert_eq!(positions.advance(id(1), Seq(8)), Verdict::Noted);
    assert_eq!(positions.live(id(2)), None, "an empty one is held, too");
    let lacking = positions.release([id(1), id(2), id(3)].into_iter());
    assert_eq!(lacking, [(id(1), Seq(8))]);
    assert_eq!(positions.live(id(1)), Some(Seq(7)));
    assert_eq!(positions.advance(id(2), Seq(1)), Verdict::Pass);
}

#[test]
fn a_live_conversation_that_is_held_does_not_go_back() {
    let mut positions = Positions::pending();
    positions.set_base(&[(id(1), Seq(9))]);
    positions.hold(id(1), Seq(7));
    assert_eq!(positions.release([id(1)].into_iter()), []);
    assert_eq!(positions.advance(id(1), Seq(9)), Verdict::Old);
    assert_eq!(positions.advance(id(1), Seq(10)), Verdict::Pass);
}

#[test]
fn a_socket_that_is_to_go_is_passed_nothing_more() {
    let mut positions = Positions::pending();
    positions.set_base(&[(id(1), Seq(4))]);
    positions.end();
    assert_eq!(positions.advance(id(1), Seq(5)), Verdict::Old);
    assert_eq!(positions.lacks(id(1), Seq(5)), None);
    assert_eq!(positions.lacks(id(2), Seq(5)), None);
    assert!(!positions.learn(id(2), Seq(1)));
    let ends = std::collections::HashMap::from([(id(1), Seq(5))]);
    assert_eq!(positions.behind(&ends).count(), 0);
}

#[test]
fn what_a_sync_is_replaying_is_lacked_by_nobody_else() {
    let mut positions = Positions::pending();
    assert_eq!(positions.lacks(id(1), Seq(5)), None, "nothing is known yet");
    positions.set_base(&[(id(1), Seq(4))]);
    assert_eq!(positions.lacks(id(1), Seq(5)), Some(Some(Seq(4))));
    assert_eq!(positions.lacks(id(1), Seq(4)), None);
    assert_eq!(positions.lacks(id(2), Seq(1)), Some(None));
    positions.begin_sync(id(1), Seq(2), Seq(4));
    assert_eq!(
        (positions.live(id(1)), positions.get(id(1))),
        (None, Some(Seq(2)))
    );
    assert_eq!(positions.lacks(id(1), Seq(7)), None);
    assert_eq!(positions.synced_to(id(1), Seq(4)), Some(Seq(7)));
    assert_eq!(positions.synced_to(id(1), Seq(7)), None);
    assert_eq!(positions.live(id(1)), Some(Seq(7)));
}

#[test]
fn a_look_before_the_base_is_remembered() {
    let mut positions = Positions::pending();
    assert!(!positions.were_passed_over());
    positions.pass_over();
    positions.set_base(&[(id(1), Seq(4))]);
    assert!(positions.were_passed_over());
    let mut positions = Positions::pending();
    positions.set_base(&[(id(1), Seq(4))]);
    positions.pass_over();
    assert!(!positions.were_passed_over(), "it is compared itself");
}

#[test]
fn a_fill_that_waits_for_room_is_told_nothing_and_goes_on_to_all_that_came() {
    let mut positions = Positions::pending();
    positions.set_base(&[(id(1), Seq(4)), (id(2), Seq(0)), (id(3), Seq(7))]);
    assert!(positions.pace(id(1), Seq(9)));
    assert!(!positions.pace(id(2), Seq(80)), "somebody waits already");
    assert!(!positions.pace(id(1), Seq(30)), "it waits already");
    assert_eq!(positions.advance(id(1), Seq(5)), Verdict::Noted);
    assert_eq!(positions.lacks(id(1), Seq(10)), None);
    let ends = std::collections::HashMap::from([(id(1), Seq(12)), (id(3), Seq(8))]);
    assert_eq!(
        positions.behind(&ends).collect::<Vec<_>>(),
        [(id(3), Seq(8))]
    );
    assert_eq!(
        (positions.live(id(1)), positions.get(id(1))),
        (None, Some(Seq(4)))
    );
    assert_eq!(
        positions.go_on(8),
        [(id(1), Seq(12))],
        "that is enough at once"
    );
    assert_eq!(positions.advance(id(1), Seq(5)), Verdict::Pass);
    assert_eq!(positions.go_on(8), [(id(2), Seq(80))], "one at least");
    assert_eq!(positions.go_on(8), []);
    assert!(positions.pace(id(1), Seq(12)), "nobody waits any more");
    // A sync takes it over, with all that was noted.
    assert_eq!(positions.begin_sync(id(1), Seq(3), Seq(8)), Seq(12));
    assert_eq!(positions.go_on(8), []);
    assert_eq!(positions.synced_to(id(1), Seq(12)), None);
}

#[test]
fn reconciliation_sees_only_live_conversations_that_lag() {
    let mut positions = Positions::pending();
    let ends = std::collections::HashMap::from([(id(1), Seq(5)), (id(2), Seq(5))]);
    assert_eq!(positions.behind(&ends).count(), 0);
    positions.set_base(&[(id(1), Seq(4)), (id(2), Seq(5)), (id(3), Seq(1))]);
    assert_eq!(
        positions.behind(&ends).collect::<Vec<_>>(),
        [(id(1), Seq(5))]
    );
    positions.begin_sync(id(1), Seq(3), Seq(4));
    assert_eq!(positions.behind(&ends).count(), 0);
    assert_eq!(
        positions.synced_to(id(1), Seq(4)),
        Some(Seq(5)),
        "the sync goes on to what only the journal told"
    );
    positions.forget(id(2));
    assert_eq!(positions.get(id(2)), None);
}
