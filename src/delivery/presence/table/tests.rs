use rookery_protocol::user::{PresenceStatus, UserRole};
use rookery_protocol::{Format, Timestamp};
use uuid::Uuid;

use super::*;
use crate::auth::Access;
use crate::gateway::Frame;

const ANN: UserId = UserId::from_uuid(Uuid::from_u128(1));
const BOB: UserId = UserId::from_uuid(Uuid::from_u128(2));
const CAROL: UserId = UserId::from_uuid(Uuid::from_u128(3));

fn socket(id: u64, user_id: UserId) -> Arc<Session> {
    let access = Access {
        user_id,
        session_id: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
        username: "bob".into(),
        role: UserRole::User,
        auth_version: 1,
        expires_at: Timestamp::from_millis(0),
    };
    Arc::new(Session::new(id, &access, Format::Json, 0, Arc::default()))
}

fn online(since: i64, chosen_at: i64) -> BusPresence {
    BusPresence {
        user_id: ANN,
        status: PresenceStatus::Online,
        online_since: Some(Timestamp::from_millis(since)),
        last_seen_at: None,
        chosen_at: Timestamp::from_millis(chosen_at),
    }
}

fn offline() -> BusPresence {
    BusPresence::offline(ANN, Some(Timestamp::from_millis(9)))
}

/// The statuses that were queued for a socket.
fn received(session: &Session) -> Vec<String> {
    let texts = session
        .outbox
        .queued()
        .into_iter()
        .map(|frame| match frame {
            Frame::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        });
    texts
        .map(|text| {
            let event: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(event["type"], "presence");
            event["status"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// A table in which a socket of Bob's watches Ann, who is offline.
fn watched(session: &Arc<Session>, now: Instant) -> Table {
    let mut table = Table::default();
    table.begin(session, ANN, false);
    table.learn(offline(), now);
    let shown = table.show(session.id, ANN).unwrap();
    assert_eq!(shown.status, PresenceStatus::Offline);
    table
}

#[test]
fn the_first_change_goes_out_at_once_and_later_ones_become_one() {
    let (bobs, start) = (socket(1, BOB), Instant::now());
    let mut table = watched(&bobs, start);
    table.learn(online(10, 0), start);
    assert_eq!(received(&bobs), ["online"]);
    table.learn(offline(), start);
    table.learn(online(20, 0), start);
    table.learn(offline(), start + TICK / 2);
    assert_eq!(received(&bobs), [""; 0]);
    assert_eq!(table.next_due(), Some(start + TICK));
    table.tell_due(start + TICK);
    assert_eq!(received(&bobs), ["offline"], "the newest");
    // What is as it was told needs no telling.
    table.learn(online(30, 0), start + TICK);
    table.learn(offline(), start + TICK);
    table.tell_due(start + TICK * 2);
    assert_eq!(received(&bobs), [""; 0]);
    assert_eq!(table.next_due(), None);
}

#[test]
fn who_was_shown_a_change_early_is_told_that_it_was_taken_back() {
    let (bobs, start) = (socket(1, BOB), Instant::now());
    let mut table = watched(&bobs, start);
    table.learn(online(10, 0), start);
    table.learn(offline(), start);
    // Of offline Bob's first socket is to be told when the second is over.
    let (late, unblocked) = (socket(2, BOB), socket(3, CAROL));
    table.begin(&late, ANN, false);
    let shown = table.show(late.id, ANN).unwrap();
    assert_eq!(shown.status, PresenceStatus::Offline);
    table.begin(&unblocked, ANN, true);
    table.show(unblocked.id, ANN).unwrap();
    table.hide(ANN, CAROL, false);
    assert_eq!(received(&unblocked), ["offline"]);
    table.learn(online(10, 0), start + TICK / 2);
    table.tell_due(start + TICK);
    assert_eq!(received(&late), ["online"]);
    assert_eq!(received(&unblocked), ["online"]);
    assert_eq!(received(&bobs), ["online"], "knew it all the while");
    table.tell_due(start + TICK * 2);
    assert_eq!((received(&late).len(), table.next_due()), (0, None));
}

#[test]
fn news_of_an_older_choice_is_passed_over() {
    let (bobs, start) = (socket(1, BOB), Instant::now());
    let mut table = watched(&bobs, start);
    let away = BusPresence {
        status: PresenceStatus::Away,
        ..online(10, 7)
    };
    table.learn(away, start);
    table.learn(online(10, 6), start + TICK);
    assert_eq!(received(&bobs), ["away"]);
}

#[test]
fn news_waits_for_the_answer_of_the_subscription() {
    let (bobs, start) = (socket(1, BOB), Instant::now());
    let mut table = Table::default();
    table.begin(&bobs, ANN, false);
    table.learn(offline(), start);
    table.learn(online(10, 0), start);
    assert_eq!(received(&bobs), [""; 0]);
    let shown = table.show(bobs.id, ANN).unwrap();
    assert_eq!(shown.status, PresenceStatus::Online);
    table.end(bobs.id, ANN);
    table.learn(offline(), start + TICK);
    assert_eq!((received(&bobs).len(), table.len()), (0, 0));
}

#[test]
fn to_whom_a_user_hides_the_user_looks_offline_until_that_ends() {
    let (bobs, start) = (socket(1, BOB), Instant::now());
    let mut table = watched(&bobs, start);
    table.learn(online(10, 0), start);
    table.hide(ANN, BOB, true);
    table.hide(ANN, BOB, true);
    table.learn(online(20, 0), start + TICK);
    assert_eq!(received(&bobs), ["online", "offline"]);
    table.hide(ANN, BOB, false);
    assert_eq!(received(&bobs), ["online"]);
    let carols = socket(2, BOB);
    table.begin(&carols, ANN, true);
    let shown = table.show(carols.id, ANN).unwrap();
    assert_eq!(
        (shown.status, shown.online_since, shown.last_seen_at),
        (PresenceStatus::Offline, None, None)
    );
}

#[test]
fn blocks_of_which_no_news_came_hide_unless_newer_news_did() {
    let (bobs, start) = (socket(1, BOB), Instant::now());
    let carols = socket(2, CAROL);
    let mut table = watched(&bobs, start);
    table.begin(&carols, ANN, false);
    table.show(carols.id, ANN).unwrap();
    table.learn(online(10, 0), start);
    let blocks = HashSet::from([(ANN, BOB)]);
    table.hide_by(&[ANN], &blocks, start);
    assert_eq!(received(&bobs), ["online"], "read before he watched");
    let later = Instant::now() + TICK;
    table.hide_by(&[ANN], &blocks, later);
    assert_eq!(received(&bobs), ["offline"]);
    table.hide_by(&[ANN], &HashSet::new(), later + TICK);
    assert_eq!(received(&bobs), ["online"]);
    assert_eq!(received(&carols), ["online"], "nobody blocks her");
    let mut viewers = table.viewers(&[ANN, BOB]);
    viewers.sort();
    assert_eq!(viewers, [BOB, CAROL]);
}

#[test]
fn a_reader_that_is_behind_gets_the_newest_later_and_stays() {
    let (bobs, start) = (socket(1, BOB), Instant::now());
    let mut table = watched(&bobs, start);
    let filler = || Frame::Text("x".repeat(600 * 1024).into());
    bobs.outbox.push(filler());
    table.learn(online(10, 0), start);
    table.tell_due(start + TICK);
    assert_eq!(bobs.outbox.queued().len(), 1, "only what filled it");
    table.tell_due(start + TICK * 2);
    assert_eq!(received(&bobs), ["online"]);
    assert!(!bobs.outbox.is_closing());
    table.tell_due(start + TICK * 3);
    assert_eq!((received(&bobs).len(), table.next_due()), (0, None));
}

#[test]
fn who_is_listed_nowhere_is_gone_once_the_time_is_noted_or_at_the_second_look() {
    let (bobs, start) = (socket(1, BOB), Instant::now());
    let mut table = watched(&bobs, start);
    table.learn(online(10, 0), start);
    let at = |millis| Some(Timestamp::from_millis(millis));
    assert!(table.is_gone(ANN, at(12)));
    assert!(!table.is_gone(ANN, at(9)), "of an earlier time");
    table.learn(online(20, 0), start + TICK);
    assert!(!table.is_gone(ANN, None), "seen in between");
    assert!(table.is_gone(ANN, None));
    assert!(!table.is_gone(BOB, None), "nobody watches him");
}
