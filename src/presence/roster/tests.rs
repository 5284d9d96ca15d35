use rookery_protocol::user::ChosenStatus;
use uuid::Uuid;

use super::*;

const ANN: UserId = UserId::from_uuid(Uuid::from_u128(1));

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn chosen(status: ChosenStatus, millis: i64) -> Chosen {
    Chosen {
        status,
        at: at(millis),
    }
}

fn only(roster: &Roster) -> Change {
    let changes = roster.take_changes(10);
    assert_eq!(changes.len(), 1, "{changes:?}");
    changes[0]
}

#[test]
fn who_comes_back_within_the_grace_was_never_gone() {
    let (roster, start) = (Roster::default(), Instant::now());
    roster.came(ANN, Chosen::default(), 1, at(1));
    let came = only(&roster);
    assert!(came.before.is_none() && came.after.is_some());

    roster.gone(ANN, at(2), start);
    roster.settle(start + GRACE - Duration::from_millis(1), |_| false);
    roster.came(ANN, Chosen::default(), 1, at(3));
    roster.settle(start + GRACE, |_| false);
    let back = only(&roster);
    assert_eq!(back.before, back.after, "only the sockets may be more");
    assert_eq!(roster.get(ANN).map(|listing| listing.since), Some(at(1)));
}

#[test]
fn who_left_is_taken_off_after_the_grace_unless_a_socket_is_there() {
    let (roster, start) = (Roster::default(), Instant::now());
    roster.came(ANN, Chosen::default(), 1, at(1));
    roster.gone(ANN, at(2), start);
    assert_eq!(roster.next_settling(), Some(start + GRACE));
    roster.settle(start + GRACE, |_| true);
    assert!(
        roster.get(ANN).is_some(),
        "a socket opened and did not say so yet"
    );

    let later = start + GRACE;
    roster.gone(ANN, at(7), later);
    // Left once more within the grace: it begins anew.
    roster.gone(ANN, at(8), later + Duration::from_secs(1));
    drop(roster.take_changes(10));
    roster.settle(later + GRACE, |_| false);
    assert!(roster.get(ANN).is_some());
    roster.settle(later + GRACE + Duration::from_secs(1), |_| false);
    let gone = only(&roster);
    assert!(gone.before.is_some() && gone.after.is_none());
    assert_eq!(gone.seen_at, Some(at(8)));
    assert_eq!(roster.next_settling(), None);
}

#[test]
fn sockets_that_open_at_once_are_counted_in_either_order() {
    let roster = Roster::default();
    for sockets in [2, 3, 1] {
        roster.came(ANN, Chosen::default(), sockets, at(1));
    }
    let change = only(&roster);
    assert_eq!(change.after.map(|listing| listing.sockets), Some(3));
    roster.came(ANN, Chosen::default(), 3, at(2));
    assert_eq!(only(&roster).after, change.after, "asked about once more");
}

#[test]
fn changes_that_were_not_read_become_one() {
    let (roster, start) = (Roster::default(), Instant::now());
    roster.came(ANN, Chosen::default(), 1, at(1));
    roster.chose(ANN, chosen(ChosenStatus::Away, 5), true);
    let change = only(&roster);
    assert!(change.before.is_none() && change.announce);
    roster.gone(ANN, at(6), start);
    roster.settle(start + GRACE, |_| false);
    roster.came(ANN, Chosen::default(), 1, at(7));
    let change = only(&roster);
    assert_eq!(change.before.map(|listing| listing.since), Some(at(1)));
    assert_eq!(change.after.map(|listing| listing.since), Some(at(7)));
}

#[test]
fn the_later_choice_counts_and_who_becomes_visible_begins_then() {
    let roster = Roster::default();
    roster.came(ANN, chosen(ChosenStatus::Invisible, 10), 1, at(20));
    roster.chose(ANN, chosen(ChosenStatus::Away, 9), true);
    assert!(!roster.get(ANN).unwrap().is_visible(), "an older choice");
    roster.chose(ANN, chosen(ChosenStatus::Dnd, 30), false);
    let listing = roster.get(ANN).unwrap();
    assert_eq!(
        (listing.appears(), listing.since),
        (rookery_protocol::user::PresenceStatus::Dnd, at(30))
    );
    roster.adopt(ANN, at(25));
    roster.adopt(ANN, at(28));
    assert_eq!(roster.get(ANN).unwrap().since, at(25));
}

#[test]
fn two_nodes_together_say_the_later_choice_and_the_earlier_begin() {
    let old = Listing {
        since: at(1),
        chosen: chosen(ChosenStatus::Invisible, 10),
        sockets: 1,
    };
    let new = Listing {
        since: at(20),
        chosen: chosen(ChosenStatus::Online, 20),
        sockets: 1,
    };
    assert_eq!(old.and(new), new);
    assert_eq!(new.and(old), new);
    let elder = Listing {
        since: at(15),
        ..new
    };
    assert_eq!(new.and(elder), elder);
}
