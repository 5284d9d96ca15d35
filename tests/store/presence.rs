//! How users want to appear, when they were seen last, and who may know.

use rookery::store::GroupAction;
use rookery_protocol::UserId;
use rookery_protocol::user::ChosenStatus;

use crate::fixture::{Fixture, NOW, contract, new_user};

async fn sharing(fixture: &Fixture, viewer: UserId, users: &[UserId]) -> Vec<UserId> {
    let shared = fixture.store.shares_conversation_with(viewer, users).await;
    let mut shared = shared.unwrap();
    shared.sort_unstable();
    shared
}

async fn acquaintances(fixture: &Fixture, viewer: UserId) -> Vec<UserId> {
    fixture
        .store
        .acquaintances(viewer, None, 100)
        .await
        .unwrap()
}

contract! {
    async fn the_second_of_two_choices_is_the_later_one(fixture: Fixture) {
        let ann = fixture.user("ann").await;
        let chosen = fixture.store.user(ann).await.unwrap().unwrap().chosen;
        assert_eq!((chosen.status, chosen.at.as_millis()), (ChosenStatus::Online, 0));
        let first = fixture.store.choose_status(ann, ChosenStatus::Away, NOW).await.unwrap().unwrap();
        assert_eq!((first.status, first.at), (ChosenStatus::Away, NOW));
        // From a node whose clock is behind.
        let past = NOW.plus_millis(-5_000);
        let second = fixture.store.choose_status(ann, ChosenStatus::Invisible, past).await.unwrap().unwrap();
        assert!(second.at > first.at);
        assert_eq!(fixture.store.users(&[ann]).await.unwrap()[0].chosen, second);
        let nobody = new_user("nobody").user_id;
        assert_eq!(fixture.store.choose_status(nobody, ChosenStatus::Dnd, NOW).await.unwrap(), None);
    }

    async fn when_a_user_was_seen_last_only_grows(fixture: Fixture) {
        let (ann, bob) = (fixture.user("ann").await, fixture.user("bob").await);
        let seen = async |user| fixture.store.user(user).await.unwrap().unwrap().last_seen_at;
        let nobody = new_user("nobody").user_id;
        fixture.store.note_last_seen(&[(ann, NOW), (bob, NOW), (nobody, NOW)]).await.unwrap();
        let (earlier, later) = (NOW.plus_millis(-1), NOW.plus_millis(1));
        fixture.store.note_last_seen(&[(ann, earlier), (bob, later)]).await.unwrap();
        fixture.store.note_last_seen(&[]).await.unwrap();
        assert_eq!((seen(ann).await, seen(bob).await), (Some(NOW), Some(later)));
    }

    async fn only_present_members_of_a_common_conversation_know_each_other(fixture: Fixture) {
        let ann = fixture.user("ann").await;
        let bob = fixture.user("bob").await;
        let carol = fixture.user("carol").await;
        let dave = fixture.user("dave").await;
        let all = [ann, bob, carol, dave];
        assert_eq!(sharing(&fixture, ann, &all).await, []);
        assert_eq!(acquaintances(&fixture, ann).await, []);
        fixture.direct(ann, bob).await;
        let room = fixture.group(bob, &[ann, carol]).await;
        assert_eq!(sharing(&fixture, ann, &all).await, [ann, bob, carol]);
        assert_eq!(sharing(&fixture, ann, &[]).await, []);
        assert_eq!(acquaintances(&fixture, ann).await, [bob, carol]);
        assert_eq!(acquaintances(&fixture, dave).await, []);
        let leave = GroupAction::RemoveMember { user_id: carol };
        fixture.change(room, carol, leave).await.unwrap();
        assert_eq!(sharing(&fixture, ann, &all).await, [ann, bob]);
        assert_eq!(sharing(&fixture, carol, &all).await, []);
        assert_eq!(acquaintances(&fixture, ann).await, [bob]);
        assert_eq!(acquaintances(&fixture, carol).await, []);
    }

    async fn acquaintances_are_paged_by_id_and_named_once(fixture: Fixture) {
        let ann = fixture.user("ann").await;
        let mut others = Vec::new();
        for number in 0..9 {
            others.push(fixture.user(&format!("user{number}")).await);
        }
        others.sort_unstable();
        fixture.group(ann, &others[..6]).await;
        fixture.group(others[8], &[&[ann], &others[3..8]].concat()).await;
        let mut found: Vec<UserId> = Vec::new();
        loop {
            let page = fixture.store.acquaintances(ann, found.last().copied(), 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, others);
    }
}
