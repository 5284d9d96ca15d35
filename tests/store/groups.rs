//! Making and changing groups.

use rookery::clock::new_id;
use rookery::store::{GroupAction, GroupChange, GroupState, JournalPosition, JournalRow, Refusal};
use rookery_protocol::conversation::{ConversationKind, MemberRole};
use rookery_protocol::message::{MessageKind, SystemNotice};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};

use crate::fixture::{
    Fixture, NOW, contract, members_may, message, new_group, new_user, refusal, seqs,
};

impl Fixture {
    async fn role(&self, group: ConversationId, user: UserId) -> MemberRole {
        self.store
            .membership(user, group)
            .await
            .unwrap()
            .unwrap()
            .role
    }

    /// Who came or went, by the journal, change by change.
    async fn moves(&self, group: ConversationId) -> Vec<Vec<UserId>> {
        let page = self.journal(&JournalPosition::default()).await;
        let moves = page.rows.into_iter().filter_map(|row| match row {
            JournalRow::Members {
                conversation_id,
                user_ids,
            } if conversation_id == group => Some(user_ids),
            _ => None,
        });
        moves.collect()
    }
}

fn sorted(mut ids: Vec<UserId>) -> Vec<UserId> {
    ids.sort();
    ids
}

contract! {
    async fn a_group_starts_with_its_first_entry(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = new_group(alice, &[bob]);
        let id = group.conversation_id;
        let made = fixture.store.create_group(&group, NOW).await.unwrap().unwrap();
        let entry = made.entry.unwrap();
        assert_eq!((entry.seq, entry.kind, entry.sender_id), (Seq(1), MessageKind::System, alice));
        assert_eq!((entry.message_id, entry.content.as_str()), (group.message_id, "made the group"));
        assert_eq!(entry.metadata.as_ref().unwrap()["event"], "group_created");
        assert_eq!(fixture.log(id).await, [entry]);
        assert_eq!(sorted(made.members.user_ids), sorted(vec![alice, bob]));
        assert_eq!(fixture.member_list(id).await.version, made.members.version);
        assert_eq!(fixture.role(id, alice).await, MemberRole::Owner);
        assert_eq!(fixture.role(id, bob).await, MemberRole::Member);
        assert_eq!(fixture.moves(id).await.len(), 1);
    }

    async fn making_a_group_can_be_repeated_by_its_creator(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = new_group(alice, &[bob]);
        fixture.store.create_group(&group, NOW).await.unwrap().unwrap();
        let again = fixture.store.create_group(&group, NOW).await.unwrap().unwrap();
        assert!(again.entry.is_none());
        assert_eq!(again.members.user_ids.len(), 2);
        assert_eq!(fixture.log(group.conversation_id).await.len(), 1);

        let mut theft = new_group(bob, &[]);
        theft.conversation_id = group.conversation_id;
        let refused = fixture.store.create_group(&theft, NOW).await.unwrap().unwrap_err();
        assert!(matches!(refused, Refusal::Conflict(_)));
        theft.conversation_id = fixture.direct(alice, bob).await;
        let refused = fixture.store.create_group(&theft, NOW).await.unwrap().unwrap_err();
        assert!(matches!(refused, Refusal::Conflict(_)));
    }

    async fn of_many_who_make_the_same_group_at_once_one_does(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = new_group(alice, &[]);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (node, group) = (fixture.another_node().await, group.clone());
            tasks.spawn(async move { node.create_group(&group, NOW).await.unwrap().unwrap() });
        }
        let made = tasks.join_all().await;
        assert_eq!(made.iter().filter(|made| made.entry.is_some()).count(), 1);
        assert_eq!(fixture.log(group.conversation_id).await.len(), 1);
    }

    async fn a_group_of_nobody_is_refused(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let group = new_group(alice, &[new_user("nobody").user_id]);
        let refused = fixture.store.create_group(&group, NOW).await.unwrap().unwrap_err();
        assert!(matches!(refused, Refusal::Invalid { field: "member_ids", .. }));
        assert_eq!(fixture.number("select count(*) from conversations").await, 0);
    }

    async fn members_come_and_go_with_the_log(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let group = fixture.group(alice, &[]).await;
        let first = fixture.member_list(group).await.version;

        let add = GroupAction::AddMembers { user_ids: vec![bob, carol] };
        let added = fixture.change(group, alice, add).await.unwrap().unwrap();
        assert_eq!((added.entry.seq, added.entry.kind), (Seq(2), MessageKind::System));
        assert_eq!(added.entry.metadata.as_ref().unwrap()["event"], "members_added");
        assert!(matches!(added.notice, SystemNotice::MembersAdded { .. }));
        assert_eq!(added.members.user_ids.len(), 3);
        assert!(added.members.version > first);
        assert!(added.removed.is_empty());

        let remove = GroupAction::RemoveMember { user_id: bob };
        let removed = fixture.change(group, alice, remove).await.unwrap().unwrap();
        assert_eq!((removed.entry.seq, removed.removed), (Seq(3), vec![bob]));
        assert_eq!(sorted(removed.members.user_ids), sorted(vec![alice, carol]));
        assert!(removed.members.version > added.members.version);
        assert_eq!(fixture.member_list(group).await.version, removed.members.version);
        let outcome = fixture.append(&[message(group, bob, "still here?")]).await;
        assert_eq!(refusal(&outcome[0]), &Refusal::NotFound);

        // A former member starts anew.
        let add = GroupAction::AddMembers { user_ids: vec![bob] };
        let again = fixture.change(group, alice, add).await.unwrap().unwrap();
        let membership = fixture.store.membership(bob, group).await.unwrap().unwrap();
        assert_eq!((membership.joined_seq, membership.left_seq), (Seq(3), None));
        assert_eq!((membership.delivered_seq, membership.read_seq), (Seq(3), Seq(3)));
        assert_eq!(again.members.user_ids.len(), 3);
        assert_eq!(fixture.send(group, bob, "back").await.member_version, again.members.version);
        let seen = fixture.store.conversation(bob, group).await.unwrap().unwrap();
        assert_eq!(seen.member_count, 3);
        let moves = fixture.moves(group).await;
        let moves: Vec<_> = moves.into_iter().skip(1).map(sorted).collect();
        assert_eq!(moves, [sorted(vec![bob, carol]), vec![bob], vec![bob]]);
        assert_eq!(seqs(&fixture.log(group).await), [1, 2, 3, 4, 5]);
    }

    async fn a_role_change_makes_a_new_list_and_a_new_title_does_not(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[bob]).await;
        let before = fixture.member_list(group).await.version;
        let update = GroupAction::Update {
            title: Some(None),
            description: Some(Some("About rooks".to_owned())),
        };
        let updated = fixture.change(group, alice, update).await.unwrap().unwrap();
        assert_eq!(updated.members.version, before);
        let only_title = GroupAction::Update { title: Some(Some("Crows".to_owned())), description: None };
        fixture.change(group, alice, only_title).await.unwrap().unwrap();
        let seen = fixture.store.conversation(bob, group).await.unwrap().unwrap();
        assert_eq!(seen.title.as_deref(), Some("Crows"));
        assert_eq!(seen.description.as_deref(), Some("About rooks"));

        let promote = GroupAction::ChangeRole { user_id: bob, role: MemberRole::Admin };
        let promoted = fixture.change(group, alice, promote).await.unwrap().unwrap();
        assert!(promoted.members.version > before);
        assert_eq!(fixture.role(group, bob).await, MemberRole::Admin);
        assert_eq!(fixture.role(group, alice).await, MemberRole::Owner);
        assert_eq!(fixture.moves(group).await.len(), 1, "nobody came or went since the start");
    }

    async fn deleting_a_group_ends_it_for_all(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[bob]).await;
        let other = fixture.group(alice, &[bob]).await;
        let ended = fixture.change(group, alice, GroupAction::Delete).await.unwrap().unwrap();
        assert_eq!(sorted(ended.removed), sorted(vec![alice, bob]));
        assert!(ended.members.user_ids.is_empty());
        let membership = fixture.store.membership(bob, group).await.unwrap().unwrap();
        assert_eq!(membership.left_seq, Some(ended.entry.seq));
        assert!(fixture.store.conversation(alice, group).await.unwrap().is_none());
        let outcome = fixture.append(&[message(group, alice, "anybody?")]).await;
        assert_eq!(refusal(&outcome[0]), &Refusal::NotFound);
        let change = fixture.change(group, alice, GroupAction::Delete).await;
        assert_eq!(change.unwrap_err(), Refusal::NotFound);
        assert_eq!(fixture.member_list(other).await.user_ids.len(), 2);
    }

    /// The rule sees what is, and what it refuses leaves no trace.
    async fn the_rule_decides_on_the_state_behind_the_lock(fixture: Fixture) {
        fn inspect(
            state: &GroupState,
            _: &GroupChange,
        ) -> Result<Option<(SystemNotice, String)>, Refusal> {
            assert_eq!(state.kind, ConversationKind::Group);
            assert_eq!(state.title.as_deref(), Some("Rooks"));
            assert_eq!(state.description, None);
            assert_eq!((state.member_count, state.owner_count), (3, 1));
            let actor = state.actor.as_ref().unwrap();
            assert_eq!((actor.username.as_str(), actor.role), ("bob", MemberRole::Member));
            let named: Vec<&str> = state.named.iter().map(|named| named.username.as_str()).collect();
            assert_eq!(named, ["carol"]);
            let mut strangers: Vec<&str> =
                state.strangers.iter().map(|(_, username)| username.as_str()).collect();
            strangers.sort_unstable();
            assert_eq!(strangers, ["dave", "erin"]);
            Err(Refusal::Forbidden("just looking"))
        }
        let mut people = Vec::new();
        for name in ["alice", "bob", "carol", "dave", "erin", "deleted"] {
            people.push(fixture.user(name).await);
        }
        fixture.sql("update users set deleted_at = 1 where username = 'deleted'").await;
        let group = fixture.group(people[0], &people[1..4]).await;
        let remove = GroupAction::RemoveMember { user_id: people[3] };
        fixture.change(group, people[0], remove).await.unwrap();
        let (log, version) = (fixture.log(group).await, fixture.member_list(group).await.version);

        let mut user_ids = people[2..].to_vec();
        user_ids.push(new_user("nobody").user_id);
        let change = GroupChange {
            conversation_id: group,
            actor: people[1],
            message_id: MessageId::from_uuid(new_id()),
            action: GroupAction::AddMembers { user_ids },
            direct_max: 16,
        };
        let refused = fixture.store.change_group(&change, inspect, NOW).await.unwrap();
        assert_eq!(refused.unwrap_err(), Refusal::Forbidden("just looking"));
        let idle = fixture.store.change_group(&change, |_, _| Ok(None), NOW).await.unwrap();
        assert!(idle.unwrap().is_none());
        let nowhere =
            GroupChange { conversation_id: ConversationId::from_uuid(new_id()), ..change };
        let refused = fixture.store.change_group(&nowhere, members_may, NOW).await.unwrap();
        assert_eq!(refused.unwrap_err(), Refusal::NotFound);
        assert_eq!(fixture.log(group).await, log);
        assert_eq!(fixture.member_list(group).await.version, version);
    }

    async fn a_thousand_members_are_added_at_once(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let mut people = Vec::new();
        for number in 0..1_000 {
            people.push(new_user(&format!("user{number}")));
        }
        for user in &people {
            fixture.store.insert_user(user).await.unwrap().unwrap();
        }
        let ids: Vec<UserId> = people.iter().map(|user| user.user_id).collect();
        let group = fixture.group(alice, &ids[..500]).await;
        let add = GroupAction::AddMembers { user_ids: ids.clone() };
        let changed = fixture.change(group, alice, add).await.unwrap().unwrap();
        assert_eq!(changed.members.user_ids.len(), 1_001);
        let SystemNotice::MembersAdded { user_ids } = changed.notice else { panic!("no addition") };
        assert_eq!(sorted(user_ids), sorted(ids[500..].to_vec()));
        let seen = fixture.store.conversation(alice, group).await.unwrap().unwrap();
        assert_eq!(seen.member_count, 1_001);
        let veteran = fixture.store.membership(ids[0], group).await.unwrap().unwrap();
        assert_eq!(veteran.joined_seq, Seq(0));
    }
}
