//! What is derived from marks: what grew, how far others are, what is unread.

use rookery::clock::new_id;
use rookery::store::{
    FurthestMarks, GroupAction, MarkKind, MarkRaise, MarksGrown, NewMessage, OwnReads, ReadMark,
    Stretch,
};
use rookery_protocol::message::MessageStatus;
use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};

use crate::fixture::{Fixture, NOW, contract, message};

impl Fixture {
    async fn raise(
        &self,
        kind: MarkKind,
        id: ConversationId,
        user: UserId,
        seq: i64,
    ) -> Vec<MarksGrown> {
        self.raise_at(kind, id, user, seq, NOW).await
    }

    async fn raise_at(
        &self,
        kind: MarkKind,
        conversation_id: ConversationId,
        user_id: UserId,
        seq: i64,
        at: Timestamp,
    ) -> Vec<MarksGrown> {
        let seq = Seq(seq);
        let mark = MarkRaise {
            conversation_id,
            user_id,
            kind,
            seq,
        };
        self.store.raise_marks(&[mark], at).await.unwrap()
    }

    async fn furthest_to(&self, id: ConversationId, user: UserId, up_to: i64) -> FurthestMarks {
        self.store
            .furthest_marks(id, user, Seq(up_to))
            .await
            .unwrap()
    }

    async fn furthest(&self, id: ConversationId, user: UserId) -> (i64, i64) {
        let FurthestMarks { delivered, read } = self.furthest_to(id, user, i64::MAX).await;
        (delivered.0, read.0)
    }

    async fn own_reads(&self, of: &OwnReads<'_>) -> Vec<(ConversationId, i64, i64)> {
        let marks = self.store.own_reads(of).await.unwrap();
        marks
            .iter()
            .map(|mark| (mark.conversation_id, mark.seq.0, mark.unread_count))
            .collect()
    }
}

contract! {
    async fn only_marks_that_grew_come_back(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[bob]).await;
        for _ in 0..4 {
            fixture.send(group, alice, "hi").await;
        }
        let grown = fixture.raise(MarkKind::Delivered, group, bob, 3).await;
        let expected = MarksGrown {
            conversation_id: group,
            user_id: bob,
            delivered: Seq(3),
            read: Seq(0),
            delivered_before: Seq(0),
            read_before: Seq(0),
            present: true,
            last_seq: Seq(5),
            member_count: 2,
            member_version: fixture.member_list(group).await.version,
        };
        assert_eq!(grown, [expected]);
        assert_eq!(fixture.raise(MarkKind::Delivered, group, bob, 3).await, []);
        assert_eq!(fixture.raise(MarkKind::Delivered, group, bob, 6).await, [], "beyond the end");
        let grown = fixture.raise(MarkKind::Read, group, bob, 2).await;
        assert_eq!((grown[0].delivered, grown[0].delivered_before), (Seq(3), Seq(3)));
        assert_eq!((grown[0].read, grown[0].read_before), (Seq(2), Seq(0)));
        let grown = fixture.raise(MarkKind::Read, group, bob, 5).await;
        assert_eq!((grown[0].delivered, grown[0].delivered_before), (Seq(5), Seq(3)));
        let stranger = fixture.user("carol").await;
        assert_eq!(fixture.raise(MarkKind::Read, group, stranger, 1).await, []);

        let both = [(alice, MarkKind::Read, 4), (bob, MarkKind::Read, 4), (alice, MarkKind::Delivered, 5)];
        let both = both.map(|(user_id, kind, seq)| {
            MarkRaise { conversation_id: group, user_id, kind, seq: Seq(seq) }
        });
        let grown = fixture.store.raise_marks(&both, NOW).await.unwrap();
        assert_eq!(grown.len(), 1, "merged, and bob is further");
        assert_eq!((grown[0].user_id, grown[0].delivered, grown[0].read), (alice, Seq(5), Seq(4)));

        fixture.change(group, alice, GroupAction::RemoveMember { user_id: bob }).await.unwrap();
        let grown = fixture.raise(MarkKind::Delivered, group, bob, 6).await;
        assert!(!grown[0].present);
    }

    async fn who_joins_later_has_read_nothing_before(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[]).await;
        fixture.send(group, alice, "before bob").await;
        let add = GroupAction::AddMembers { user_ids: vec![bob] };
        fixture.change(group, alice, add).await.unwrap();
        assert_eq!(fixture.furthest(group, alice).await, (0, 0));
        let marks = fixture.furthest_to(group, alice, 2).await;
        assert_eq!(marks.status(Seq(2)), MessageStatus::Sent);
        let shown = fixture.store.conversation(alice, group).await.unwrap().unwrap();
        // The notice of bob's joining stands last, which is behind his marks.
        assert_eq!(shown.last_message.unwrap().status, Some(MessageStatus::Sent));
        fixture.raise(MarkKind::Delivered, group, bob, 3).await;
        assert_eq!(fixture.furthest(group, alice).await, (3, 0));
    }

    async fn a_status_is_that_of_the_furthest_other(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let group = fixture.group(alice, &[bob, carol]).await;
        fixture.send(group, alice, "hi").await;
        let status = async || {
            let shown = fixture.store.conversation(alice, group).await.unwrap().unwrap();
            shown.last_message.unwrap().status
        };
        fixture.raise(MarkKind::Read, group, alice, 2).await;
        assert_eq!(fixture.furthest(group, alice).await, (0, 0), "one's own do not count");
        assert_eq!(status().await, Some(MessageStatus::Sent));
        fixture.raise(MarkKind::Delivered, group, bob, 2).await;
        fixture.raise(MarkKind::Read, group, carol, 1).await;
        assert_eq!(fixture.furthest(group, alice).await, (2, 1));
        let at_least = |marks: FurthestMarks| marks.status(Seq(1));
        assert_eq!(at_least(fixture.furthest_to(group, alice, 1).await), MessageStatus::Read);
        assert_eq!(status().await, Some(MessageStatus::Delivered));
        let seen = fixture.store.conversation(bob, group).await.unwrap().unwrap();
        assert_eq!(seen.last_message.unwrap().status, None, "not his");
        fixture.raise(MarkKind::Read, group, bob, 2).await;
        assert_eq!(status().await, Some(MessageStatus::Read));
        fixture.change(group, alice, GroupAction::RemoveMember { user_id: bob }).await.unwrap();
        assert_eq!(fixture.furthest(group, alice).await, (1, 1), "who left does not count");

        let marks = FurthestMarks { delivered: Seq(5), read: Seq(3) };
        let statuses = [3, 4, 6].map(|seq| marks.status(Seq(seq)));
        assert_eq!(statuses, [MessageStatus::Read, MessageStatus::Delivered, MessageStatus::Sent]);
    }

    async fn authors_are_those_of_the_newest_messages(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let group = fixture.group(alice, &[bob, carol]).await;
        fixture.send(group, carol, "2").await;
        fixture.send(group, alice, "3").await;
        for _ in 0..15 {
            fixture.send(group, bob, "4 to 18").await;
        }
        let stretch = |after: i64, to: i64| Stretch {
            conversation_id: group,
            after: Seq(after),
            to: Seq(to),
        };
        let stretches = [stretch(0, 18), stretch(0, 17), stretch(0, 1), stretch(3, 4), stretch(1, 2)];
        let mut authors = fixture.store.authors(&stretches).await.unwrap();
        authors.iter_mut().for_each(|authors| authors.sort_unstable());
        let sorted = |mut users: Vec<UserId>| {
            users.sort_unstable();
            users
        };
        assert_eq!(
            authors,
            [sorted(vec![alice, bob]), sorted(vec![alice, bob, carol]), vec![], vec![bob], vec![carol]]
        );
        assert!(fixture.store.authors(&[]).await.unwrap().is_empty());
    }

    async fn read_marks_come_with_what_is_unread_behind_them(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let (direct, group) = (fixture.direct(alice, bob).await, fixture.group(alice, &[bob]).await);
        let mention = |text| NewMessage { mentions: vec![bob], ..message(group, alice, text) };
        fixture.append(&[mention("2"), mention("3"), message(group, alice, "4")]).await;
        fixture.send(group, bob, "5").await;
        fixture.raise(MarkKind::Read, group, bob, 2).await;
        let mut marks = fixture.store.read_marks(&[(group, bob), (direct, alice)]).await.unwrap();
        marks.sort_unstable_by_key(|mark| mark.last_seq);
        let expected = ReadMark {
            conversation_id: group,
            user_id: bob,
            seq: Seq(2),
            at: NOW,
            last_seq: Seq(5),
            unread_count: 2,
            mention_count: 1,
        };
        assert_eq!(marks[1], expected);
        assert_eq!((marks[0].last_seq, marks[0].unread_count), (Seq(0), 0));
    }

    async fn a_device_is_told_of_read_marks_set_since(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let mut groups = Vec::new();
        for _ in 0..4 {
            let group = fixture.group(alice, &[bob]).await;
            fixture.send(group, alice, "one").await;
            fixture.send(group, alice, "two").await;
            groups.push(group);
        }
        groups.sort_unstable();
        let at = |millis: i64| NOW.plus_millis(millis);
        fixture.raise_at(MarkKind::Read, groups[0], bob, 2, at(10)).await;
        fixture.raise_at(MarkKind::Read, groups[1], bob, 3, at(20)).await;
        fixture.raise_at(MarkKind::Delivered, groups[2], bob, 3, at(20)).await;
        fixture.raise_at(MarkKind::Read, groups[3], bob, 3, at(30)).await;
        let all = OwnReads { user_id: bob, since: Some(at(20)), among: &[], after: None, limit: 10 };
        assert_eq!(fixture.own_reads(&all).await, [(groups[1], 3, 0), (groups[3], 3, 0)]);
        let among = OwnReads { among: &[groups[0], groups[2]], since: None, ..all };
        assert_eq!(fixture.own_reads(&among).await, [(groups[0], 2, 1)], "never read: not told");
        let page = OwnReads { since: Some(NOW), limit: 1, ..all };
        assert_eq!(fixture.own_reads(&page).await, [(groups[0], 2, 1)]);
        let next = OwnReads { after: Some(groups[0]), ..page };
        assert_eq!(fixture.own_reads(&next).await, [(groups[1], 3, 0)]);
        fixture.change(groups[3], alice, GroupAction::RemoveMember { user_id: bob }).await.unwrap();
        assert_eq!(fixture.own_reads(&all).await, [(groups[1], 3, 0)]);
        let alices = OwnReads { user_id: alice, ..all };
        assert_eq!(fixture.own_reads(&alices).await, []);
    }

    async fn receipts_of_a_message_are_of_those_who_see_it(fixture: Fixture) {
        let [alice, bob, carol] =
            [fixture.user("alice").await, fixture.user("bob").await, fixture.user("carol").await];
        let dave = fixture.user("dave").await;
        let group = fixture.group(alice, &[bob, carol, dave]).await;
        fixture.send(group, alice, "hi").await;
        fixture.change(group, alice, GroupAction::RemoveMember { user_id: dave }).await.unwrap();
        let eve = fixture.user("eve").await;
        fixture.change(group, alice, GroupAction::AddMembers { user_ids: vec![eve] }).await.unwrap();
        fixture.raise(MarkKind::Read, group, bob, 2).await;
        fixture.raise(MarkKind::Delivered, group, carol, 3).await;
        assert_eq!(fixture.store.sender_of(group, Seq(2)).await.unwrap(), Some(alice));
        assert_eq!(fixture.store.sender_of(group, Seq(9)).await.unwrap(), None);
        let receipts = async |after, limit| {
            let found = fixture.store.message_receipts(group, (Seq(2), alice), after, limit).await;
            let found = found.unwrap().into_iter();
            found.map(|r| (r.user_id, r.status, r.read_at)).collect::<Vec<_>>()
        };
        let mut expected = vec![
            (bob, MessageStatus::Read, Some(NOW)),
            (carol, MessageStatus::Delivered, None),
        ];
        expected.sort_unstable_by_key(|(user, _, _)| *user);
        assert_eq!(receipts(None, 10).await, expected, "eve came later, dave has left");
        assert_eq!(receipts(None, 1).await, expected[..1]);
        assert_eq!(receipts(Some(expected[0].0), 10).await, expected[1..]);
        fixture.sql("update conversations set history_visible = true").await;
        assert_eq!(receipts(None, 10).await.len(), 3);
    }

    async fn memberships_are_found_among_the_named(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let (one, other) = (fixture.group(alice, &[bob]).await, fixture.group(alice, &[]).await);
        let ids = [one, other, ConversationId::from_uuid(new_id())];
        assert_eq!(fixture.store.memberships_among(alice, &ids).await.unwrap().len(), 2);
        let bobs = fixture.store.memberships_among(bob, &ids).await.unwrap();
        assert_eq!(bobs.len(), 1);
        assert_eq!((bobs[0].conversation_id, bobs[0].user_id), (one, bob));
    }

    async fn a_conversation_is_muted_for_one_member(fixture: Fixture) {
        let (alice, bob) = (fixture.user("alice").await, fixture.user("bob").await);
        let group = fixture.group(alice, &[bob]).await;
        let muted = async |user| {
            let view = fixture.store.conversation(user, group).await.unwrap().unwrap();
            view.me.muted_until
        };
        let until = Some(NOW.plus_millis(1_000));
        assert!(fixture.store.mute(bob, group, until).await.unwrap());
        assert_eq!((muted(bob).await, muted(alice).await), (until, None));
        assert!(fixture.store.mute(bob, group, None).await.unwrap());
        assert_eq!(muted(bob).await, None);
        fixture.change(group, alice, GroupAction::RemoveMember { user_id: bob }).await.unwrap();
        assert!(!fixture.store.mute(bob, group, until).await.unwrap(), "a member no more");
    }
}
