use rand::SeedableRng;
use rand::rngs::SmallRng;
use rookery_protocol::ConversationId;
use uuid::Uuid;

use super::super::handle::Outgoing;
use super::*;

const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));
const OTHER: ConversationId = ConversationId::from_uuid(Uuid::from_u128(2));
const ANN: UserId = UserId::from_uuid(Uuid::from_u128(3));
const BOB: UserId = UserId::from_uuid(Uuid::from_u128(4));
const SECOND: Duration = Duration::from_secs(1);

fn outbox() -> Outbox {
    let mut outbox = Outbox::new(4, 1_000);
    outbox.identify(ANN);
    outbox
}

fn push(outbox: &mut Outbox, to: ConversationId, text: &str) -> MessageId {
    let message = Outgoing::to_conversation(to, text);
    let id = message.message_id;
    outbox.push(message.into_send());
    id
}

fn due(outbox: &mut Outbox, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| outbox.next_due(now, 1_024))
        .map(|message| message.content)
        .collect()
}

fn refuse(outbox: &mut Outbox, id: MessageId, now: Instant, hint: Option<Duration>) {
    outbox.postpone(id, now, hint, false, &mut SmallRng::seed_from_u64(1));
}

#[test]
fn one_of_each_conversation_is_on_its_way_and_leaves_again_after_an_interruption() {
    let now = Instant::now();
    let mut outbox = outbox();
    let a = push(&mut outbox, ROOM, "a");
    push(&mut outbox, ROOM, "b");
    push(&mut outbox, OTHER, "x");
    assert_eq!(due(&mut outbox, now), ["a", "x"]);
    assert_eq!(outbox.unanswered_since(), Some(now));
    assert_eq!(outbox.settle(a).unwrap().content, "a");
    assert!(outbox.settle(a).is_none(), "acked twice");
    assert_eq!(due(&mut outbox, now), ["b"]);
    outbox.interrupted();
    assert_eq!(outbox.unanswered_since(), None);
    assert_eq!(due(&mut outbox, now), ["x", "b"], "as they left");
    let unsettled = outbox.take_unsettled();
    let texts: Vec<_> = unsettled.iter().map(|send| send.content.as_str()).collect();
    assert_eq!(texts, ["b", "x"], "as they were put in");
}

#[test]
fn nothing_overtakes_a_postponed_send_within_its_conversation() {
    let now = Instant::now();
    let mut outbox = outbox();
    let a = push(&mut outbox, ROOM, "a");
    push(&mut outbox, ROOM, "b");
    assert_eq!(due(&mut outbox, now), ["a"]);
    refuse(&mut outbox, a, now, Some(SECOND));
    push(&mut outbox, OTHER, "x");
    assert_eq!(due(&mut outbox, now), ["x"], "other conversations go on");
    outbox.interrupted();
    assert_eq!(
        due(&mut outbox, now + SECOND / 2),
        ["x"],
        "a hint outlives its connection"
    );
    let later = outbox.wakes_at().unwrap();
    assert!(later >= now + SECOND);
    assert_eq!(due(&mut outbox, later), ["a"]);
    outbox.settle(a);
    assert_eq!(due(&mut outbox, later), ["b"]);
}

#[test]
fn refusals_without_a_hint_are_waited_out_longer_and_longer() {
    let mut now = Instant::now();
    let mut outbox = outbox();
    let a = push(&mut outbox, ROOM, "a");
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        assert_eq!(due(&mut outbox, now), ["a"]);
        refuse(&mut outbox, a, now, None);
        refuse(&mut outbox, a, now, None);
        let then = outbox.wakes_at().expect("refused once, waited for once");
        longest = longest.max(then - now);
        now = then;
    }
    assert!(longest > 2 * SECOND, "{longest:?}");
}

#[test]
fn after_a_refusal_because_of_the_rate_sends_leave_one_by_one() {
    let now = Instant::now();
    let mut outbox = Outbox::new(100, 1_000);
    outbox.identify(ANN);
    let rooms = (10..20).map(|n| ConversationId::from_uuid(Uuid::from_u128(n)));
    let ids: Vec<_> = rooms.map(|room| push(&mut outbox, room, "a")).collect();
    assert_eq!(due(&mut outbox, now).len(), 10);
    let dice = &mut SmallRng::seed_from_u64(1);
    for id in &ids {
        outbox.postpone(*id, now, Some(SECOND), true, dice);
    }
    let later = now + 2 * SECOND;
    let one = outbox.next_due(later, 1_024).unwrap();
    assert!(outbox.next_due(later, 1_024).is_none());
    outbox.settle(one.message_id);
    assert_eq!(due(&mut outbox, later).len(), 2, "one more with each ack");
}

#[test]
fn it_is_bounded_by_count_and_by_bytes() {
    let mut outbox = outbox();
    push(&mut outbox, ROOM, &"a".repeat(999));
    assert!(!outbox.is_full());
    let id = push(&mut outbox, ROOM, "b");
    assert!(outbox.is_full(), "1,000 bytes");
    outbox.settle(id);
    for text in ["c", "d", "e"] {
        push(&mut outbox, OTHER, text);
    }
    assert!(outbox.is_full(), "four sends");
    assert_eq!(outbox.take_unsettled().len(), 4);
    assert!(!outbox.is_full());
}

#[test]
fn a_direct_conversation_is_one_lane_by_either_name() {
    let now = Instant::now();
    let mut outbox = Outbox::new(4, 1_000);
    let direct = ConversationId::direct(ANN, BOB);
    outbox.push(Outgoing::to_user(BOB, "a").into_send());
    push(&mut outbox, direct, "b");
    outbox.identify(ANN);
    outbox.push(Outgoing::to_user(BOB, "c").into_send());
    for text in ["a", "b", "c"] {
        let message = outbox.next_due(now, 9).unwrap();
        assert_eq!(message.content, text);
        assert!(outbox.next_due(now, 9).is_none(), "one at a time");
        outbox.settle(message.message_id).unwrap();
    }
}

#[test]
fn the_same_id_is_taken_once_and_settled_wherever_it_stands() {
    let now = Instant::now();
    let mut outbox = outbox();
    push(&mut outbox, ROOM, "a");
    let twice = Outgoing::to_conversation(ROOM, "b").into_send();
    outbox.push(twice.clone());
    outbox.push(twice.clone());
    assert_eq!(outbox.len(), 2);
    assert_eq!(due(&mut outbox, now), ["a"]);
    outbox.settle(twice.message_id).unwrap();
    outbox.interrupted();
    assert_eq!(due(&mut outbox, now), ["a"]);
    assert_eq!(outbox.len(), 1);
}

/// A backlog of 100,000 drains in moments: no operation looks at all that waits.
#[test]
fn a_long_backlog_drains_in_order() {
    let now = Instant::now();
    let mut outbox = Outbox::new(usize::MAX, usize::MAX);
    outbox.identify(ANN);
    for number in 0..100_000 {
        let room = if number % 2 == 0 { ROOM } else { OTHER };
        push(&mut outbox, room, &number.to_string());
    }
    let mut drained = 0;
    while let Some(message) = outbox.next_due(now, 1) {
        assert_eq!(message.content, drained.to_string());
        outbox.settle(message.message_id).unwrap();
        drained += 1;
    }
    assert_eq!(drained, 100_000);
}
