//! Many writers on several nodes at once: one order, without holes, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use rookery::clock::new_id;
use rookery::store::{
    GroupAction, GroupChange, MarkKind, MarkRaise, NewMessage, Outcome, Refusal, Store, Wait,
};
use rookery_protocol::message::MessageKind;
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use rookery_test_support::eventually;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

use crate::fixture::{NOW, contract, members_may, message, refusal, seqs, stored};

/// Appends like the group commit does: what is held is waited for in a transaction of its own.
async fn append(store: &dyn Store, batch: &[NewMessage]) -> Vec<Outcome> {
    let mut outcomes = store.append(batch, Wait::No, NOW).await.unwrap();
    for (place, outcome) in outcomes.iter_mut().enumerate() {
        if matches!(outcome, Outcome::Held) {
            let alone = std::slice::from_ref(&batch[place]);
            *outcome = store.append(alone, Wait::Yes, NOW).await.unwrap().remove(0);
        }
    }
    outcomes
}

/// Reads a log as it grows, until `done` and nothing is left; fails at the first hole.
async fn follow(
    store: Arc<dyn Store>,
    id: ConversationId,
    done: watch::Receiver<bool>,
) -> Vec<i64> {
    let mut seen = Vec::new();
    loop {
        let was_done = *done.borrow();
        let after = Seq(seen.len() as i64);
        let read = store
            .entries(id, after, Seq(i64::MAX), 1_000)
            .await
            .unwrap();
        for entry in &read {
            assert_eq!(entry.seq().0, seen.len() as i64 + 1, "a hole was visible");
            seen.push(entry.seq().0);
        }
        if was_done && read.is_empty() {
            return seen;
        }
    }
}

contract! {
    async fn a_reader_never_sees_a_hole_while_many_write(fixture: Fixture) {
        const NODES: usize = 3;
        const WRITERS: usize = 2;
        const BATCHES: usize = 12;
        let alice = fixture.user("alice").await;
        let mut groups = Vec::new();
        for _ in 0..3 {
            groups.push(fixture.group(alice, &[]).await);
        }
        let (done, is_done) = watch::channel(false);
        let mut readers = JoinSet::new();
        for group in &groups {
            readers.spawn(follow(fixture.another_node().await, *group, is_done.clone()));
        }
        let mut writers = JoinSet::new();
        for _ in 0..NODES {
            let node = fixture.another_node().await;
            for _ in 0..WRITERS {
                let (node, groups) = (node.clone(), groups.clone());
                writers.spawn(async move {
                    for _ in 0..BATCHES {
                        let batch: Vec<NewMessage> =
                            groups.iter().cycle().take(7).map(|id| message(*id, alice, "x")).collect();
                        for outcome in append(node.as_ref(), &batch).await {
                            assert!(!stored(&outcome).duplicate);
                        }
                    }
                });
            }
        }
        writers.join_all().await;
        done.send(true).unwrap();
        let total: usize = readers.join_all().await.iter().map(Vec::len).sum();
        // Each group began with one entry of its own.
        assert_eq!(total, NODES * WRITERS * BATCHES * 7 + groups.len());
    }

    async fn the_same_message_at_once_from_two_nodes_is_stored_once(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let nodes = [fixture.another_node().await, fixture.another_node().await];
        for round in 1..=20 {
            let send = [message(direct, alice, "once")];
            let (one, other) =
                tokio::join!(append(nodes[0].as_ref(), &send), append(nodes[1].as_ref(), &send));
            let (one, other) = (stored(&one[0]), stored(&other[0]));
            assert_eq!((one.seq, other.seq), (Seq(round), Seq(round)));
            assert_ne!(one.duplicate, other.duplicate, "one of them is the first");
        }
        assert_eq!(fixture.log(direct).await.len(), 20);
    }

    async fn the_same_id_at_once_with_other_contents_is_a_conflict_for_one(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let nodes = [fixture.another_node().await, fixture.another_node().await];
        for _ in 0..20 {
            let one = message(direct, alice, "one");
            let other = NewMessage {
                content: "other".to_owned(),
                request_hash: [8; 16],
                ..one.clone()
            };
            let (one, other) = ([one], [other]);
            let (one, other) =
                tokio::join!(append(nodes[0].as_ref(), &one), append(nodes[1].as_ref(), &other));
            let outcomes = [one, other].concat();
            let conflicts = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, Outcome::Refused(Refusal::Conflict(_))));
            assert_eq!(conflicts.count(), 1, "{outcomes:?}");
        }
        assert_eq!(fixture.log(direct).await.len(), 20);
    }

    /// A member is thrown out while it writes as fast as it can.
    async fn nobody_posts_after_the_own_removal(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        for _ in 0..5 {
            let group = fixture.group(alice, &[bob]).await;
            let start = Arc::new(Barrier::new(3));
            let mut writers = JoinSet::new();
            for _ in 0..2 {
                let (node, start) = (fixture.another_node().await, start.clone());
                writers.spawn(async move {
                    start.wait().await;
                    loop {
                        let outcome = append(node.as_ref(), &[message(group, bob, "me!")]).await;
                        if let Outcome::Refused(refusal) = &outcome[0] {
                            assert_eq!(refusal, &Refusal::NotFound);
                            return;
                        }
                    }
                });
            }
            start.wait().await;
            let remove = GroupAction::RemoveMember { user_id: bob };
            let removed = fixture.change(group, alice, remove).await.unwrap().unwrap();
            writers.join_all().await;
            let log = fixture.log(group).await;
            assert_eq!(seqs(&log), (1..=log.len() as i64).collect::<Vec<_>>());
            assert_eq!(log.last().unwrap().seq, removed.entry.seq, "something came after it");
        }
    }

    async fn memberships_and_messages_share_one_order(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let mut people = Vec::new();
        for number in 0..8 {
            people.push(fixture.user(&format!("user{number}")).await);
        }
        let group = fixture.group(alice, &[]).await;
        let mut tasks = JoinSet::new();
        for user in people.clone() {
            let node = fixture.another_node().await;
            tasks.spawn(async move { come_write_go(node.as_ref(), group, alice, user).await });
        }
        tasks.join_all().await;
        let log = fixture.log(group).await;
        assert_eq!(seqs(&log), (1..=1 + 8 * 6).collect::<Vec<_>>());
        let systems = log.iter().filter(|entry| entry.kind == MessageKind::System).count();
        assert_eq!(systems, 1 + 8 * 4);
        let list = fixture.member_list(group).await;
        assert_eq!(list.user_ids, [alice]);
        assert_eq!(list.version, 1 + 8 * 4, "each change makes a version of its own");
        let seen = fixture.store.conversation(alice, group).await.unwrap().unwrap();
        assert_eq!(seen.member_count, 1);
    }

    /// Each waits for locks that the others hold, and they name the conversations in any order.
    async fn batches_that_wait_for_each_other_do_not_deadlock(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let mut groups = Vec::new();
        for _ in 0..8 {
            groups.push(fixture.group(alice, &[]).await);
        }
        let mut tasks = JoinSet::new();
        for number in 0..4 {
            let (node, mut groups) = (fixture.another_node().await, groups.clone());
            groups.rotate_left(number * 2);
            if number % 2 == 1 {
                groups.reverse();
            }
            tasks.spawn(async move {
                for _ in 0..15 {
                    let batch: Vec<NewMessage> =
                        groups.iter().map(|id| message(*id, alice, "x")).collect();
                    let outcomes = node.append(&batch, Wait::Yes, NOW).await.unwrap();
                    assert!(outcomes.iter().all(|outcome| !stored(outcome).duplicate));
                }
            });
        }
        tasks.join_all().await;
        for group in groups {
            assert_eq!(seqs(&fixture.log(group).await), (1..=61).collect::<Vec<_>>());
        }
    }

    async fn marks_raised_by_several_nodes_at_once_do_not_deadlock(fixture: Fixture) {
        const ROUNDS: i64 = 25;
        let alice = fixture.user("alice").await;
        let mut groups = Vec::new();
        for _ in 0..10 {
            let group = fixture.group(alice, &[]).await;
            let batch: Vec<NewMessage> = (0..99).map(|_| message(group, alice, "x")).collect();
            fixture.append(&batch).await;
            groups.push(group);
        }
        let mut tasks = JoinSet::new();
        for number in 0..4 {
            let (node, mut groups) = (fixture.another_node().await, groups.clone());
            if number % 2 == 1 {
                groups.reverse();
            }
            tasks.spawn(async move {
                for round in 0..ROUNDS {
                    let kind = if round % 2 == 0 { MarkKind::Read } else { MarkKind::Delivered };
                    // Whoever comes first: it is further than what was raised before.
                    let seq = Seq(4 * round + number + 1);
                    let mark =
                        |id: &ConversationId| MarkRaise { conversation_id: *id, user_id: alice, kind, seq };
                    let marks: Vec<MarkRaise> = groups.iter().map(mark).collect();
                    node.raise_marks(&marks, NOW).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        for group in groups {
            let membership = fixture.store.membership(alice, group).await.unwrap().unwrap();
            assert_eq!((membership.delivered_seq, membership.read_seq), (Seq(100), Seq(100)));
        }
    }

    /// Callers give up at every moment of an append: what was begun ends, whole or not at all.
    async fn callers_that_give_up_leave_nothing_half_done(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = fixture.group(alice, &[]).await;
        let mut sent = Vec::new();
        for step in 0..60 {
            let batch = [message(group, alice, "a"), message(group, alice, "b")];
            let append = fixture.store.append(&batch, Wait::Yes, NOW);
            let patience = Duration::from_micros(step * 50);
            if tokio::time::timeout(patience, append).await.is_err() {
                sent.extend(batch);
            }
        }
        // Repeats find out which of them were stored, and store the others.
        let outcomes = fixture.append(&sent).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stored(_))));
        let log = fixture.log(group).await;
        assert_eq!(seqs(&log), (1..=1 + 2 * 60).collect::<Vec<_>>());
        for pair in log[1..].chunks(2) {
            let contents = [pair[0].content.as_str(), pair[1].content.as_str()];
            assert_eq!(contents, ["a", "b"], "a batch was split");
        }
        if fixture.options.is_postgres() {
            eventually("no connection is in a transaction", async || {
                let open = "select count(*) from pg_stat_activity where datname = current_database() \
                            and application_name = 'rookery-test' and state <> 'idle'";
                fixture.number(open).await == 0
            })
            .await;
        }
    }
}

/// Joins, writes, is made admin, writes, is made member again, and leaves.
async fn come_write_go(node: &dyn Store, group: ConversationId, alice: UserId, user: UserId) {
    use rookery_protocol::conversation::MemberRole::{Admin, Member};
    let change = async |actor, action| {
        let message_id = MessageId::from_uuid(new_id());
        let change = GroupChange {
            conversation_id: group,
            actor,
            message_id,
            action,
            direct_max: 16,
        };
        node.change_group(&change, members_may, NOW)
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    let write = async || stored(&append(node, &[message(group, user, "hi")]).await[0]);
    let added = change(
        alice,
        GroupAction::AddMembers {
            user_ids: vec![user],
        },
    )
    .await;
    assert!(write().await.seq > added.entry.seq);
    change(
        alice,
        GroupAction::ChangeRole {
            user_id: user,
            role: Admin,
        },
    )
    .await;
    write().await;
    change(
        alice,
        GroupAction::ChangeRole {
            user_id: user,
            role: Member,
        },
    )
    .await;
    let left = change(user, GroupAction::RemoveMember { user_id: user }).await;
    assert_eq!(left.removed, [user]);
    let late = append(node, &[message(group, user, "?")]).await;
    assert_eq!(refusal(&late[0]), &Refusal::NotFound);
}
