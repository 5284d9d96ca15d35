//! Commands whose fields are missing, of another type, out of bounds, or about what is not one's
//! own.

use rookery_test_support::wire::Wire;
use rookery_test_support::{eventually, new_message_id};
use serde_json::{Value, json};

use crate::stage::{Stage, is_error, send_to, with};

#[tokio::test]
async fn fields_of_the_wrong_shape_are_named() {
    let mut stage = Stage::set().await;
    let send = send_to(stage.group, "x");
    let mark =
        json!({"type": "message.read", "ref": "r", "conversation_id": stage.group, "seq": 1});
    let sync = json!({"type": "sync", "ref": "r", "cursors": {}});
    let auth = json!({"type": "auth", "ref": "r", "token": "x"});
    let not_an_id = [
        json!(7),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
    ];
    let not_a_number = [
        json!("1"),
        json!(1.5),
        json!([]),
        json!({}),
        json!(true),
        json!(u64::MAX),
    ];

    let mut cases: Vec<(Value, &str, Value)> = vec![
        (send.clone(), "message_id", Value::Null),
        (send.clone(), "content", Value::Null),
        (mark.clone(), "conversation_id", Value::Null),
        (mark.clone(), "seq", Value::Null),
        (auth.clone(), "token", Value::Null),
        (auth.clone(), "resume", json!("yes")),
    ];
    for value in not_an_id {
        cases.push((send.clone(), "message_id", value.clone()));
        cases.push((send.clone(), "conversation_id", value.clone()));
        cases.push((send.clone(), "recipient_id", value.clone()));
        cases.push((mark.clone(), "conversation_id", value));
    }
    for value in not_a_number {
        cases.push((send.clone(), "reply_to", value.clone()));
        cases.push((mark.clone(), "seq", value));
    }
    for value in [json!(5), json!([]), json!({}), json!(true)] {
        cases.push((send.clone(), "content", value.clone()));
        cases.push((auth.clone(), "token", value));
    }
    for value in [json!(5), json!([]), json!("x"), json!(true)] {
        cases.push((send.clone(), "metadata", value.clone()));
        cases.push((sync.clone(), "since", value.clone()));
        cases.push((sync.clone(), "cursors", value));
    }
    for (frame, field, value) in cases {
        let frame = with(frame, field, value).to_string();
        let error = stage.refused(&frame, &frame, "INVALID", field).await;
        assert_eq!(error["ref"], "r", "{frame}: {error}");
    }
}

#[tokio::test]
async fn cursors_and_refs_are_named_too() {
    let mut stage = Stage::set().await;
    // Cursors are named down to the conversation.
    let own = stage.group.to_string();
    for (key, value) in [
        ("x", json!(1)),
        (own.as_str(), json!("1")),
        (own.as_str(), json!(1.5)),
    ] {
        let frame = json!({"type": "sync", "cursors": {key: value}}).to_string();
        let error = stage.refused(&frame, &frame, "INVALID", "").await;
        let field = error["details"][0]["field"].as_str().unwrap();
        assert!(field.starts_with("cursors"), "{frame}: {error}");
    }
    // A `ref` that is none cannot be answered with.
    for value in [
        json!(7),
        json!([]),
        json!("x".repeat(65)),
        json!("é".repeat(33)),
    ] {
        let frame = with(json!({"type": "ping"}), "ref", value).to_string();
        let error = stage.refused(&frame, &frame, "INVALID", "ref").await;
        assert_eq!(error["ref"], Value::Null, "{frame}: {error}");
    }
    let mut socket = stage.open(&stage.ann).await;
    let longest = "x".repeat(64);
    socket.json(&json!({"type": "ping", "ref": longest})).await;
    assert_eq!(socket.event().await["ref"], longest);
}

#[tokio::test]
async fn numbers_too_large_for_their_field_are_refused() {
    let mut stage = Stage::set().await;
    let id = stage.group.to_string();
    for number in [
        "9223372036854775808",
        "-9223372036854775809",
        "1e99",
        "1e999",
        "-1e999",
        "0.5",
    ] {
        let frame = format!(
            r#"{{"type":"message.read","ref":"r","conversation_id":"{id}","seq":{number}}}"#
        );
        stage.refused(&frame, &frame, "INVALID", "seq").await;
    }
    let digits = "9".repeat(50_000);
    let frame = format!(r#"{{"type":"message.read","conversation_id":"{id}","seq":{digits}}}"#);
    stage
        .refused("50,000 digits", &frame, "INVALID", "seq")
        .await;
}

#[tokio::test]
async fn content_and_metadata_have_bounds() {
    let mut stage = Stage::set().await;
    let send = send_to(stage.group, "x");
    let in_metadata = |size: usize| {
        let empty = json!({"k": ""}).to_string().len();
        json!({"k": "x".repeat(size - empty)})
    };
    for (field, value) in [
        ("content", json!("")),
        ("content", json!(" \t\n\u{a0}\u{2003}")),
        ("content", json!("x".repeat(16_001))),
        ("content", json!("💚".repeat(16_001 - 1) + "xx")),
        ("content", json!("\0")),
        ("content", json!("a\0b")),
        ("metadata", in_metadata(4_097)),
        ("metadata", json!({"k": "\0"})),
        ("metadata", json!({"\0": 1})),
        ("metadata", json!({"k": [1, {"l": ["deep", "\0"]}]})),
    ] {
        let frame = with(send.clone(), field, value).to_string();
        let shown: String = frame.chars().take(200).collect();
        // 16,001 characters of four bytes fit no frame; the others are refused by their field.
        let error = stage.refused(&shown, &frame, "INVALID", field).await;
        assert_eq!(error["ref"], "r", "{shown}: {error}");
        assert_eq!(error["message_id"], send["message_id"], "{shown}: {error}");
        assert!(
            error["details"][0]["allowed"].is_string(),
            "{shown}: {error}"
        );
    }

    let mut socket = stage.open(&stage.ann).await;
    for (field, value) in [
        ("content", json!("x".repeat(16_000))),
        ("content", json!("💚".repeat(16_000))),
        ("content", json!("\u{1}\u{7f}\u{202e}\u{feff}x")),
        ("metadata", in_metadata(4_096)),
        ("metadata", json!({})),
    ] {
        socket
            .json(&with(send_to(stage.group, "x"), field, value))
            .await;
        socket.expect("message.ack").await;
    }
    stage.still_works(&mut socket, "the largest messages").await;
}

/// The one error to all of these; what does not exist and what is not one's own look the same.
async fn not_found(stage: &mut Stage, what: &str, frame: &Value) -> Value {
    let mut error = stage
        .refused(what, &frame.to_string(), "NOT_FOUND", "")
        .await;
    assert_eq!(error["ref"], "r", "{what}: {error}");
    error.as_object_mut().unwrap().remove("message_id");
    error
}

#[tokio::test]
async fn what_is_not_ones_own_does_not_exist() {
    let mut stage = Stage::set().await;
    let nowhere = rookery_protocol::ConversationId::from_uuid(*new_message_id().as_uuid());
    let mark = |kind: &str, id| json!({"type": kind, "ref": "r", "conversation_id": id, "seq": 1});
    let unknown = not_found(&mut stage, "unknown", &send_to(nowhere, "x")).await;
    let direct = stage.bob.direct(&stage.eve);
    let foreign = stage.foreign;
    for (what, frame) in [
        ("a foreign group", send_to(foreign, "x")),
        ("a direct conversation of others", send_to(direct, "x")),
        ("reading nowhere", mark("message.read", nowhere)),
        ("reading elsewhere", mark("message.read", foreign)),
        ("delivered nowhere", mark("message.delivered", nowhere)),
        ("delivered elsewhere", mark("message.delivered", foreign)),
        ("a recipient who does not exist", {
            let frame = with(send_to(nowhere, "x"), "conversation_id", Value::Null);
            with(frame, "recipient_id", json!(nowhere))
        }),
    ] {
        assert_eq!(not_found(&mut stage, what, &frame).await, unknown, "{what}");
    }

    // Eve was in the group and is not any more.
    let mut socket = stage.open(&stage.eve).await;
    socket.json(&send_to(stage.group, "let me in")).await;
    let mut error = socket.event().await;
    error.as_object_mut().unwrap().remove("message_id");
    assert_eq!(error, unknown);
    stage.still_works(&mut socket, "a removed member").await;
}

#[tokio::test]
async fn a_send_goes_to_exactly_one_place_and_is_one_message() {
    let mut stage = Stage::set().await;
    let send = send_to(stage.group, "x");
    let both = with(send.clone(), "recipient_id", json!(stage.bob.id()));
    let neither = with(send.clone(), "conversation_id", Value::Null);
    let to_oneself = with(neither.clone(), "recipient_id", json!(stage.ann.id()));
    stage
        .refused("both", &both.to_string(), "INVALID", "conversation_id")
        .await;
    stage
        .refused(
            "neither",
            &neither.to_string(),
            "INVALID",
            "conversation_id",
        )
        .await;
    stage
        .refused(
            "to oneself",
            &to_oneself.to_string(),
            "INVALID",
            "recipient_id",
        )
        .await;
    for reply_to in [0, -1, 4_000, i64::MIN, i64::MAX] {
        let frame = with(send_to(stage.group, "x"), "reply_to", json!(reply_to)).to_string();
        stage.refused(&frame, &frame, "INVALID", "reply_to").await;
    }

    let mut socket = stage.open(&stage.ann).await;
    socket.json(&send).await;
    let first = socket.expect("message.ack").await;
    for (field, value) in [
        ("content", json!("y")),
        ("metadata", json!({"k": 1})),
        ("reply_to", json!(1)),
    ] {
        let frame = with(send.clone(), field, value).to_string();
        let error = stage.refused(&frame, &frame, "CONFLICT", "").await;
        assert_eq!(error["message_id"], send["message_id"]);
    }
    let mut bobs = stage.open(&stage.bob).await;
    bobs.json(&send).await;
    let error = bobs.event().await;
    is_error(&error, "somebody else's message_id");
    assert_eq!(error["code"], "CONFLICT", "{error}");
    socket.json(&send).await;
    let again = socket.expect("message.ack").await;
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&first["seq"], &json!(true))
    );
}

#[tokio::test]
async fn marks_stay_within_the_log() {
    let mut stage = Stage::set().await;
    let end = stage
        .ann
        .conversation(stage.group)
        .await
        .unwrap()
        .last_seq
        .0;
    for kind in ["message.read", "message.delivered"] {
        let mark = |seq: i64| json!({"type": kind, "ref": "r", "conversation_id": stage.group, "seq": seq});
        let bad = [end + 1, i64::MAX, -1, i64::MIN].map(mark);
        let good = [0, end, 1].map(mark);
        for frame in bad {
            let frame = frame.to_string();
            stage.refused(&frame, &frame, "INVALID", "seq").await;
        }
        let mut socket = stage.open(&stage.ann).await;
        for frame in good {
            socket.json(&frame).await;
        }
        // Marks are answered only if they fail.
        stage.still_works(&mut socket, kind).await;
    }
    eventually("the marks are stored; backwards is ignored", async || {
        let mine = stage.ann.conversation(stage.group).await.unwrap().me;
        (mine.read_seq.0, mine.delivered_seq.0) == (end, end)
    })
    .await;
}

/// Everything up to `sync.done`, which comes last.
async fn synced(socket: &mut Wire, cursors: Value) -> (Vec<Value>, Value) {
    socket
        .json(&json!({"type": "sync", "ref": "s", "cursors": cursors}))
        .await;
    let mut events = Vec::new();
    loop {
        let event = socket.event().await;
        assert_ne!(event["type"], "error", "{event}");
        if event["type"] == "sync.done" {
            return (events, event);
        }
        events.push(event);
    }
}

#[tokio::test]
async fn absurd_cursors_reset_or_count_for_nothing() {
    let mut stage = Stage::set().await;
    let (own, foreign) = (stage.group.to_string(), stage.foreign.to_string());
    let end = stage
        .ann
        .conversation(stage.group)
        .await
        .unwrap()
        .last_seq
        .0;
    for seq in [-1, i64::MIN] {
        let frame = json!({"type": "sync", "ref": "r", "cursors": {&own: seq}}).to_string();
        let field = format!("cursors.{own}");
        stage.refused(&frame, &frame, "INVALID", &field).await;
    }

    let mut socket = stage.open(&stage.ann).await;
    for seq in [end + 1, 1 << 53, i64::MAX] {
        let (events, done) = synced(&mut socket, json!({&own: seq})).await;
        let batches = events
            .iter()
            .filter(|event| event["type"] == "message.batch")
            .count();
        assert_eq!(batches, 0, "{events:?}");
        let expected = json!([{"conversation_id": own, "seq": end}]);
        assert_eq!(
            done["reset"], expected,
            "a cursor from another epoch: {done}"
        );
    }
    // Of what is not one's own, and of what does not exist, nothing is told.
    let nowhere = new_message_id().to_string();
    let cursors = json!({&own: end, foreign: 0, nowhere: 0});
    let (events, done) = synced(&mut socket, cursors).await;
    assert!(
        events.iter().all(|event| event["type"] == "sync.start"),
        "{events:?}"
    );
    assert_eq!((&done["count"], &done["reset"]), (&json!(0), &json!([])));
    // As many strangers' ids as fit a frame.
    let many = (0..1_000).map(|_| (new_message_id().to_string(), json!(i64::MAX)));
    let mut many: serde_json::Map<String, Value> = many.collect();
    many.insert(own, json!(end));
    let (events, done) = synced(&mut socket, Value::Object(many)).await;
    assert!(
        events.iter().all(|event| event["type"] == "sync.start"),
        "{events:?}"
    );
    assert_eq!(done["reset"], json!([]));
    stage.still_works(&mut socket, "absurd cursors").await;
}
