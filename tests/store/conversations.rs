//! Direct conversations, memberships, member lists and marks.

use rookery::clock::new_id;
use rookery::store::{
    FanoutMode, GroupAction, JournalPosition, JournalRow, LogEnd, MarkKind, MarkRaise,
};
use rookery_protocol::conversation::{ConversationKind, MemberRole};
use rookery_protocol::{ConversationId, Seq, UserId};

use crate::fixture::{Fixture, NOW, contract, new_user};

impl Fixture {
    async fn mark(
        &self,
        kind: MarkKind,
        conversation_id: ConversationId,
        user_id: UserId,
        seq: i64,
    ) {
        let mark = MarkRaise {
            conversation_id,
            user_id,
            kind,
            seq: Seq(seq),
        };
        self.store.raise_marks(&[mark], NOW).await.unwrap();
    }

    /// (delivered, read)
    async fn marks(&self, conversation_id: ConversationId, user: UserId) -> (i64, i64) {
        let membership = self
            .store
            .membership(user, conversation_id)
            .await
            .unwrap()
            .unwrap();
        (membership.delivered_seq.0, membership.read_seq.0)
    }
}

contract! {
    async fn a_direct_conversation_is_made_once_from_either_side(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let made = fixture.store.ensure_direct(alice, bob, NOW).await.unwrap().unwrap();
        assert!(made.created);
        assert_eq!(made.conversation_id, ConversationId::direct(alice, bob));
        let again = fixture.store.ensure_direct(bob, alice, NOW).await.unwrap().unwrap();
        assert!(!again.created);
        assert_eq!(again.conversation_id, made.conversation_id);
        assert_eq!(fixture.send(made.conversation_id, bob, "hi").await.seq, Seq(1));
        let page = fixture.journal(&JournalPosition::default()).await;
        let told: Vec<_> = page
            .rows
            .iter()
            .filter(|row| matches!(row, JournalRow::Members { conversation_id, user_ids }
                if *conversation_id == made.conversation_id && user_ids.len() == 2))
            .collect();
        assert_eq!(told.len(), 1);
    }

    async fn a_direct_conversation_needs_two_accounts(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let nobody = new_user("nobody").user_id;
        assert!(fixture.store.ensure_direct(alice, nobody, NOW).await.unwrap().is_none());
        assert!(fixture.store.ensure_direct(nobody, alice, NOW).await.unwrap().is_none());
        assert!(fixture.store.ensure_direct(alice, alice, NOW).await.unwrap().is_none());
        fixture.sql("update users set deleted_at = 1 where username = 'bob'").await;
        assert!(fixture.store.ensure_direct(alice, bob, NOW).await.unwrap().is_none());
        assert_eq!(fixture.number("select count(*) from conversations").await, 0);
    }

    async fn of_many_who_make_it_at_once_one_does(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..12 {
            let node = fixture.another_node().await;
            let (one, other) = if number % 2 == 0 { (alice, bob) } else { (bob, alice) };
            tasks.spawn(async move { node.ensure_direct(one, other, NOW).await.unwrap().unwrap() });
        }
        let made = tasks.join_all().await;
        assert_eq!(made.iter().filter(|direct| direct.created).count(), 1);
        let id = made[0].conversation_id;
        assert_eq!(fixture.member_list(id).await.user_ids.len(), 2);
    }

    async fn a_deleted_direct_conversation_comes_back_and_its_log_goes_on(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        fixture.send(direct, alice, "before").await;
        let before = fixture.member_list(direct).await.version;
        fixture.sql("update conversations set deleted_at = 1").await;
        fixture.sql("update members set left_seq = 1").await;
        let made = fixture.store.ensure_direct(bob, alice, NOW).await.unwrap().unwrap();
        assert!(made.created);
        assert_eq!(fixture.send(direct, bob, "after").await.seq, Seq(2));
        let list = fixture.member_list(direct).await;
        assert_eq!(list.user_ids.len(), 2);
        assert!(list.version > before);
        assert!(!fixture.store.ensure_direct(bob, alice, NOW).await.unwrap().unwrap().created);
    }

    async fn a_membership_is_a_window_on_the_log(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let group = fixture.group(alice, &[bob]).await;
        fixture.send(group, alice, "two").await;
        let user_ids = vec![carol];
        fixture.change(group, alice, GroupAction::AddMembers { user_ids }).await.unwrap();
        let leave = GroupAction::RemoveMember { user_id: bob };
        fixture.change(group, bob, leave).await.unwrap();
        fixture.send(group, carol, "five").await;

        let read = async |user| fixture.store.membership(user, group).await.unwrap();
        let owner = read(alice).await.unwrap();
        assert_eq!((owner.conversation_id, owner.user_id), (group, alice));
        assert_eq!((owner.kind, owner.role), (ConversationKind::Group, MemberRole::Owner));
        assert_eq!((owner.joined_seq, owner.visible_from), (Seq(0), Seq(0)));
        assert_eq!((owner.left_seq, owner.last_seq), (None, Seq(5)));
        let late = read(carol).await.unwrap();
        assert_eq!((late.joined_seq, late.visible_from), (Seq(2), Seq(2)));
        assert_eq!((late.delivered_seq, late.read_seq), (Seq(2), Seq(2)));
        let gone = read(bob).await.unwrap();
        assert_eq!((gone.left_seq, gone.visible_to()), (Some(Seq(4)), Seq(4)));
        assert!(!gone.is_present());
        let stranger = fixture.user("dave").await;
        assert!(read(stranger).await.is_none());

        let all = [alice, bob, stranger];
        let present = fixture.store.ends_of(&all).await.unwrap();
        let (conversation_id, last_seq) = (group, Seq(5));
        let fanout = FanoutMode::Direct;
        let end = LogEnd { user_id: alice, conversation_id, last_seq, fanout };
        assert_eq!(present, [end]);
        assert!(fixture.store.ends_of(&[]).await.unwrap().is_empty());
        assert_eq!(fixture.store.memberships_of(&all).await.unwrap().len(), 2);
        assert!(fixture.store.memberships_of(&[]).await.unwrap().is_empty());
        let there = fixture.store.memberships_in(group, &all).await.unwrap();
        assert_eq!(there.len(), 2);
        assert!(there.iter().all(|membership| membership.last_seq == Seq(5)));

        let other = fixture.group(bob, &[]).await;
        let asked = [(group, bob), (other, bob), (other, alice), (group, stranger)];
        let mut found = fixture.store.memberships_at(&asked).await.unwrap();
        found.sort_by_key(|membership| membership.last_seq);
        let places: Vec<_> = found.iter().map(|m| (m.conversation_id, m.user_id)).collect();
        assert_eq!(places, [(other, bob), (group, bob)]);
        assert_eq!((found[0].left_seq, found[1].left_seq), (None, Some(Seq(4))));
        assert!(fixture.store.memberships_at(&[]).await.unwrap().is_empty());
    }

    async fn history_is_visible_from_the_start_where_the_group_says_so(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let mut group = crate::fixture::new_group(alice, &[]);
        group.history_visible = true;
        let id = group.conversation_id;
        fixture.store.create_group(&group, NOW).await.unwrap().unwrap();
        fixture.send(id, alice, "two").await;
        let add = GroupAction::AddMembers { user_ids: vec![bob] };
        fixture.change(id, alice, add).await.unwrap();
        let membership = fixture.store.membership(bob, id).await.unwrap().unwrap();
        assert_eq!((membership.joined_seq, membership.visible_from), (Seq(2), Seq(0)));
        let seen = fixture.store.conversation(bob, id).await.unwrap().unwrap();
        assert_eq!((seen.me.joined_seq, seen.history_visible), (Seq(0), true));
        // What was said before the joining can be read, and is not unread.
        assert_eq!(seen.unread_count, 0);
    }

    async fn members_come_in_pages_and_by_id(fixture: Fixture) {
        let mut people = Vec::new();
        for name in ["alice", "bob", "carol", "dave", "erin"] {
            people.push(fixture.user(name).await);
        }
        fixture.sql("update users set full_name = 'Bob B.' where username = 'bob'").await;
        let group = fixture.group(people[0], &people[1..4]).await;
        let remove = GroupAction::RemoveMember { user_id: people[3] };
        fixture.change(group, people[0], remove).await.unwrap();

        let first = fixture.store.members(group, None, 2).await.unwrap();
        let rest = fixture.store.members(group, Some(first[1].user_id), 2).await.unwrap();
        let mut paged: Vec<UserId> = first.iter().chain(&rest).map(|m| m.user_id).collect();
        assert_eq!(paged.len(), 3);
        assert!(paged.is_sorted());
        paged.sort();
        let mut expected = people[..3].to_vec();
        expected.sort();
        assert_eq!(paged, expected);

        let by_id = fixture.store.members_by_id(group, &[people[1], people[3], people[4]]).await;
        let mut by_id = by_id.unwrap();
        by_id.sort_by(|one, other| one.username.cmp(&other.username));
        let names: Vec<&str> = by_id.iter().map(|member| member.username.as_str()).collect();
        assert_eq!(names, ["bob", "dave"]);
        assert_eq!(by_id[0].full_name.as_deref(), Some("Bob B."));
        assert_eq!((by_id[0].role, by_id[0].joined_at), (MemberRole::Member, NOW));
    }

    async fn member_lists_of_several_conversations_come_at_once(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let (big, small) = (fixture.group(alice, &[bob, carol]).await, fixture.group(bob, &[]).await);
        let ended = fixture.group(alice, &[bob]).await;
        fixture.change(ended, alice, GroupAction::Delete).await.unwrap();
        let unknown = ConversationId::from_uuid(new_id());
        let lists = fixture.store.member_lists(&[big, small, ended, unknown]).await.unwrap();
        assert_eq!(lists.len(), 3);
        for (id, count) in [(big, 3), (small, 1), (ended, 0)] {
            let list = lists.iter().find(|list| list.conversation_id == id).unwrap();
            assert_eq!(list.user_ids.len(), count);
        }
    }

    async fn marks_only_grow_and_only_to_the_end(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        for _ in 0..5 {
            fixture.send(direct, alice, "hi").await;
        }
        fixture.mark(MarkKind::Delivered, direct, bob, 3).await;
        assert_eq!(fixture.marks(direct, bob).await, (3, 0));
        fixture.mark(MarkKind::Delivered, direct, bob, 2).await;
        assert_eq!(fixture.marks(direct, bob).await, (3, 0));
        fixture.mark(MarkKind::Read, direct, bob, 2).await;
        assert_eq!(fixture.marks(direct, bob).await, (3, 2));
        fixture.mark(MarkKind::Read, direct, bob, 4).await;
        assert_eq!(fixture.marks(direct, bob).await, (4, 4));
        fixture.mark(MarkKind::Read, direct, bob, 1).await;
        fixture.mark(MarkKind::Read, direct, bob, 6).await;
        assert_eq!(fixture.marks(direct, bob).await, (4, 4));
        assert_eq!(fixture.marks(direct, alice).await, (0, 0));
        assert_eq!(fixture.number("select count(*) from members where read_at is not null").await, 1);
    }

    async fn many_marks_are_raised_at_once(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let stranger = fixture.user("carol").await;
        let (direct, group) = (fixture.direct(alice, bob).await, fixture.group(alice, &[bob]).await);
        for _ in 0..3 {
            fixture.send(direct, alice, "hi").await;
        }
        let mark = |conversation_id, user_id, kind, seq| {
            MarkRaise { conversation_id, user_id, kind, seq: Seq(seq) }
        };
        let marks = [
            mark(direct, bob, MarkKind::Read, 2),
            mark(direct, bob, MarkKind::Delivered, 3),
            mark(direct, bob, MarkKind::Read, 1),
            mark(direct, alice, MarkKind::Delivered, 1),
            mark(direct, stranger, MarkKind::Read, 1),
            mark(group, bob, MarkKind::Read, 1),
            mark(ConversationId::from_uuid(new_id()), bob, MarkKind::Read, 1),
        ];
        fixture.store.raise_marks(&marks, NOW).await.unwrap();
        fixture.store.raise_marks(&[], NOW).await.unwrap();
        assert_eq!(fixture.marks(direct, bob).await, (3, 2));
        assert_eq!(fixture.marks(direct, alice).await, (1, 0));
        assert_eq!(fixture.marks(group, bob).await, (1, 1));
        assert_eq!(fixture.marks(group, alice).await, (0, 0));
    }

    /// Else a device that is told of its user's removal would be told again at every resume.
    async fn who_left_can_still_confirm_up_to_the_leaving(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[bob]).await;
        let remove = GroupAction::RemoveMember { user_id: bob };
        fixture.change(group, alice, remove).await.unwrap();
        fixture.send(group, alice, "alone").await;
        fixture.mark(MarkKind::Delivered, group, bob, 3).await;
        assert_eq!(fixture.marks(group, bob).await, (0, 0));
        fixture.mark(MarkKind::Delivered, group, bob, 2).await;
        assert_eq!(fixture.marks(group, bob).await, (2, 0));
    }
}
