//! Changes of messages that are malformed, out of bounds, not allowed, or too many.

use rookery_protocol::Seq;
use rookery_test_support::new_message_id;
use serde_json::{Value, json};

use crate::stage::{Stage, builder, is_error, send_to, with};

fn edit(stage: &Stage, seq: i64) -> Value {
    json!({
        "type": "message.edit", "ref": "r",
        "conversation_id": stage.group, "seq": seq, "content": "x",
    })
}

fn reaction(stage: &Stage, seq: i64, emoji: &str) -> Value {
    json!({
        "type": "reaction.add", "ref": "r",
        "conversation_id": stage.group, "seq": seq, "emoji": emoji,
    })
}

fn of_type(frame: &Value, name: &str) -> Value {
    with(frame.clone(), "type", json!(name))
}

#[tokio::test]
async fn fields_of_the_wrong_shape_are_named() {
    let mut stage = Stage::set().await;
    let (edit, reaction) = (edit(&stage, 1), reaction(&stage, 1, "👍"));
    let delete = of_type(&edit, "message.delete");
    let remove = of_type(&reaction, "reaction.remove");
    let mut cases: Vec<(&Value, &str, Value)> = vec![
        (&edit, "content", Value::Null),
        (&reaction, "emoji", Value::Null),
        (&remove, "emoji", Value::Null),
    ];
    for frame in [&edit, &delete, &reaction, &remove] {
        for value in [json!(7), json!("x"), json!([]), Value::Null] {
            cases.push((frame, "conversation_id", value));
        }
        for value in [
            json!("1"),
            json!(1.5),
            json!(u64::MAX),
            json!({}),
            Value::Null,
        ] {
            cases.push((frame, "seq", value));
        }
    }
    for value in [json!(5), json!([]), json!(true)] {
        cases.push((&edit, "content", value.clone()));
        cases.push((&reaction, "emoji", value));
    }
    for value in ["", " \n", "a\0b", &"x".repeat(16_001)] {
        cases.push((&edit, "content", json!(value)));
    }
    let endless = "👨\u{200d}".repeat(50);
    for value in [
        "", " ", "x", ":-)", ":+1:", "👍👍", "👍x", "\u{fe0f}", "\0", &endless,
    ] {
        cases.push((&reaction, "emoji", json!(value)));
        cases.push((&remove, "emoji", json!(value)));
    }
    for (frame, field, value) in cases {
        let frame = with(frame.clone(), field, value).to_string();
        let shown: String = frame.chars().take(200).collect();
        let error = stage.refused(&shown, &frame, "INVALID", field).await;
        assert_eq!(error["ref"], "r", "{shown}: {error}");
        if frame.contains("\"emoji\":\"") && field == "emoji" {
            let allowed = error["details"][0]["allowed"].as_str().unwrap_or_default();
            assert!(allowed.contains("32 bytes"), "{shown}: {error}");
        }
    }
}

#[tokio::test]
async fn what_is_not_ones_own_cannot_be_changed() {
    let mut stage = Stage::set().await;
    let foreign = stage.foreign;
    let last = stage.ann.send_text(stage.group, "ann's").await.unwrap();
    let bobs = stage.bob.send_text(stage.group, "bob's").await.unwrap();
    let nowhere = json!(new_message_id());
    for (frame, code) in [
        (edit(&stage, bobs.seq.0), "FORBIDDEN"),
        // The server's, of which nobody is the author.
        (edit(&stage, 1), "FORBIDDEN"),
        (of_type(&edit(&stage, 1), "message.delete"), "FORBIDDEN"),
        (reaction(&stage, 1, "👍"), "FORBIDDEN"),
        (edit(&stage, 0), "NOT_FOUND"),
        (edit(&stage, -1), "NOT_FOUND"),
        (edit(&stage, i64::MAX), "NOT_FOUND"),
        (reaction(&stage, i64::MIN, "👍"), "NOT_FOUND"),
        (reaction(&stage, bobs.seq.0 + 1, "👍"), "NOT_FOUND"),
        (
            with(edit(&stage, 1), "conversation_id", json!(foreign)),
            "NOT_FOUND",
        ),
        (
            with(edit(&stage, 1), "conversation_id", nowhere),
            "NOT_FOUND",
        ),
        (
            with(reaction(&stage, 1, "👍"), "conversation_id", json!(foreign)),
            "NOT_FOUND",
        ),
    ] {
        let frame = frame.to_string();
        let error = stage.refused(&frame, &frame, code, "").await;
        assert_eq!(error["ref"], "r", "{frame}: {error}");
    }
    stage
        .ann
        .delete_message(stage.group, last.seq)
        .await
        .unwrap();
    for frame in [
        edit(&stage, last.seq.0),
        reaction(&stage, last.seq.0, "👍"),
        of_type(&reaction(&stage, last.seq.0, "👍"), "reaction.remove"),
    ] {
        let frame = frame.to_string();
        stage.refused(&frame, &frame, "CONFLICT", "").await;
    }
    // Eve wrote here once, and is no member any more.
    let mut eves = stage.open(&stage.eve).await;
    eves.json(&reaction(&stage, bobs.seq.0, "👍")).await;
    let error = eves.expect("error").await;
    assert_eq!(error["code"], "NOT_FOUND", "{error}");
    let seen = stage.ann.conversation(stage.group).await.unwrap();
    assert_eq!(
        seen.last_seq,
        Seq(bobs.seq.0 + 1),
        "only the deletion has a place"
    );
}

/// Changes and sends share one allowance, and a refused change has done nothing.
#[tokio::test]
async fn a_flood_of_reactions_is_slowed_down() {
    let cluster = builder().set("ROOKERY_RATES_ENABLED", "true").start().await;
    let mut stage = Stage::on(cluster).await;
    let mut socket = stage.open(&stage.ann).await;
    socket.json(&send_to(stage.group, "hi")).await;
    let seq = socket.expect("message.ack").await["seq"].as_i64().unwrap();
    let (mut done, mut limited) = (0, 0);
    for number in 0..100 {
        let add = reaction(&stage, seq, "👍");
        let name = if number % 2 == 0 {
            "reaction.add"
        } else {
            "reaction.remove"
        };
        socket.json(&of_type(&add, name)).await;
    }
    while done + limited < 100 {
        let event = socket.event().await;
        if event["type"] == "ok" {
            done += 1;
        } else if event["type"] == "error" {
            is_error(&event, "flood");
            assert_eq!(event["code"], "RATE_LIMITED", "{event}");
            assert!(event["retry_after_ms"].as_u64().unwrap() >= 1, "{event}");
            limited += 1;
        }
    }
    assert!(limited > 0, "100 at once are more than the burst");
    let seen = stage.bob.conversation(stage.group).await.unwrap();
    assert!(
        seen.last_seq.0 <= seq + done,
        "a refused one has no place in the log"
    );
    stage.still_works(&mut socket, "a flood of reactions").await;
}
