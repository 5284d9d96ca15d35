use rookery_protocol::{ConversationId, MessageId};
use uuid::Uuid;

use super::*;

fn id(number: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(number))
}

const ANN: u128 = 1;
const BOB: u128 = 2;
const EVE: u128 = 3;

fn member(number: u128, role: MemberRole) -> GroupMember {
    let username = ["", "ann", "bob", "eve"][usize::try_from(number).unwrap()].to_owned();
    GroupMember {
        user_id: id(number),
        username,
        role,
    }
}

/// A group of three that ann acts in and bob is named in.
fn state(ann: Option<MemberRole>, bob: Option<MemberRole>) -> GroupState {
    let owners = [ann, bob]
        .into_iter()
        .flatten()
        .filter(|role| *role == MemberRole::Owner);
    GroupState {
        kind: ConversationKind::Group,
        title: Some("Team".into()),
        description: None,
        member_count: 3,
        // Somebody else owns the group unless one of the two does.
        owner_count: i64::try_from(owners.count()).unwrap().max(1),
        actor: ann.map(|role| member(ANN, role)),
        named: bob.map(|role| member(BOB, role)).into_iter().collect(),
        strangers: Vec::new(),
    }
}

fn decided(state: &GroupState, action: GroupAction) -> Decision {
    let change = GroupChange {
        conversation_id: ConversationId::from_uuid(Uuid::from_u128(9)),
        actor: id(ANN),
        message_id: MessageId::from_uuid(Uuid::from_u128(8)),
        action,
        direct_max: 16,
    };
    decide(state, &change)
}

/// What was decided, in one word; "yes" stands for a change.
fn word(decision: &Decision) -> &'static str {
    match decision {
        Ok(Some(_)) => "yes",
        Ok(None) => "nothing",
        Err(Refusal::NotFound) => "not_found",
        Err(Refusal::Forbidden(_)) => "forbidden",
        Err(Refusal::Conflict(_)) => "conflict",
        Err(Refusal::Invalid { .. }) => "invalid",
    }
}

fn rename(title: Option<&str>) -> GroupAction {
    GroupAction::Update {
        title: Some(title.map(str::to_owned)),
        description: None,
    }
}

fn remove_bob() -> GroupAction {
    GroupAction::RemoveMember { user_id: id(BOB) }
}

fn leave_ann() -> GroupAction {
    GroupAction::RemoveMember { user_id: id(ANN) }
}

fn make_bob(role: MemberRole) -> GroupAction {
    GroupAction::ChangeRole {
        user_id: id(BOB),
        role,
    }
}

const OWNER: Option<MemberRole> = Some(MemberRole::Owner);
const ADMIN: Option<MemberRole> = Some(MemberRole::Admin);
const MEMBER: Option<MemberRole> = Some(MemberRole::Member);
const STRANGER: Option<MemberRole> = None;

/// The action, bob's role, and what ann is told as owner, admin, member and stranger.
fn permissions() -> Vec<(GroupAction, Option<MemberRole>, &'static str)> {
    let add = || GroupAction::AddMembers {
        user_ids: vec![id(EVE)],
    };
    let admin = || make_bob(MemberRole::Admin);
    vec![
        (rename(Some("X")), MEMBER, "yes yes forbidden not_found"),
        (add(), MEMBER, "yes yes forbidden not_found"),
        (remove_bob(), MEMBER, "yes yes forbidden not_found"),
        (remove_bob(), ADMIN, "yes forbidden forbidden not_found"),
        (remove_bob(), OWNER, "yes forbidden forbidden not_found"),
        (
            remove_bob(),
            STRANGER,
            "not_found not_found forbidden not_found",
        ),
        (leave_ann(), MEMBER, "conflict yes yes not_found"),
        (leave_ann(), OWNER, "yes yes yes not_found"),
        (admin(), MEMBER, "yes forbidden forbidden not_found"),
        (admin(), OWNER, "yes forbidden forbidden not_found"),
        (admin(), ADMIN, "nothing forbidden forbidden not_found"),
        (admin(), STRANGER, "not_found forbidden forbidden not_found"),
        (
            GroupAction::Delete,
            MEMBER,
            "yes forbidden forbidden not_found",
        ),
    ]
}

#[test]
fn the_table_of_permissions() {
    for (action, bob, expected) in permissions() {
        for (ann, expected) in [OWNER, ADMIN, MEMBER, STRANGER]
            .into_iter()
            .zip(expected.split(' '))
        {
            let mut state = state(ann, bob);
            if matches!(action, GroupAction::AddMembers { .. }) {
                state.strangers = vec![(id(EVE), "eve".into())];
            }
            let got = word(&decided(&state, action.clone()));
            assert_eq!(got, expected, "ann {ann:?}, bob {bob:?}: {action:?}");
            let kind = ConversationKind::Direct;
            let direct = GroupState { kind, ..state };
            let expected = if ann.is_some() {
                "forbidden"
            } else {
                "not_found"
            };
            let got = word(&decided(&direct, action.clone()));
            assert_eq!(got, expected, "direct: {action:?}");
        }
    }
}

#[test]
fn the_last_owner_stays_until_somebody_else_is_owner() {
    let demote_self = || GroupAction::ChangeRole {
        user_id: id(ANN),
        role: MemberRole::Member,
    };
    let mut alone = state(OWNER, STRANGER);
    alone.named = vec![member(ANN, MemberRole::Owner)];
    let Err(Refusal::Conflict(why)) = decided(&alone, leave_ann()) else {
        panic!()
    };
    assert!(why.contains("make someone else owner first"), "{why}");
    assert_eq!(word(&decided(&alone, demote_self())), "conflict");
    alone.member_count = 1;
    assert_eq!(
        word(&decided(&alone, leave_ann())),
        "yes",
        "nobody is left behind"
    );
    assert_eq!(
        word(&decided(&alone, demote_self())),
        "conflict",
        "a group has an owner"
    );
    let mut two = state(OWNER, OWNER);
    two.named.push(member(ANN, MemberRole::Owner));
    assert_eq!(word(&decided(&two, leave_ann())), "yes");
    assert_eq!(word(&decided(&two, demote_self())), "yes");
}

#[test]
fn only_strangers_are_added_and_only_so_many() {
    let all = [id(BOB), id(EVE)];
    let add = || GroupAction::AddMembers {
        user_ids: all.to_vec(),
    };
    let mut group = state(OWNER, MEMBER);
    assert_eq!(
        word(&decided(&group, add())),
        "invalid",
        "eve has no account"
    );
    group.strangers = vec![(id(EVE), "eve".into())];
    let Ok(Some((notice, text))) = decided(&group, add()) else {
        panic!()
    };
    assert_eq!(
        notice,
        SystemNotice::MembersAdded {
            user_ids: vec![id(EVE)]
        }
    );
    assert_eq!(text, "ann added eve");
    group.member_count = 9_999;
    assert_eq!(word(&decided(&group, add())), "yes");
    group.member_count = 10_000;
    assert_eq!(word(&decided(&group, add())), "conflict");
    group.strangers.clear();
    let members = GroupAction::AddMembers {
        user_ids: vec![id(BOB)],
    };
    assert_eq!(
        word(&decided(&group, members)),
        "nothing",
        "bob is a member already"
    );
}

#[test]
fn an_update_reports_what_is_new() {
    let group = state(OWNER, MEMBER);
    assert_eq!(word(&decided(&group, rename(Some("Team")))), "nothing");
    let Ok(Some((notice, text))) = decided(&group, rename(None)) else {
        panic!()
    };
    assert_eq!(
        notice,
        SystemNotice::GroupUpdated {
            title: None,
            description: None
        }
    );
    assert_eq!(text, "ann removed the group's title");
    let both = GroupAction::Update {
        title: Some(Some("Crew".into())),
        description: Some(Some("All of us".into())),
    };
    let Ok(Some((notice, text))) = decided(&group, both) else {
        panic!()
    };
    let (title, description) = (Some("Crew".into()), Some("All of us".into()));
    assert_eq!(notice, SystemNotice::GroupUpdated { title, description });
    assert_eq!(
        text,
        "ann renamed the group to \"Crew\" and changed the group's description"
    );
    let describe = GroupAction::Update {
        title: None,
        description: Some(Some("Us".into())),
    };
    let Ok(Some((notice, _))) = decided(&group, describe) else {
        panic!()
    };
    let (title, description) = (Some("Team".into()), Some("Us".into()));
    assert_eq!(
        notice,
        SystemNotice::GroupUpdated { title, description },
        "the title stays"
    );
}

#[test]
fn notices_are_sentences() {
    assert_eq!(
        notice::created("ann", Some("Team")),
        "ann created the group \"Team\""
    );
    assert_eq!(
        notice::added("ann", &["bob", "eve"]),
        "ann added bob and eve"
    );
    assert_eq!(
        notice::added("ann", &["bob", "a", "b", "c"]),
        "ann added bob and 3 others"
    );
    let text = |action| decided(&state(OWNER, MEMBER), action).unwrap().unwrap().1;
    assert_eq!(text(remove_bob()), "ann removed bob");
    assert_eq!(text(make_bob(MemberRole::Admin)), "ann made bob an admin");
    assert_eq!(text(GroupAction::Delete), "ann deleted the group");
    let text = decided(&state(MEMBER, MEMBER), leave_ann())
        .unwrap()
        .unwrap()
        .1;
    assert_eq!(text, "ann left");
}
