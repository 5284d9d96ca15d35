//! The list of conversations: order, pages, filters, counts, the last message.

use rookery::clock::new_id;
use rookery::store::{
    ConversationFilter, GroupAction, ListedConversation, MarkKind, MarkRaise, NewMessage, Wait,
};
use rookery_protocol::conversation::{Conversation, ConversationKind, MemberRole};
use rookery_protocol::message::MessageKind;
use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};

use crate::fixture::{Fixture, NOW, contract, message, new_group};

impl Fixture {
    async fn list(&self, user: UserId, filter: ConversationFilter) -> Vec<ListedConversation> {
        self.store.conversations_of(user, &filter).await.unwrap()
    }

    async fn seen(&self, user: UserId, id: ConversationId) -> Conversation {
        self.store
            .conversation(user, id)
            .await
            .unwrap()
            .expect("a member sees it")
    }

    async fn send_at(&self, message: &NewMessage, at: Timestamp) {
        self.store
            .append(std::slice::from_ref(message), Wait::Yes, at)
            .await
            .unwrap();
    }
}

fn limit(limit: i64) -> ConversationFilter {
    ConversationFilter {
        limit,
        ..ConversationFilter::default()
    }
}

fn ids(listed: &[ListedConversation]) -> Vec<ConversationId> {
    listed
        .iter()
        .map(|listed| listed.conversation.conversation_id)
        .collect()
}

contract! {
    async fn many_members_see_what_each_of_them_sees(fixture: Fixture) {
        let [alice, bob, carol, dave] =
            [fixture.user("alice").await, fixture.user("bob").await,
             fixture.user("carol").await, fixture.user("dave").await];
        for visible in [true, false] {
            let mut group = new_group(alice, &[bob]);
            group.history_visible = visible;
            let id = group.conversation_id;
            fixture.store.create_group(&group, NOW).await.unwrap().unwrap();
            for number in 0..8 {
                let mentions = if number % 3 == 0 { vec![bob, carol] } else { vec![] };
                let sender = if number % 2 == 0 { alice } else { bob };
                let message = NewMessage { mentions, ..message(id, sender, "hi") };
                fixture.append(&[message]).await;
            }
            let join = GroupAction::AddMembers { user_ids: vec![carol] };
            fixture.change(id, alice, join).await.unwrap();
            fixture.send(id, alice, "welcome").await;
            let mark = MarkRaise { conversation_id: id, user_id: bob, kind: MarkKind::Read, seq: Seq(4) };
            fixture.store.raise_marks(&[mark], NOW).await.unwrap();
            let everybody = [alice, bob, carol, dave];
            let mut views = fixture.store.conversation_for(id, &everybody).await.unwrap();
            views.sort_by_key(|(user, _)| everybody.iter().position(|other| other == user));
            let members: Vec<UserId> = views.iter().map(|(user, _)| *user).collect();
            assert_eq!(members, [alice, bob, carol], "dave is none");
            for (user, view) in views {
                assert_eq!(view, fixture.seen(user, id).await);
            }
        }
    }

    async fn the_newest_activity_stands_first_and_pages_meet(fixture: Fixture) {
        let alice = fixture.user("alice").await;
        let mut groups = Vec::new();
        for _ in 0..7 {
            groups.push(fixture.group(alice, &[]).await);
        }
        // Three are active at the same time later on: ties by id.
        let later = NOW.plus_millis(1_000);
        for group in [groups[1], groups[4], groups[2]] {
            fixture.send_at(&message(group, alice, "hi"), later).await;
        }
        let mut expected = groups.clone();
        expected.sort();
        expected.reverse();
        expected.sort_by_key(|id| ![groups[1], groups[4], groups[2]].contains(id));
        assert_eq!(ids(&fixture.list(alice, limit(50)).await), expected);

        let mut paged = Vec::new();
        let mut filter = limit(2);
        loop {
            let page = fixture.list(alice, filter.clone()).await;
            let Some(last) = page.last() else { break };
            filter.before = Some((last.last_at, last.conversation.conversation_id));
            paged.extend(ids(&page));
        }
        assert_eq!(paged, expected);
        let changed = ConversationFilter { changed_since: Some(later), ..limit(50) };
        assert_eq!(ids(&fixture.list(alice, changed).await), expected[..3]);
    }

    async fn a_conversation_is_shown_to_present_members_only(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let mut group = new_group(alice, &[bob]);
        group.description = Some("About rooks".to_owned());
        let id = group.conversation_id;
        fixture.store.create_group(&group, NOW).await.unwrap().unwrap();
        fixture.sql("update members set muted_until = 5 where role = 'member'").await;
        let seen = fixture.seen(bob, id).await;
        assert_eq!((seen.conversation_id, seen.kind), (id, ConversationKind::Group));
        assert_eq!(seen.title.as_deref(), Some("Rooks"));
        assert_eq!(seen.description.as_deref(), Some("About rooks"));
        assert_eq!((seen.created_by, seen.created_at), (alice, NOW));
        assert_eq!((seen.member_count, seen.last_seq), (2, Seq(1)));
        assert!(!seen.history_visible);
        assert_eq!((seen.me.role, seen.me.joined_seq), (MemberRole::Member, Seq(0)));
        assert_eq!((seen.me.delivered_seq, seen.me.read_seq), (Seq(0), Seq(0)));
        assert_eq!(seen.me.muted_until, Some(Timestamp::from_millis(5)));
        assert_eq!(seen.last_message.unwrap().kind, MessageKind::System);

        assert!(fixture.store.conversation(carol, id).await.unwrap().is_none());
        assert!(fixture.list(carol, limit(50)).await.is_empty());
        let unknown = ConversationId::from_uuid(new_id());
        assert!(fixture.store.conversation(alice, unknown).await.unwrap().is_none());
        let leave = GroupAction::RemoveMember { user_id: bob };
        fixture.change(id, bob, leave).await.unwrap();
        assert!(fixture.store.conversation(bob, id).await.unwrap().is_none());
        assert!(fixture.list(bob, limit(50)).await.is_empty());
    }

    async fn a_query_finds_titles_and_the_other_person(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob_x").await, fixture.user("carol").await];
        fixture.sql("update users set full_name = 'ÇAROL 100%' where username = 'carol'").await;
        let (with_bob, with_carol) =
            (fixture.direct(alice, bob).await, fixture.direct(alice, carol).await);
        let group = fixture.group(alice, &[bob, carol]).await;
        let found = async |query: &str| {
            let filter = ConversationFilter { query: Some(query.to_owned()), ..limit(50) };
            ids(&fixture.list(alice, filter).await)
        };
        assert_eq!(found("ROOK").await, [group]);
        assert_eq!(found("Bob_").await, [with_bob]);
        assert_eq!(found("100%").await, [with_carol]);
        assert_eq!(found("ÇAROL").await, [with_carol], "as it is spelt");
        assert_eq!(found("%").await, [with_carol]);
        assert!(found("alice").await.is_empty(), "one's own name is in every conversation");
        assert_eq!(found("").await.len(), 3);
    }

    async fn what_others_wrote_is_unread_until_read(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[bob]).await;
        assert_eq!(fixture.seen(bob, group).await.unread_count, 0, "system messages never count");
        for _ in 0..3 {
            fixture.send(group, alice, "hi").await;
        }
        fixture.send(group, bob, "hello").await;
        assert_eq!(fixture.seen(bob, group).await.unread_count, 3);
        assert_eq!(fixture.seen(alice, group).await.unread_count, 1);
        let (conversation_id, user_id, kind) = (group, bob, MarkKind::Read);
        let mark = MarkRaise { conversation_id, user_id, kind, seq: Seq(3) };
        fixture.store.raise_marks(&[mark], NOW).await.unwrap();
        assert_eq!(fixture.seen(bob, group).await.unread_count, 1);
        assert_eq!(fixture.list(bob, limit(1)).await[0].conversation.unread_count, 1);
    }

    async fn counting_stops_at_999(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        let mut batch: Vec<NewMessage> =
            (0..1_001).map(|_| message(direct, alice, "hi")).collect();
        for message in &mut batch {
            message.mentions = vec![bob];
        }
        fixture.append(&batch[..998]).await;
        assert_eq!(fixture.seen(bob, direct).await.unread_count, 998);
        fixture.append(&batch[998..]).await;
        let seen = fixture.seen(bob, direct).await;
        assert_eq!((seen.unread_count, seen.mention_count), (999, 999));
    }

    async fn mentions_of_oneself_by_others_are_counted(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let group = fixture.group(alice, &[bob, carol]).await;
        let send = async |sender, mentions: &[UserId]| {
            let message = NewMessage { mentions: mentions.to_vec(), ..message(group, sender, "@") };
            fixture.append(&[message]).await;
        };
        send(alice, &[bob]).await;
        send(alice, &[carol, bob]).await;
        send(alice, &[carol]).await;
        send(bob, &[bob]).await;
        let counts = async |user| {
            let seen = fixture.seen(user, group).await;
            (seen.unread_count, seen.mention_count)
        };
        assert_eq!(counts(bob).await, (3, 2));
        assert_eq!(counts(carol).await, (4, 2));
        assert_eq!(counts(alice).await, (1, 0));
        let (conversation_id, user_id, kind) = (group, bob, MarkKind::Read);
        let mark = MarkRaise { conversation_id, user_id, kind, seq: Seq(2) };
        fixture.store.raise_marks(&[mark], NOW).await.unwrap();
        assert_eq!(counts(bob).await, (2, 1));
        send(alice, &[bob]).await;
        let read = async |seq| {
            let mark = MarkRaise { conversation_id, user_id, kind, seq: Seq(seq) };
            fixture.store.raise_marks(&[mark], NOW).await.unwrap();
        };
        let last = fixture.seen(bob, group).await.last_seq.0;
        read(last - 1).await;
        assert_eq!(counts(bob).await, (1, 1));
        read(last).await;
        assert_eq!(counts(bob).await, (0, 0));
    }

    async fn the_last_message_is_the_last_one_that_this_user_may_see(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let direct = fixture.direct(alice, bob).await;
        assert!(fixture.seen(alice, direct).await.last_message.is_none());
        let mut last = message(direct, alice, "the last");
        last.reply_to = Some(Seq(1));
        last.mentions = vec![bob];
        last.metadata = Some([("k".to_owned(), 1.into())].into_iter().collect());
        fixture.append(&[message(direct, bob, "the first"), last.clone()]).await;
        let shown = fixture.seen(bob, direct).await.last_message.unwrap();
        assert_eq!((shown.seq, shown.message_id), (Seq(2), last.message_id));
        assert_eq!((shown.content.as_str(), shown.sender_id), ("the last", alice));
        assert_eq!((shown.reply_to, shown.mentions), (Some(Seq(1)), vec![bob]));
        assert_eq!((shown.metadata, shown.created_at), (last.metadata, NOW));
        // An entry that is no message is passed over.
        fixture.sql("update messages set kind = 'edit', target_seq = 1 where seq = 2").await;
        assert_eq!(fixture.seen(bob, direct).await.last_message.unwrap().seq, Seq(1));
        // A window that begins at the end shows nothing.
        fixture.sql("update members set joined_seq = 2").await;
        assert!(fixture.seen(bob, direct).await.last_message.is_none());
    }
}
