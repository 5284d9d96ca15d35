//! The document says what the code does: its routes are the router's, its types the wire's.

use std::collections::BTreeSet;

use rookery_protocol::conversation::{
    Conversation, ConversationKind, Member, MemberRole, OwnMembership,
};
use rookery_protocol::event::{ErrorDetail, Presence};
use rookery_protocol::message::{Message, MessageKind, MessageStatus, Reaction};
use rookery_protocol::rest;
use rookery_protocol::user::{PresenceStatus, User, UserRole};
use rookery_protocol::{ErrorCode, Seq, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

fn strings(value: &Value) -> BTreeSet<String> {
    let texts = value.as_array().unwrap().iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Every operation of the document: method, path, operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{method} {path}");
            found.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    found
}

#[test]
fn the_document_lists_the_routes_of_the_router() {
    let documented: BTreeSet<(String, String)> = operations(&document())
        .into_iter()
        .map(|(method, path, _)| (method, path))
        .collect();
    let routed: BTreeSet<(String, String)> = super::super::table()
        .into_iter()
        .map(|route| {
            (
                route.method.to_string(),
                format!("{}{}", super::super::PREFIX, route.path),
            )
        })
        .collect();
    assert_eq!(documented, routed);
}

#[test]
fn every_operation_documents_its_path_and_has_a_name_of_its_own() {
    let document = document();
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name), "{method} {path}");
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let documented: BTreeSet<String> = parameters
            .iter()
            .map(|reference| follow(&document, reference))
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect();
        let named: BTreeSet<String> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(str::to_owned)
            .collect();
        assert_eq!(documented, named, "{method} {path}");
        assert!(
            operation["responses"]["200"].is_object() || operation["responses"]["201"].is_object()
        );
    }
}

fn follow<'a>(document: &'a Value, reference: &'a Value) -> &'a Value {
    let Some(path) = reference["$ref"].as_str() else {
        return reference;
    };
    document
        .pointer(path.trim_start_matches('#'))
        .unwrap_or_else(|| panic!("{path} is nowhere"))
}

#[test]
fn every_reference_leads_somewhere_and_every_type_is_used() {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| collect(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| collect(inner, found)),
            _ => {}
        }
    }
    let document = document();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    for reference in &references {
        assert!(
            document
                .pointer(reference.trim_start_matches('#'))
                .is_some(),
            "{reference}"
        );
    }
    for part in ["schemas", "parameters", "responses"] {
        for name in keys(&document["components"][part]) {
            let reference = format!("#/components/{part}/{name}");
            assert!(references.contains(&reference), "{reference} is not used");
        }
    }
}

/// The documented properties of `name` are the fields of `sample`, which has all of them set.
fn same_fields(name: &str, sample: impl Serialize) {
    let schema = &document()["components"]["schemas"][name];
    let fields = keys(&serde_json::to_value(sample).unwrap());
    assert_eq!(keys(&schema["properties"]), fields, "{name}");
}

/// `T` can be read from the documented required fields of `name` alone, and from none less.
fn same_required<T: DeserializeOwned>(name: &str, sample: &Value) {
    let schema = &document()["components"]["schemas"][name];
    assert_eq!(keys(&schema["properties"]), keys(sample), "{name}");
    let required = schema["required"]
        .as_array()
        .map(|_| strings(&schema["required"]));
    let required = required.unwrap_or_default();
    let mut least = sample.as_object().unwrap().clone();
    least.retain(|key, _| required.contains(key));
    let read = |map: &Map<String, Value>| serde_json::from_value::<T>(map.clone().into()).is_ok();
    assert!(read(sample.as_object().unwrap()), "{name}: all fields");
    assert!(read(&least), "{name}: required fields only");
    for field in &required {
        let mut less = least.clone();
        less.remove(field);
        assert!(!read(&less), "{name}: without {field}");
    }
}

const TIME: Timestamp = Timestamp::from_millis(0);
const ID: &str = "00000000-0000-7000-8000-000000000001";

fn user() -> User {
    User {
        user_id: ID.parse().unwrap(),
        username: String::new(),
        full_name: None,
        avatar_url: None,
        role: UserRole::User,
        created_at: TIME,
        last_seen_at: None,
        email: Some(String::new()),
    }
}

fn presence() -> Presence {
    Presence {
        user_id: ID.parse().unwrap(),
        status: PresenceStatus::Offline,
        online_since: None,
        last_seen_at: None,
    }
}

fn message() -> Message {
    Message {
        message_id: ID.parse().unwrap(),
        conversation_id: ID.parse().unwrap(),
        seq: Seq(1),
        sender_id: ID.parse().unwrap(),
        kind: MessageKind::Text,
        content: String::new(),
        metadata: None,
        created_at: TIME,
        edited_at: None,
        deleted_at: None,
        reply_to: None,
        mentions: Vec::new(),
        reactions: Vec::new(),
        status: None,
    }
}

fn own_membership() -> OwnMembership {
    OwnMembership {
        role: MemberRole::Owner,
        joined_seq: Seq(0),
        delivered_seq: Seq(0),
        read_seq: Seq(0),
        muted_until: None,
    }
}

#[test]
fn answers_are_documented_field_by_field() {
    same_fields("User", user());
    same_fields("Presence", presence());
    same_fields("Message", message());
    same_fields(
        "Reaction",
        Reaction {
            emoji: String::new(),
            user_ids: Vec::new(),
            count: 0,
        },
    );
    same_fields("OwnMembership", own_membership());
    let conversation = Conversation {
        conversation_id: ID.parse().unwrap(),
        kind: ConversationKind::Group,
        title: None,
        description: None,
        history_visible: false,
        created_by: ID.parse().unwrap(),
        created_at: TIME,
        member_count: 1,
        last_seq: Seq(0),
        last_message: None,
        unread_count: 0,
        mention_count: 0,
        me: own_membership(),
    };
    same_fields("Conversation", conversation);
    let member = Member {
        user_id: ID.parse().unwrap(),
        username: String::new(),
        full_name: None,
        role: MemberRole::Member,
        joined_at: TIME,
        delivered_seq: Seq(0),
        read_seq: Seq(0),
    };
    same_fields("Member", member);
    same_fields(
        "History",
        rest::History {
            items: vec![],
            has_more: false,
            users: vec![],
        },
    );
}

#[test]
fn envelopes_and_sessions_are_documented_field_by_field() {
    let tokens = rest::Tokens {
        user: user(),
        access_token: String::new(),
        refresh_token: String::new(),
        token_type: String::new(),
        expires_in: 0,
    };
    same_fields("Tokens", tokens);
    let receipt = rest::MessageReceipt {
        user_id: ID.parse().unwrap(),
        username: String::new(),
        full_name: None,
        status: MessageStatus::Read,
        read_at: None,
    };
    same_fields("MessageReceipt", receipt);
    let session = rest::Session {
        session_id: ID.parse().unwrap(),
        device_name: None,
        ip: None,
        user_agent: None,
        created_at: TIME,
        last_used_at: TIME,
        expires_at: TIME,
        current: true,
    };
    same_fields("Session", session);
    let success = rest::Success {
        success: true,
        data: (),
        message: None,
        timestamp: TIME,
    };
    same_fields("Success", success);
    let error = rest::ErrorBody {
        code: ErrorCode::Invalid,
        message: String::new(),
        details: Vec::new(),
        retry_after_ms: Some(1),
    };
    same_fields("ErrorBody", error.clone());
    same_fields(
        "Failure",
        rest::Failure {
            success: false,
            error,
            timestamp: TIME,
        },
    );
    same_fields("ErrorDetail", ErrorDetail::new("", "", ""));
}

#[test]
fn bodies_are_documented_with_what_they_require() {
    let register = json!({
        "username": "", "email": "", "password": "", "full_name": "", "device_name": "",
    });
    same_required::<rest::Register>("Register", &register);
    let login = json!({"login": "", "password": "", "device_name": ""});
    same_required::<rest::Login>("Login", &login);
    same_required::<rest::Refresh>("Refresh", &json!({"refresh_token": ""}));
    let profile = json!({"full_name": "", "avatar_url": ""});
    same_required::<rest::UpdateProfile>("UpdateProfile", &profile);
    let update = json!({"title": "", "description": ""});
    same_required::<rest::UpdateConversation>("UpdateConversation", &update);
    let direct = json!({"kind": "direct", "user_id": ID});
    same_required::<rest::CreateConversation>("CreateDirect", &direct);
    let group = json!({
        "kind": "group", "conversation_id": ID, "title": "", "description": "",
        "history_visible": true, "member_ids": [ID],
    });
    same_required::<rest::CreateConversation>("CreateGroup", &group);
    same_required::<rest::AddMembers>("AddMembers", &json!({"user_ids": [ID]}));
    same_required::<rest::ChangeRole>("ChangeRole", &json!({"role": "admin"}));
    same_required::<rest::MarkRead>("MarkRead", &json!({"seq": 1}));
    let mark = json!({"conversation_id": ID, "seq": 1});
    same_required::<rest::BulkMark>("BulkMark", &mark);
    same_required::<rest::Marks>("Marks", &json!({"marks": [mark]}));
    let own = json!({"muted_until": TIME});
    same_required::<rest::UpdateMembership>("UpdateMembership", &own);
    let message = json!({"message_id": ID, "content": "", "reply_to": 1, "metadata": {}});
    same_required::<rest::SendMessage>("SendMessage", &message);
    same_required::<rest::EditMessage>("EditMessage", &json!({"content": ""}));
}

#[test]
fn enumerations_are_complete() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let codes = strings(&schemas["ErrorBody"]["properties"]["code"]["enum"]);
    let expected: BTreeSet<_> = ErrorCode::ALL.map(|code| code.as_str().to_owned()).into();
    assert_eq!(codes, expected);
    let words = |values: &[Value]| strings(&values.to_vec().into());
    let roles = [MemberRole::Owner, MemberRole::Admin, MemberRole::Member].map(|role| json!(role));
    assert_eq!(strings(&schemas["MemberRole"]["enum"]), words(&roles));
    let status = [
        MessageStatus::Sent,
        MessageStatus::Delivered,
        MessageStatus::Read,
    ];
    let documented = strings(&schemas["Message"]["properties"]["status"]["enum"]);
    assert_eq!(documented, words(&status.map(|status| json!(status))));
    let status = [
        PresenceStatus::Online,
        PresenceStatus::Away,
        PresenceStatus::Dnd,
        PresenceStatus::Offline,
    ];
    let documented = strings(&schemas["Presence"]["properties"]["status"]["enum"]);
    assert_eq!(documented, words(&status.map(|status| json!(status))));
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    for outside in [
        "http:",
        "https:",
        "src=",
        "@import",
        "url(",
        "innerHTML",
        "//cdn",
    ] {
        assert!(!PAGE.contains(outside), "{outside}");
    }
}
