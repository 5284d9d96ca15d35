//! The table, row by row.

use rookery_protocol::message::Reaction;
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use uuid::Uuid;

use super::*;

const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));
const ANN: UserId = UserId::from_uuid(Uuid::from_u128(2));
const BOB: UserId = UserId::from_uuid(Uuid::from_u128(3));
const AT: Timestamp = Timestamp::from_millis(1_000);

/// A message of Ann's, in a group.
fn message() -> Message {
    Message {
        message_id: MessageId::from_uuid(Uuid::from_u128(4)),
        conversation_id: ROOM,
        seq: Seq(7),
        sender_id: ANN,
        kind: MessageKind::Text,
        content: "hi".to_owned(),
        metadata: None,
        created_at: AT,
        edited_at: None,
        deleted_at: None,
        reply_to: None,
        mentions: vec![],
        reactions: vec![],
        status: None,
    }
}

fn state(role: MemberRole) -> MessageState {
    MessageState {
        kind: ConversationKind::Group,
        actor: Some(MessageActor {
            role,
            visible_from: Seq::ZERO,
            is_blocked: false,
        }),
        message: Some(message()),
        has_reacted: false,
    }
}

fn change(actor: UserId, action: MessageAction) -> MessageChange {
    MessageChange {
        conversation_id: ROOM,
        seq: Seq(7),
        actor,
        message_id: MessageId::from_uuid(Uuid::from_u128(5)),
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

fn all() -> [MessageAction; 4] {
    [
        edit_to("ho"),
        MessageAction::Delete,
        put("👍"),
        take_off("👍"),
    ]
}

/// `+` it is written, `=` there is nothing to change, `F` forbidden, `C` conflict, `N` not found.
fn verdict(state: &MessageState, actor: UserId, action: MessageAction) -> char {
    match decide(state, &change(actor, action)) {
        Ok(true) => '+',
        Ok(false) => '=',
        Err(Refusal::NotFound) => 'N',
        Err(Refusal::Forbidden(_)) => 'F',
        Err(Refusal::Conflict(_)) => 'C',
        Err(Refusal::Invalid { .. }) => 'I',
    }
}

/// Edit, delete, put a reaction, take it off.
fn verdicts(state: &MessageState, actor: UserId) -> String {
    all()
        .map(|action| verdict(state, actor, action))
        .iter()
        .collect()
}

#[test]
fn the_author_changes_a_message_and_moderators_delete_it() {
    use MemberRole::{Admin, Member, Owner};
    for (role, actor, expected) in [
        (Member, ANN, "+++="),
        (Member, BOB, "FF+="),
        (Admin, BOB, "F++="),
        (Owner, BOB, "F++="),
    ] {
        assert_eq!(verdicts(&state(role), actor), expected, "{role:?} {actor}");
    }
    let direct = MessageState {
        kind: ConversationKind::Direct,
        ..state(Owner)
    };
    assert_eq!(verdicts(&direct, BOB), "FF+=");
}

#[test]
fn strangers_and_those_who_joined_later_find_nothing() {
    let stranger = MessageState {
        actor: None,
        ..state(MemberRole::Member)
    };
    let nothing_there = MessageState {
        message: None,
        ..state(MemberRole::Owner)
    };
    let mut newcomer = state(MemberRole::Owner);
    newcomer.actor.as_mut().unwrap().visible_from = Seq(7);
    for state in [stranger, nothing_there, newcomer] {
        assert_eq!(verdicts(&state, ANN), "NNNN");
    }
    let mut witness = state(MemberRole::Owner);
    witness.actor.as_mut().unwrap().visible_from = Seq(6);
    assert_eq!(verdicts(&witness, ANN), "+++=");
}

#[test]
fn what_is_deleted_stays_so_and_what_the_server_says_stays() {
    let mut deleted = state(MemberRole::Admin);
    deleted.message.as_mut().unwrap().deleted_at = Some(AT);
    assert_eq!(verdicts(&deleted, ANN), "C=CC");
    assert_eq!(verdicts(&deleted, BOB), "F=CC");
    let mut notice = state(MemberRole::Owner);
    notice.message.as_mut().unwrap().kind = MessageKind::System;
    assert_eq!(verdicts(&notice, ANN), "FFFF");
}

#[test]
fn who_is_blocked_takes_back_and_says_no_more() {
    let mut blocked = state(MemberRole::Member);
    blocked.kind = ConversationKind::Direct;
    blocked.actor.as_mut().unwrap().is_blocked = true;
    blocked.has_reacted = true;
    assert_eq!(verdicts(&blocked, ANN), "F+F+");
}

#[test]
fn nothing_is_changed_twice() {
    let mut reacted = state(MemberRole::Member);
    reacted.has_reacted = true;
    assert_eq!(verdict(&reacted, ANN, put("👍")), '=');
    assert_eq!(verdict(&reacted, ANN, take_off("👍")), '+');
    assert_eq!(verdict(&reacted, ANN, edit_to("hi")), '=');
}

#[test]
fn a_message_has_only_so_many_emojis_and_any_number_of_each() {
    let mut crowded = state(MemberRole::Member);
    let reactions = &mut crowded.message.as_mut().unwrap().reactions;
    for number in 0..limits::EMOJIS_PER_MESSAGE {
        reactions.push(Reaction {
            emoji: number.to_string(),
            user_ids: vec![BOB],
            count: 1,
        });
    }
    assert_eq!(verdict(&crowded, ANN, put("👍")), 'C');
    assert_eq!(verdict(&crowded, ANN, put("7")), '+');
    crowded.message.as_mut().unwrap().reactions.pop();
    assert_eq!(verdict(&crowded, ANN, put("👍")), '+');
}
