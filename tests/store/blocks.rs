//! Blocks: who may write to whom, whatever comes first.

use rookery::clock::new_id;
use rookery::store::{
    MessageAction, MessageChange, MessageState, NewMessage, Refusal, Store, Wait,
};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, NOW, contract, message, refusal, stored};

impl Fixture {
    async fn block(&self, user: UserId, other: UserId, blocked: bool) -> Option<bool> {
        let set = self.store.set_block(user, other, blocked, NOW).await;
        set.unwrap()
    }

    /// Whether a send is stored; it can only be refused as forbidden.
    async fn may_write(&self, id: ConversationId, sender: UserId) -> bool {
        let outcome = &self.append(&[message(id, sender, "hi")]).await[0];
        match outcome {
            rookery::store::Outcome::Stored(_) => true,
            other => {
                assert!(matches!(refusal(other), Refusal::Forbidden(_)), "{other:?}");
                false
            }
        }
    }

    /// What a rule is told of a member.
    async fn is_blocked(&self, id: ConversationId, actor: UserId) -> bool {
        fn tell(state: &MessageState, _: &MessageChange) -> Result<bool, Refusal> {
            let blocked = state.actor.is_some_and(|actor| actor.is_blocked);
            Err(if blocked {
                Refusal::Forbidden("blocked")
            } else {
                Refusal::NotFound
            })
        }
        let change = MessageChange {
            conversation_id: id,
            seq: Seq(1),
            actor,
            message_id: MessageId::from_uuid(new_id()),
            action: MessageAction::Delete,
        };
        let told = self.store.change_message(&change, tell, NOW).await.unwrap();
        told.unwrap_err() != Refusal::NotFound
    }
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

contract! {
    async fn who_is_blocked_writes_no_more_until_it_ends(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let group = fixture.group(alice, &[bob]).await;
        let early = message(direct, bob, "early");
        fixture.append(std::slice::from_ref(&early)).await;
        assert_eq!(fixture.block(alice, bob, true).await, Some(true));
        assert_eq!(fixture.block(alice, bob, true).await, Some(false), "a repeat");
        assert!(!fixture.may_write(direct, bob).await);
        assert!(fixture.may_write(direct, alice).await, "the one who blocks may");
        assert!(fixture.may_write(group, bob).await, "groups stay as they are");
        assert!(fixture.is_blocked(direct, bob).await);
        assert!(!fixture.is_blocked(direct, alice).await);
        assert!(stored(&fixture.append(&[early]).await[0]).duplicate, "what was stored is acked");
        let known = fixture.store.ensure_direct(bob, alice, NOW).await.unwrap().unwrap();
        assert!(!known.created, "it is there as before");

        assert_eq!(fixture.block(alice, bob, false).await, Some(true));
        assert_eq!(fixture.block(alice, bob, false).await, Some(false));
        assert!(fixture.may_write(direct, bob).await);
        assert!(!fixture.is_blocked(direct, bob).await);
        let nobody = UserId::from_uuid(new_id());
        assert_eq!(fixture.block(alice, nobody, true).await, None);
        assert_eq!(fixture.block(alice, nobody, false).await, None);
    }

    async fn both_may_block_each_other(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        fixture.block(alice, bob, true).await;
        fixture.block(bob, alice, true).await;
        assert!(!fixture.may_write(direct, alice).await);
        assert!(!fixture.may_write(direct, bob).await);
        fixture.block(alice, bob, false).await;
        assert!(!fixture.may_write(direct, alice).await);
        assert!(fixture.may_write(direct, bob).await);
    }

    async fn a_new_conversation_heeds_earlier_blocks(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        fixture.block(alice, bob, true).await;
        assert!(fixture.store.ensure_direct(bob, alice, NOW).await.unwrap().is_none());
        let direct = fixture.direct(alice, bob).await;
        assert!(!fixture.may_write(direct, bob).await);
        assert!(fixture.may_write(direct, alice).await);
        let carol = fixture.user("carol").await;
        fixture.block(alice, carol, true).await;
        fixture.block(carol, alice, true).await;
        assert!(fixture.store.ensure_direct(alice, carol, NOW).await.unwrap().is_none());
        assert!(fixture.store.ensure_direct(carol, alice, NOW).await.unwrap().is_none());
    }

    /// Whichever comes first: afterwards the blocked one cannot write.
    async fn a_block_and_a_first_message_may_meet(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        for number in 0..12 {
            let bob = fixture.user(&format!("bob{number}")).await;
            let (one, other) = (fixture.another_node().await, fixture.another_node().await);
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                one.set_block(alice, bob, true, NOW).await.unwrap();
            });
            tasks.spawn(async move {
                if number % 2 == 0 {
                    other.ensure_direct(alice, bob, NOW).await.unwrap();
                } else if let Some(made) = other.ensure_direct(bob, alice, NOW).await.unwrap() {
                    let send = message(made.conversation_id, bob, "quick");
                    other.append(&[send], Wait::Yes, NOW).await.unwrap();
                }
            });
            tasks.join_all().await;
            if let Some(direct) = fixture.store.ensure_direct(alice, bob, NOW).await.unwrap() {
                assert!(!fixture.may_write(direct.conversation_id, bob).await, "{number}");
            }
        }
    }

    async fn blocks_are_listed_in_pages_and_asked_for_by_those_who_look(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let mut others = Vec::new();
        for number in 0..5 {
            let other = fixture.user(&format!("user{number}")).await;
            others.push(other);
            fixture.block(alice, other, true).await;
        }
        others.sort();
        let store: &dyn Store = fixture.store.as_ref();
        assert_eq!(store.blocks_of(alice, None, 9).await.unwrap(), others);
        assert_eq!(store.blocks_of(alice, None, 2).await.unwrap(), others[..2]);
        assert_eq!(store.blocks_of(alice, Some(others[1]), 2).await.unwrap(), others[2..4]);
        assert!(store.blocks_of(others[0], None, 9).await.unwrap().is_empty());

        fixture.block(others[1], others[0], true).await;
        let among = [alice, others[1], others[2]];
        let blockers = store.blockers_among(others[0], &among).await.unwrap();
        assert_eq!(sorted(blockers), sorted(vec![alice, others[1]]));
        assert!(store.blockers_among(alice, &among).await.unwrap().is_empty());
        assert!(store.blockers_among(others[0], &[]).await.unwrap().is_empty());
        let blocks = store.blocks_among(&among, &[others[0], others[1]]).await.unwrap();
        let expected = [(alice, others[0]), (alice, others[1]), (others[1], others[0])];
        assert_eq!(sorted(blocks), sorted(expected.to_vec()));
        assert!(store.blocks_among(&among, &[alice]).await.unwrap().is_empty());
        assert!(store.blocks_among(&[], &among).await.unwrap().is_empty());
    }
}

/// A reply within a batch of somebody who is blocked changes nothing for the others in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_sender_spoils_no_batch() {
    for fixture in [Fixture::postgres().await, Fixture::sqlite().await] {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        fixture.block(alice, bob, true).await;
        let reply = NewMessage {
            reply_to: Some(Seq(1)),
            ..message(direct, alice, "to myself")
        };
        let batch = [
            message(direct, alice, "one"),
            message(direct, bob, "two"),
            reply,
        ];
        let outcomes = fixture.append(&batch).await;
        assert_eq!(stored(&outcomes[0]).seq, Seq(1));
        assert!(matches!(refusal(&outcomes[1]), Refusal::Forbidden(_)));
        assert_eq!(stored(&outcomes[2]).seq, Seq(2));
    }
}
