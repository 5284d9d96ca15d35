//! Who may do what: every operation of the document, asked by everybody. An operation that is
//! missing here fails the test, so that none is added without deciding on it.

use std::collections::BTreeSet;

use axum::http::Method;
use rookery::clock::new_id;
use rookery_protocol::UserId;
use serde_json::{Value, json};

use super::world::{Person, World};
use crate::on_both;

on_both! {
    everybody_is_answered_as_decided,
}

/// Operation and, for each of [`ASKING`], the status. "Former" was removed; "target" in a path is
/// a plain member.
const MATRIX: [(&str, [u16; 6]); 27] = [
    ("createConversation", [401, 201, 201, 201, 201, 201]),
    ("listConversations", [401, 200, 200, 200, 200, 200]),
    ("getConversation", [401, 404, 404, 200, 200, 200]),
    ("updateConversation", [401, 404, 404, 403, 200, 200]),
    ("deleteConversation", [401, 404, 404, 403, 403, 200]),
    ("listMembers", [401, 404, 404, 200, 200, 200]),
    ("addMembers", [401, 404, 404, 403, 201, 201]),
    ("changeRole", [401, 404, 404, 403, 403, 200]),
    ("removeMember", [401, 404, 404, 403, 200, 200]),
    ("getHistory", [401, 404, 404, 200, 200, 200]),
    ("sendMessage", [401, 404, 404, 201, 201, 201]),
    // Of the target's message.
    ("editMessage", [401, 404, 404, 403, 403, 403]),
    ("deleteMessage", [401, 404, 404, 403, 200, 200]),
    ("addReaction", [401, 404, 404, 200, 200, 200]),
    ("removeReaction", [401, 404, 404, 200, 200, 200]),
    ("blockUser", [401, 200, 200, 200, 200, 200]),
    ("unblockUser", [401, 200, 200, 200, 200, 200]),
    ("listUsers", [401, 200, 200, 200, 200, 200]),
    ("getUser", [401, 200, 200, 200, 200, 200]),
    // Of people one shares a conversation with.
    ("getPresence", [401, 404, 404, 200, 200, 200]),
    ("listPresence", [401, 200, 200, 200, 200, 200]),
    ("listOnline", [401, 200, 200, 200, 200, 200]),
    // Of one's own window, which a former member still has.
    ("markRead", [401, 404, 200, 200, 200, 200]),
    ("markAllRead", [401, 404, 200, 200, 200, 200]),
    ("markAllDelivered", [401, 404, 200, 200, 200, 200]),
    ("updateOwnMembership", [401, 404, 404, 200, 200, 200]),
    ("listReceipts", [401, 404, 404, 200, 200, 200]),
];
/// Where the target's message stands: behind the notices of making the group.
const MESSAGE: i64 = 4;
const ASKING: [&str; 6] = ["nobody", "stranger", "former", "member", "admin", "owner"];

/// Operations that concern oneself alone; `tests/rest/auth.rs` and `users.rs` have them.
const OWN: [&str; 7] = [
    "logout",
    "logoutAll",
    "listSessions",
    "endSession",
    "getMe",
    "updateMe",
    "listBlocks",
];
/// These need no token.
const OPEN: [&str; 3] = ["register", "login", "refresh"];

async fn everybody_is_answered_as_decided(world: World) {
    let document = world.call_root("/openapi.json").await.json();
    let operations = operations(&document);
    let decided: BTreeSet<&str> = MATRIX
        .iter()
        .map(|(name, _)| *name)
        .chain(OWN)
        .chain(OPEN)
        .collect();
    let documented: BTreeSet<&str> = operations.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(decided, documented);
    let cast = Cast::assemble(&world).await;
    for (name, expected) in MATRIX {
        let operation = operations.iter().find(|one| one.name == name).unwrap();
        for (asking, status) in ASKING.into_iter().zip(expected) {
            let group = cast.group().await;
            let path = operation.path.replace("/conversations/{id}", &group);
            let path = path.replace("{id}", &cast.target.id.to_string());
            let path = path.replace("{user_id}", &cast.target.id.to_string());
            let path = path.replace("{seq}", &MESSAGE.to_string());
            let path = path.replace("{emoji}", "%F0%9F%91%8D");
            let token = cast.token(asking);
            let path = path.replace("{seq}", "1");
            let path = if name == "listPresence" {
                format!("{path}?user_ids={}", cast.target.id)
            } else {
                path
            };
            let body = body_of(name, &group, cast.newcomer.id);
            let answer = world
                .call(token, operation.method.clone(), &path, body)
                .await;
            assert_eq!(answer.status, status, "{asking}: {name}: {}", answer.json());
        }
    }
    for name in OWN {
        let operation = operations.iter().find(|one| one.name == name).unwrap();
        let path = operation.path.replace("{id}", &new_id().to_string());
        let answer = world
            .call(None, operation.method.clone(), &path, Some(json!({})))
            .await;
        answer.refused(401, "UNAUTHENTICATED");
    }
}

struct Operation {
    name: String,
    method: Method,
    path: String,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            found.push(Operation {
                name: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                path: path.strip_prefix("/api/v1").unwrap().to_owned(),
            });
        }
    }
    found
}

/// A body that would be accepted.
fn body_of(operation: &str, group: &str, newcomer: UserId) -> Option<Value> {
    match operation {
        "createConversation" => Some(json!({"kind": "group"})),
        "updateConversation" => Some(json!({"title": "New"})),
        "addMembers" => Some(json!({"user_ids": [newcomer]})),
        "changeRole" => Some(json!({"role": "admin"})),
        "markRead" => Some(json!({"seq": 1})),
        "editMessage" => Some(json!({"content": "hi"})),
        "markAllRead" | "markAllDelivered" => {
            let id = group.trim_start_matches("/conversations/");
            Some(json!({"marks": [{"conversation_id": id, "seq": 1}]}))
        }
        "updateOwnMembership" => Some(json!({"muted_until": null})),
        "sendMessage" => Some(json!({"message_id": new_id(), "content": "hi"})),
        _ => None,
    }
}

/// Somebody for every relation to a group.
struct Cast {
    owner: Person,
    admin: Person,
    member: Person,
    former: Person,
    stranger: Person,
    target: Person,
    newcomer: Person,
}

impl Cast {
    async fn assemble(world: &World) -> Self {
        let names = [
            "owner", "admin", "member", "former", "stranger", "target", "newcomer",
        ];
        let [owner, admin, member, former, stranger, target, newcomer] = world.people(names).await;
        Self {
            owner,
            admin,
            member,
            former,
            stranger,
            target,
            newcomer,
        }
    }

    /// A fresh group in which everybody has the relation they are named for.
    async fn group(&self) -> String {
        let members = [&self.admin, &self.member, &self.former, &self.target];
        let group = self.owner.group(&members).await;
        let admin = format!("{group}/members/{}", self.admin.id);
        self.owner
            .patch(&admin, json!({"role": "admin"}))
            .await
            .is(200);
        let former = format!("{group}/members/{}", self.former.id);
        self.owner.delete(&former).await.is(200);
        let sent = self.target.say(&group, "hi").await;
        assert_eq!(sent["seq"], MESSAGE);
        group
    }

    fn token(&self, asking: &str) -> Option<&str> {
        let person = match asking {
            "owner" => &self.owner,
            "admin" => &self.admin,
            "member" => &self.member,
            "former" => &self.former,
            "stranger" => &self.stranger,
            _ => return None,
        };
        Some(&person.access)
    }
}
