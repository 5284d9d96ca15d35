//! Sessions: rotation, repetition, theft, revocation.

use rookery::clock::new_id;
use rookery::store::{JournalPosition, JournalRow, NewSession, RotateSession, Rotation, TokenHash};
use rookery_protocol::{SessionId, Timestamp, UserId};

use crate::fixture::{Fixture, NOW, contract};

const GRACE_MS: i64 = 20_000;
const EXPIRES_AT: Timestamp = NOW.plus_millis(1_000_000);

/// The token that is number `n` of its family.
fn token(n: u8) -> TokenHash {
    [n; 32]
}

fn session(user_id: UserId, created_at: Timestamp) -> NewSession {
    NewSession {
        session_id: SessionId::from_uuid(new_id()),
        user_id,
        token_hash: token(1),
        device_name: Some("a phone".to_owned()),
        ip: Some("192.0.2.1".to_owned()),
        user_agent: None,
        created_at,
        expires_at: EXPIRES_AT,
    }
}

async fn log_in(fixture: &Fixture, user_id: UserId, created_at: Timestamp) -> SessionId {
    let session = session(user_id, created_at);
    fixture.store.open_session(&session).await.unwrap();
    session.session_id
}

fn exchange(session_id: SessionId, presented: u8, successor: u8, now: Timestamp) -> RotateSession {
    RotateSession {
        session_id,
        presented: token(presented),
        successor: token(successor),
        now,
        expires_at: EXPIRES_AT,
        grace_ms: GRACE_MS,
    }
}

impl Fixture {
    async fn rotate(&self, session: SessionId, presented: u8, successor: u8) -> Rotation {
        self.rotate_at(session, presented, successor, NOW).await
    }

    async fn rotate_at(&self, session: SessionId, old: u8, new: u8, now: Timestamp) -> Rotation {
        self.store
            .rotate_session(&exchange(session, old, new, now))
            .await
            .unwrap()
    }

    async fn revocations(&self) -> Vec<(UserId, Vec<SessionId>)> {
        let page = self.journal(&JournalPosition::default()).await;
        let revoked = page.rows.into_iter().filter_map(|row| match row {
            JournalRow::Revoked {
                user_id,
                session_ids,
            } => Some((user_id, session_ids)),
            _ => None,
        });
        revoked.collect()
    }
}

contract! {
    async fn a_login_is_noted_at_its_user_alone(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        fixture.user("bob").await;
        log_in(&fixture, alice, NOW).await;
        let later = NOW.plus_millis(5);
        log_in(&fixture, alice, later).await;
        let noted = fixture.number("select count(*) from users where last_login_at is not null");
        assert_eq!(noted.await, 1);
        let last = fixture.number("select max(last_login_at) from users");
        assert_eq!(last.await, later.as_millis());
    }

    async fn a_login_that_cannot_be_noted_has_no_session(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let refuse = if fixture.options.is_postgres() {
            "alter table users add check (last_login_at is null)"
        } else {
            "create trigger refused before update of last_login_at on users \
             begin select raise(abort, 'no'); end"
        };
        fixture.sql(refuse).await;
        let session = session(alice, NOW);
        assert!(fixture.store.open_session(&session).await.is_err());
        assert_eq!(fixture.number("select count(*) from sessions").await, 0);
    }

    async fn each_token_is_good_once(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let session = log_in(&fixture, alice, NOW).await;
        for n in 1..5 {
            match fixture.rotate(session, n, n + 1).await {
                Rotation::Rotated(user) => assert_eq!(user.user_id, alice),
                other => panic!("{other:?}"),
            }
        }
        assert!(fixture.revocations().await.is_empty());
    }

    async fn a_lost_answer_may_be_asked_for_again(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let session = log_in(&fixture, alice, NOW).await;
        assert!(matches!(fixture.rotate(session, 1, 2).await, Rotation::Rotated(_)));
        // The answer with 2 was lost: 1 comes again and gets 3; then 3 is current.
        let late = NOW.plus_millis(GRACE_MS);
        assert!(matches!(fixture.rotate_at(session, 1, 3, late).await, Rotation::Rotated(_)));
        assert!(matches!(fixture.rotate(session, 3, 4).await, Rotation::Rotated(_)));
        // 1 is not the predecessor any more.
        match fixture.rotate(session, 1, 5).await {
            Rotation::Reused(user) => assert_eq!(user, alice),
            other => panic!("{other:?}"),
        }
    }

    async fn an_old_token_ends_the_family_and_the_journal_says_so(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let session = log_in(&fixture, alice, NOW).await;
        assert!(matches!(fixture.rotate(session, 1, 2).await, Rotation::Rotated(_)));
        let too_late = NOW.plus_millis(GRACE_MS + 1);
        assert!(matches!(fixture.rotate_at(session, 1, 3, too_late).await, Rotation::Reused(_)));
        assert!(matches!(fixture.rotate(session, 2, 4).await, Rotation::Refused));
        assert_eq!(fixture.revocations().await, [(alice, vec![session])]);
        assert_eq!(fixture.store.revoked_since(too_late).await.unwrap(), [session]);
    }

    async fn nobody_unwelcome_gets_a_token(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let (hers, his) =
            (log_in(&fixture, alice, NOW).await, log_in(&fixture, bob, NOW).await);
        let unknown = SessionId::from_uuid(new_id());
        assert!(matches!(fixture.rotate(unknown, 1, 2).await, Rotation::Refused));
        assert!(matches!(fixture.rotate_at(hers, 1, 2, EXPIRES_AT).await, Rotation::Refused));
        fixture.sql("update users set banned_at = 1 where username = 'alice'").await;
        fixture.sql("update users set deleted_at = 1 where username = 'bob'").await;
        assert!(matches!(fixture.rotate(hers, 1, 2).await, Rotation::Refused));
        assert!(matches!(fixture.rotate(his, 1, 2).await, Rotation::Refused));
        fixture.sql("update users set banned_at = null, deleted_at = null").await;
        assert!(matches!(fixture.rotate(hers, 1, 2).await, Rotation::Rotated(_)));
    }

    /// Without grace, of two nodes that are shown the same token one exchanges it, and the other
    /// ends the family: never do both exchange it.
    async fn two_nodes_cannot_exchange_the_same_token(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let nodes = [fixture.another_node().await, fixture.another_node().await];
        for _ in 0..10 {
            let session = log_in(&fixture, alice, NOW).await;
            let request = |new| RotateSession { grace_ms: -1, ..exchange(session, 1, new, NOW) };
            let (one, other) = (request(2), request(3));
            let (one, other) =
                tokio::join!(nodes[0].rotate_session(&one), nodes[1].rotate_session(&other));
            let outcomes = [one.unwrap(), other.unwrap()];
            let exchanged = outcomes.iter().filter(|o| matches!(o, Rotation::Rotated(_))).count();
            let reused = outcomes.iter().filter(|o| matches!(o, Rotation::Reused(_))).count();
            assert_eq!((exchanged, reused), (1, 1), "{outcomes:?}");
        }
    }

    async fn sessions_are_listed_while_they_live(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let old = log_in(&fixture, alice, NOW).await;
        let new = log_in(&fixture, alice, NOW.plus_millis(5)).await;
        let ended = log_in(&fixture, alice, NOW).await;
        log_in(&fixture, bob, NOW).await;
        assert!(fixture.store.revoke_session(alice, ended, NOW).await.unwrap());
        let listed = fixture.store.sessions_of(alice, NOW).await.unwrap();
        assert_eq!(listed.iter().map(|session| session.session_id).collect::<Vec<_>>(), [new, old]);
        assert_eq!(listed[1].device_name.as_deref(), Some("a phone"));
        assert_eq!(listed[1].ip.as_deref(), Some("192.0.2.1"));
        assert_eq!(listed[1].user_agent, None);
        assert_eq!((listed[1].created_at, listed[1].last_used_at), (NOW, NOW));
        assert_eq!(listed[1].expires_at, EXPIRES_AT);
        assert!(fixture.store.sessions_of(alice, EXPIRES_AT).await.unwrap().is_empty());
    }

    async fn revoking_ends_ones_own_sessions_once(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let first = log_in(&fixture, alice, NOW).await;
        let second = log_in(&fixture, alice, NOW).await;
        let third = log_in(&fixture, alice, NOW).await;
        let his = log_in(&fixture, bob, NOW).await;
        assert!(!fixture.store.revoke_session(bob, first, NOW).await.unwrap());
        assert!(fixture.store.revoke_session(alice, first, NOW).await.unwrap());
        assert!(!fixture.store.revoke_session(alice, first, NOW).await.unwrap());
        assert!(matches!(fixture.rotate(first, 1, 2).await, Rotation::Refused));
        let later = NOW.plus_millis(1);
        let mut ended = fixture.store.revoke_sessions_of(alice, later).await.unwrap();
        ended.sort();
        let mut both = vec![second, third];
        both.sort();
        assert_eq!(ended, both);
        assert!(fixture.store.revoke_sessions_of(alice, later).await.unwrap().is_empty());
        assert!(matches!(fixture.rotate(his, 1, 2).await, Rotation::Rotated(_)));
        assert_eq!(fixture.store.revoked_since(NOW).await.unwrap().len(), 3);
        assert_eq!(fixture.store.revoked_since(later).await.unwrap().len(), 2);
        let told = fixture.revocations().await;
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], (alice, vec![first]));
        assert_eq!(told[1].1.len(), 2);
    }
}
