//! More than one may send.

use std::collections::BTreeSet;
use std::time::Duration;

use rookery_client::rest::Span;
use rookery_test_support::wire::{FIN, TEXT, frame};
use serde_json::{Value, json};

use crate::stage::{Stage, builder, is_error, send_to};

#[tokio::test]
async fn a_flood_is_slowed_down_and_nothing_is_lost() {
    const COUNT: usize = 100;
    let cluster = builder().set("ROOKERY_RATES_ENABLED", "true").start().await;
    let mut stage = Stage::on(cluster).await;
    let mut socket = stage.open(&stage.ann).await;
    let sends: Vec<Value> = (0..COUNT)
        .map(|number| send_to(stage.group, &number.to_string()))
        .collect();
    let bytes: Vec<u8> = sends
        .iter()
        .flat_map(|send| frame(FIN | TEXT, send.to_string().as_bytes()))
        .collect();
    socket.raw(&bytes).await;

    let mut stored = BTreeSet::new();
    let mut waiting = sends.len();
    let mut refusals = 0;
    while waiting > 0 {
        let event = socket.event().await;
        if event["type"] == "message.ack" {
            assert!(stored.insert(event["seq"].as_i64().unwrap()), "{event}");
            waiting -= 1;
        } else if event["type"] == "error" {
            is_error(&event, "flood");
            assert_eq!(event["code"], "RATE_LIMITED", "{event}");
            let wait = event["retry_after_ms"].as_u64().unwrap();
            assert!((1..=1_000).contains(&wait), "{event}");
            refusals += 1;
            // As a client does: the same again, once it may.
            let id = &event["message_id"];
            let again = sends.iter().find(|send| send["message_id"] == *id).unwrap();
            tokio::time::sleep(Duration::from_millis(wait)).await;
            socket.json(again).await;
        }
    }
    assert!(refusals > 0, "{COUNT} at once are more than the burst");
    let first = *stored.first().unwrap();
    let dense: BTreeSet<i64> = (first..).take(COUNT).collect();
    assert_eq!(stored, dense, "each was stored once");

    // Who keeps quiet is not slowed down, and answers to a flood are no bad frames.
    let mut other = stage.open(&stage.bob).await;
    other.json(&send_to(stage.group, "calm")).await;
    loop {
        let event = other.event().await;
        assert_ne!(event["type"], "error", "{event}");
        if event["type"] == "message.ack" {
            break;
        }
    }
    socket.json(&json!({"type": "ping", "ref": "open"})).await;
    socket.expect("pong").await;
    let history = stage
        .bob
        .history(stage.group, Span::Newest, 200)
        .await
        .unwrap();
    let texts: BTreeSet<&str> = history
        .items
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    assert!((0..COUNT).all(|number| texts.contains(number.to_string().as_str())));
    stage.all_is_well("a flood").await;
}
