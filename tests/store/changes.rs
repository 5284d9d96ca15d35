//! Changing messages: edits, deletions, reactions, and what they leave in the log.

use rookery::clock::new_id;
use rookery::store::{
    ChangeEntry, ConversationFilter, GroupAction, JournalPosition, JournalRow, LogEntry,
    MessageAction, MessageChange, MessageChanged, MessageState, NewMessage, Refusal,
};
use rookery_protocol::conversation::{Conversation, ConversationKind, MemberRole};
use rookery_protocol::message::{ChangeKind, Message};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, NOW, contract, message, refusal, seqs, stored};

/// A rule by which members may change what they see, if that changes anything.
fn members_may(state: &MessageState, change: &MessageChange) -> Result<bool, Refusal> {
    let Some(actor) = state.actor else {
        return Err(Refusal::NotFound);
    };
    let Some(message) = &state.message else {
        return Err(Refusal::NotFound);
    };
    if message.seq <= actor.visible_from {
        return Err(Refusal::NotFound);
    }
    Ok(match &change.action {
        MessageAction::Edit { content, .. } => message.content != *content,
        MessageAction::Delete => message.deleted_at.is_none(),
        MessageAction::AddReaction { .. } => !state.has_reacted,
        MessageAction::RemoveReaction { .. } => state.has_reacted,
    })
}

fn change(id: ConversationId, seq: i64, actor: UserId, action: MessageAction) -> MessageChange {
    MessageChange {
        conversation_id: id,
        seq: Seq(seq),
        actor,
        message_id: MessageId::from_uuid(new_id()),
        action,
    }
}

fn edit_to(content: &str) -> MessageAction {
    MessageAction::Edit {
        content: content.to_owned(),
        mentions: vec![],
    }
}

fn put(emoji: &str) -> MessageAction {
    MessageAction::AddReaction {
        emoji: emoji.to_owned(),
    }
}

fn take_off(emoji: &str) -> MessageAction {
    MessageAction::RemoveReaction {
        emoji: emoji.to_owned(),
    }
}

/// Emojis with their users and count.
fn reactions(message: &Message) -> Vec<(&str, &[UserId], i64)> {
    let all = message.reactions.iter();
    all.map(|one| (one.emoji.as_str(), one.user_ids.as_slice(), one.count))
        .collect()
}

impl Fixture {
    async fn try_to(
        &self,
        id: ConversationId,
        seq: i64,
        actor: UserId,
        action: MessageAction,
    ) -> Result<MessageChanged, Refusal> {
        let change = change(id, seq, actor, action);
        let later = NOW.plus_millis(5);
        let changed = self.store.change_message(&change, members_may, later);
        changed.await.unwrap()
    }

    pub(crate) async fn now(
        &self,
        id: ConversationId,
        seq: i64,
        actor: UserId,
        action: MessageAction,
    ) -> (Message, ChangeEntry) {
        let changed = self.try_to(id, seq, actor, action).await.unwrap();
        (changed.message, changed.entry.expect("something changed"))
    }

    async fn as_seen(&self, user: UserId, id: ConversationId) -> Conversation {
        self.store.conversation(user, id).await.unwrap().unwrap()
    }

    async fn trio(&self) -> [UserId; 3] {
        [
            self.user("alice").await,
            self.user("bob").await,
            self.user("carol").await,
        ]
    }
}

contract! {
    async fn an_edit_is_an_entry_and_the_message_is_new(fixture: Fixture) {
        let [alice, bob, _] = fixture.trio().await;
        let group = fixture.group(alice, &[bob]).await;
        let send = NewMessage { mentions: vec![bob], ..message(group, alice, "hi @bob") };
        fixture.append(std::slice::from_ref(&send)).await;
        let action = MessageAction::Edit { content: "ho".to_owned(), mentions: vec![alice] };
        let (edited, entry) = fixture.now(group, 2, alice, action).await;
        assert_eq!((edited.seq, edited.content.as_str()), (Seq(2), "ho"));
        assert_eq!((edited.message_id, edited.created_at), (send.message_id, NOW));
        assert_eq!(edited.edited_at, Some(NOW.plus_millis(5)));
        assert_eq!((edited.mentions.as_slice(), edited.deleted_at), ([alice].as_slice(), None));
        assert_eq!((entry.seq, entry.by, entry.kind), (Seq(3), alice, ChangeKind::Edited));
        assert_eq!(entry.member_version, fixture.member_list(group).await.version);
        assert!(!entry.windowed);

        let log = fixture.store.entries(group, Seq(1), Seq(9), 9).await.unwrap();
        let [LogEntry::Message(now), LogEntry::Change(change)] = &log[..] else {
            panic!("{log:?}");
        };
        assert_eq!((now.content.as_str(), change.message.content.as_str()), ("ho", "ho"));
        assert_eq!((change.seq, change.by, change.kind), (Seq(3), alice, ChangeKind::Edited));
        assert_eq!(seqs(&fixture.log(group).await), [1, 2], "an edit is no message");
        // A repeat of the send is still known, and counted as itself.
        let again = stored(&fixture.append(&[send]).await[0]);
        assert!(again.duplicate && again.seq == Seq(2));
        assert_eq!(fixture.send(group, bob, "next").await.seq, Seq(4));
    }

    async fn what_changes_nothing_is_no_entry(fixture: Fixture) {
        let [alice, bob, _] = fixture.trio().await;
        let direct = fixture.direct(alice, bob).await;
        fixture.send(direct, alice, "hi").await;
        fixture.now(direct, 1, bob, put("👍")).await;
        for action in [edit_to("hi"), put("👍"), take_off("❤️")] {
            let unchanged = fixture.try_to(direct, 1, bob, action).await.unwrap();
            assert_eq!(unchanged.entry, None);
            assert_eq!(reactions(&unchanged.message), [("👍", &[bob][..], 1)]);
        }
        let refused = fixture.try_to(direct, 2, bob, put("👍")).await;
        assert_eq!(refused.unwrap_err(), Refusal::NotFound, "an entry that is no message");
        let refused = fixture.try_to(direct, 7, bob, put("👍")).await;
        assert_eq!(refused.unwrap_err(), Refusal::NotFound, "beyond the end");
        let nowhere = ConversationId::from_uuid(new_id());
        let refused = fixture.try_to(nowhere, 1, bob, put("👍")).await;
        assert_eq!(refused.unwrap_err(), Refusal::NotFound);
        assert_eq!(fixture.as_seen(bob, direct).await.last_seq, Seq(2));
    }

    async fn a_deleted_message_is_a_tombstone_everywhere(fixture: Fixture) {
        let [alice, bob, _] = fixture.trio().await;
        let group = fixture.group(alice, &[bob]).await;
        let metadata = serde_json::json!({"sealed": 1}).as_object().cloned();
        let send = NewMessage {
            mentions: vec![bob],
            reply_to: Some(Seq(1)),
            metadata,
            ..message(group, alice, "secret")
        };
        fixture.append(&[send]).await;
        fixture.now(group, 2, bob, put("👍")).await;
        let before = fixture.as_seen(bob, group).await;
        assert_eq!((before.unread_count, before.mention_count), (1, 1));
        let (gone, entry) = fixture.now(group, 2, alice, MessageAction::Delete).await;
        assert_eq!((gone.content.as_str(), gone.deleted_at), ("", Some(NOW.plus_millis(5))));
        assert_eq!((&gone.metadata, gone.reply_to), (&None, Some(Seq(1))));
        assert!(gone.mentions.is_empty() && gone.reactions.is_empty());
        assert_eq!((entry.seq, entry.kind), (Seq(4), ChangeKind::Deleted));
        let after = fixture.as_seen(bob, group).await;
        assert_eq!((after.unread_count, after.mention_count), (1, 0), "it still has its place");
        let last = after.last_message.unwrap();
        assert_eq!((last.seq, last.content.as_str()), (Seq(2), ""));
        assert!(last.deleted_at.is_some() && last.reactions.is_empty());
        assert_eq!(fixture.log(group).await[1].content, "");
        let again = fixture.try_to(group, 2, alice, MessageAction::Delete).await.unwrap();
        assert_eq!(again.entry, None);
    }

    async fn reactions_are_a_set_and_come_with_the_message(fixture: Fixture) {
        let [alice, bob, carol] = fixture.trio().await;
        let group = fixture.group(alice, &[bob, carol]).await;
        let other = fixture.group(alice, &[bob]).await;
        fixture.send(group, alice, "hi").await;
        fixture.send(other, alice, "hi").await;
        fixture.now(other, 2, bob, put("🎉")).await;
        let (_, added) = fixture.now(group, 2, bob, put("👍")).await;
        assert_eq!((added.seq, added.kind), (Seq(3), ChangeKind::ReactionAdded));
        fixture.now(group, 2, carol, put("👍")).await;
        let (now, _) = fixture.now(group, 2, bob, put("❤️")).await;
        let mut both = [bob, carol];
        both.sort();
        let expected = [("❤️", &[bob][..], 1), ("👍", &both[..], 2)];
        let sorted = |message: &Message| {
            let mut sorted = message.clone();
            sorted.reactions.sort_by(|a, b| a.emoji.cmp(&b.emoji));
            sorted
        };
        assert_eq!(reactions(&sorted(&now)), expected);
        assert_eq!(reactions(&sorted(&fixture.log(group).await[1])), expected);
        // In the list each conversation has its own.
        let filter = ConversationFilter { limit: 9, ..ConversationFilter::default() };
        for listed in fixture.store.conversations_of(bob, &filter).await.unwrap() {
            let last = listed.conversation.last_message.unwrap();
            let expected = if last.conversation_id == group {
                expected.to_vec()
            } else {
                vec![("🎉", std::slice::from_ref(&bob), 1)]
            };
            assert_eq!(reactions(&sorted(&last)), expected);
        }
        let last = fixture.as_seen(alice, other).await.last_message.unwrap();
        assert_eq!(reactions(&last), [("🎉", &[bob][..], 1)]);

        let (now, removed) = fixture.now(group, 2, bob, take_off("👍")).await;
        assert_eq!(removed.kind, ChangeKind::ReactionRemoved);
        assert_eq!(reactions(&sorted(&now)), [("❤️", &[bob][..], 1), ("👍", &[carol][..], 1)]);
        fixture.now(group, 2, bob, take_off("❤️")).await;
        let (now, _) = fixture.now(group, 2, carol, take_off("👍")).await;
        assert!(now.reactions.is_empty());
        let (now, _) = fixture.now(group, 2, bob, put("👍")).await;
        assert_eq!(reactions(&now), [("👍", &[bob][..], 1)]);
    }

    async fn the_same_reaction_at_once_from_two_nodes_is_one(fixture: Fixture) {
        let [alice, bob, _] = fixture.trio().await;
        let direct = fixture.direct(alice, bob).await;
        fixture.send(direct, alice, "hi").await;
        let mut tasks = JoinSet::new();
        for _ in 0..6 {
            let node = fixture.another_node().await;
            tasks.spawn(async move {
                let change = change(direct, 1, bob, put("👍"));
                let changed = node.change_message(&change, members_may, NOW).await;
                changed.unwrap().unwrap().entry.is_some()
            });
        }
        let changed = tasks.join_all().await;
        assert_eq!(changed.iter().filter(|changed| **changed).count(), 1);
        assert_eq!(fixture.as_seen(bob, direct).await.last_seq, Seq(2));
    }

    async fn the_rule_sees_who_asks_and_decides(fixture: Fixture) {
        fn only_carol_the_admin(
            state: &MessageState,
            _: &MessageChange,
        ) -> Result<bool, Refusal> {
            let message = state.message.as_ref().unwrap();
            assert_eq!((state.kind, message.content.as_str()), (ConversationKind::Group, "hi"));
            match state.actor {
                None => Err(Refusal::NotFound),
                Some(actor) if actor.role == MemberRole::Admin => {
                    assert_eq!((actor.visible_from, actor.is_blocked), (Seq(0), false));
                    Ok(true)
                }
                Some(_) => Err(Refusal::Forbidden("no admin")),
            }
        }
        let [alice, bob, carol] = fixture.trio().await;
        let eve = fixture.user("eve").await;
        let group = fixture.group(alice, &[bob, carol]).await;
        fixture.send(group, alice, "hi").await;
        let role = MemberRole::Admin;
        let promote = GroupAction::ChangeRole { user_id: carol, role };
        fixture.change(group, alice, promote).await.unwrap();
        let ask = async |actor| {
            let delete = change(group, 2, actor, MessageAction::Delete);
            let changed = fixture.store.change_message(&delete, only_carol_the_admin, NOW).await;
            changed.unwrap().map(|changed| changed.entry.is_some())
        };
        assert_eq!(ask(eve).await, Err(Refusal::NotFound));
        assert_eq!(ask(bob).await, Err(Refusal::Forbidden("no admin")));
        assert_eq!(ask(carol).await, Ok(true));
        let gone = GroupAction::RemoveMember { user_id: bob };
        fixture.change(group, alice, gone).await.unwrap();
        let refused = fixture.try_to(group, 2, bob, put("👍")).await;
        assert_eq!(refused.unwrap_err(), Refusal::NotFound, "after the removal");
    }

    async fn an_entry_says_whether_some_member_must_not_see_it(fixture: Fixture) {
        let [alice, bob, carol] = fixture.trio().await;
        let group = fixture.group(alice, &[bob]).await;
        fixture.send(group, alice, "before carol").await;
        fixture.change(group, alice, GroupAction::AddMembers { user_ids: vec![carol] })
            .await
            .unwrap();
        fixture.send(group, alice, "with carol").await;
        let (_, entry) = fixture.now(group, 2, alice, edit_to("x")).await;
        assert!(entry.windowed);
        let (_, entry) = fixture.now(group, 4, carol, put("👍")).await;
        assert!(!entry.windowed);
        let refused = fixture.try_to(group, 2, carol, put("👍")).await;
        assert_eq!(refused.unwrap_err(), Refusal::NotFound);
        fixture.sql("update conversations set history_visible = true where kind = 'group'").await;
        let (_, entry) = fixture.now(group, 2, carol, put("👍")).await;
        assert!(!entry.windowed);
    }

    async fn a_change_is_found_and_does_not_move_the_list(fixture: Fixture) {
        let [alice, bob, _] = fixture.trio().await;
        let old = fixture.group(alice, &[bob]).await;
        fixture.send(old, alice, "old").await;
        let direct = fixture.direct(alice, bob).await;
        let later = NOW.plus_millis(1_000);
        fixture.store.append(&[message(direct, alice, "new")], rookery::store::Wait::Yes, later)
            .await
            .unwrap();
        let change = change(old, 2, bob, put("👍"));
        let much_later = NOW.plus_millis(9_000);
        fixture.store.change_message(&change, members_may, much_later).await.unwrap().unwrap();
        let list = async |changed_since| {
            let filter =
                ConversationFilter { limit: 9, changed_since, ..ConversationFilter::default() };
            let found = fixture.store.conversations_of(bob, &filter).await.unwrap();
            let id = |listed: rookery::store::ListedConversation| {
                (listed.conversation.conversation_id, listed.last_at)
            };
            found.into_iter().map(id).collect::<Vec<_>>()
        };
        assert_eq!(list(None).await, [(direct, later), (old, NOW)]);
        assert_eq!(list(Some(much_later)).await, [(old, NOW)]);
        let page = fixture.journal(&JournalPosition::default()).await;
        let told = page.rows.iter().any(|row| match row {
            JournalRow::Entries(ends) => ends.contains(&(old, Seq(3))),
            _ => false,
        });
        assert!(told, "{:?}", page.rows);
    }

    async fn a_reply_names_a_message_that_its_sender_sees(fixture: Fixture) {
        let [alice, bob, carol] = fixture.trio().await;
        let group = fixture.group(alice, &[bob]).await;
        let direct = fixture.direct(alice, bob).await;
        fixture.send(group, alice, "before carol").await;
        fixture.now(group, 2, alice, put("👍")).await;
        fixture.change(group, alice, GroupAction::AddMembers { user_ids: vec![carol] })
            .await
            .unwrap();
        fixture.send(group, alice, "with carol").await;
        fixture.send(direct, alice, "hi").await;
        let reply = |id, sender, to| {
            NewMessage { reply_to: Some(Seq(to)), ..message(id, sender, "re") }
        };
        let batch = [
            reply(group, bob, 1),
            reply(group, bob, 2),
            reply(group, bob, 3),
            reply(group, carol, 2),
            reply(group, carol, 4),
            message(group, carol, "no reply"),
            reply(group, carol, 5),
            reply(group, carol, 6),
            reply(group, carol, 99),
            reply(direct, bob, 1),
            reply(direct, bob, 0),
        ];
        let stored: Vec<bool> = fixture
            .append(&batch)
            .await
            .iter()
            .map(|outcome| matches!(outcome, rookery::store::Outcome::Stored(_)))
            .collect();
        let (yes, no) = (true, false);
        // 3 is a reaction, 4 the notice that carol joined, 6 and later are of this batch.
        assert_eq!(stored, [yes, yes, no, no, yes, yes, yes, yes, no, yes, no]);
        let refused = &fixture.append(&[reply(group, bob, 3)]).await[0];
        assert!(matches!(refusal(refused), Refusal::Invalid { field: "reply_to", .. }));
    }

    async fn members_are_found_by_name(fixture: Fixture) {
        let [alice, bob, carol] = fixture.trio().await;
        let group = fixture.group(alice, &[bob, carol]).await;
        let gone = GroupAction::RemoveMember { user_id: carol };
        fixture.change(group, alice, gone).await.unwrap();
        fixture.user("dave").await;
        let names = ["bob", "carol", "dave", "nobody", "alice", "a'; --"].map(str::to_owned);
        let mut found = fixture.store.members_by_name(group, &names).await.unwrap();
        found.sort();
        assert_eq!(found, [("alice".to_owned(), alice), ("bob".to_owned(), bob)]);
        assert!(fixture.store.members_by_name(group, &[]).await.unwrap().is_empty());
    }
}
