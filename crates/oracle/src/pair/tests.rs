//! A test that cannot fail is a defect: each kind of fault must turn the oracle red, alone.

use super::*;

/// Ten messages of A, acknowledged at places 1 to 10.
fn acked() -> Conversation<()> {
    let mut conversation = Conversation::new(0);
    for place in 1..=10 {
        let counter = conversation.sent(Side::A, ());
        assert!(conversation.acked(Side::A, counter, place).is_some());
    }
    conversation
}

fn deliver(conversation: &mut Conversation<()>, places: impl IntoIterator<Item = i64>) {
    for place in places {
        conversation.delivered(Side::A, place as u64 - 1, place);
    }
}

fn clean() -> Verdict {
    Verdict {
        sent: 10,
        acked: 10,
        delivered: 10,
        ..Verdict::default()
    }
}

#[test]
fn everything_once_and_in_order_is_clean() {
    let mut conversation = acked();
    assert_eq!(conversation.in_flight(Side::A), 10);
    deliver(&mut conversation, 1..=10);
    assert!(conversation.is_settled());
    assert_eq!(conversation.verdict(), clean());
    assert!(conversation.verdict().is_clean());
}

#[test]
fn a_lost_message_turns_it_red() {
    let mut conversation = acked();
    deliver(&mut conversation, (1..=10).filter(|place| *place != 4));
    let verdict = conversation.verdict();
    assert_eq!(
        verdict,
        Verdict {
            delivered: 9,
            lost: 1,
            ..clean()
        }
    );
    assert!(!verdict.is_clean());
    assert_eq!(conversation.in_flight(Side::A), 1);
}

#[test]
fn a_doubled_message_turns_it_red() {
    let mut conversation = acked();
    deliver(&mut conversation, 1..=5);
    deliver(&mut conversation, [3]);
    deliver(&mut conversation, 6..=10);
    assert_eq!(conversation.verdict().doubled, 1);
    assert!(!conversation.verdict().is_clean());
}

#[test]
fn a_doubled_message_that_is_not_yet_acknowledged_turns_it_red() {
    let mut conversation = Conversation::new(0);
    let counter = conversation.sent(Side::B, ());
    conversation.delivered(Side::B, counter, 1);
    conversation.delivered(Side::B, counter, 1);
    assert_eq!(conversation.verdict().doubled, 1);
}

#[test]
fn a_reordered_message_turns_it_red() {
    let mut conversation = acked();
    deliver(&mut conversation, [1, 2, 3, 5, 4, 6, 7, 8, 9, 10]);
    assert_eq!(
        conversation.verdict(),
        Verdict {
            reordered: 1,
            ..clean()
        }
    );
    assert!(!conversation.verdict().is_clean());
}

#[test]
fn a_hole_in_the_log_turns_it_red() {
    let mut conversation = acked();
    deliver(&mut conversation, 1..=10);
    let counter = conversation.sent(Side::A, ());
    conversation.acked(Side::A, counter, 12);
    conversation.delivered(Side::A, counter, 12);
    assert_eq!(conversation.verdict().holes, 1);
    assert!(!conversation.verdict().is_clean());
}

#[test]
fn another_place_than_acknowledged_turns_it_red() {
    let mut conversation = Conversation::new(7);
    let counter = conversation.sent(Side::A, ());
    conversation.acked(Side::A, counter, 8);
    conversation.delivered(Side::A, counter, 9);
    assert_eq!(conversation.verdict().foreign, 1);
    let counter = conversation.sent(Side::A, ());
    conversation.acked(Side::A, counter, 9);
    conversation.acked(Side::A, counter, 10);
    assert_eq!(
        conversation.verdict().doubled,
        1,
        "acknowledged with two places"
    );
}

#[test]
fn what_nobody_sent_turns_it_red() {
    let mut conversation = acked();
    conversation.delivered(Side::A, 10, 11);
    conversation.acked(Side::B, 0, 12);
    assert_eq!(conversation.verdict().foreign, 2);
}

#[test]
fn a_refused_send_turns_it_red_and_is_not_waited_for() {
    let mut conversation = Conversation::new(0);
    let counter = conversation.sent(Side::A, ());
    conversation.refused(Side::A, counter);
    assert!(conversation.is_settled());
    assert_eq!(conversation.verdict().refused, 1);
    assert!(!conversation.verdict().is_clean());
}

#[test]
fn a_repeated_send_is_harmless() {
    let mut conversation = Conversation::new(0);
    let first = conversation.sent(Side::A, ());
    let second = conversation.sent(Side::A, ());
    assert_eq!(conversation.unanswered(Side::A), [first, second]);
    conversation.acked(Side::A, second, 2);
    assert_eq!(conversation.unanswered(Side::A), [first]);
    for _ in 0..2 {
        conversation.acked(Side::A, first, 1);
    }
    deliver(&mut conversation, 1..=2);
    assert_eq!(conversation.cursor(Side::B), 2);
    conversation.acked(Side::A, first, 1);
    assert!(conversation.verdict().is_clean());
}

#[test]
fn a_send_without_an_answer_turns_it_red_and_is_no_hole() {
    let mut conversation = Conversation::new(0);
    conversation.sent(Side::A, ());
    let counter = conversation.sent(Side::A, ());
    conversation.acked(Side::A, counter, 2);
    conversation.delivered(Side::A, counter, 2);
    let verdict = conversation.verdict();
    assert_eq!(
        (verdict.unanswered, verdict.holes),
        (1, 0),
        "it may have taken the place before"
    );
    assert!(!verdict.is_clean());
}

#[test]
fn a_message_that_arrives_without_an_acknowledgement_turns_it_red() {
    let mut conversation = Conversation::new(0);
    let counter = conversation.sent(Side::A, ());
    conversation.delivered(Side::A, counter, 1);
    let verdict = conversation.verdict();
    assert_eq!((verdict.unanswered, verdict.holes), (1, 0));
    assert!(!verdict.is_clean());
}

#[test]
fn what_is_open_is_told_with_its_stamps() {
    let mut conversation = Conversation::new(0);
    for stamp in 0..4 {
        conversation.sent(Side::A, stamp);
    }
    conversation.acked(Side::A, 0, 1);
    conversation.acked(Side::A, 1, 2);
    conversation.delivered(Side::A, 1, 2);
    conversation.refused(Side::A, 3);
    let open: Vec<_> = conversation.open().collect();
    let of = |stamp, acked| Open {
        stamp,
        acked,
        delivered: false,
    };
    assert_eq!(open, [of(0, true), of(2, false)]);
}

#[test]
fn both_directions_share_one_log() {
    let mut conversation = Conversation::new(0);
    for place in (1..=20).step_by(2) {
        let a = conversation.sent(Side::A, ());
        let b = conversation.sent(Side::B, ());
        conversation.acked(Side::B, b, place + 1);
        conversation.delivered(Side::A, a, place);
        conversation.delivered(Side::B, b, place + 1);
        conversation.acked(Side::A, a, place);
    }
    assert!(conversation.is_settled());
    assert!(conversation.verdict().is_clean());
    assert_eq!(conversation.verdict().delivered, 20);
}
