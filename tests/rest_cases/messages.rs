//! Sending and history over REST.

use rookery::clock::new_id;
use serde_json::{Value, json};

use super::world::World;
use crate::on_both;

on_both! {
    a_message_is_stored_once_and_told,
    bad_messages_are_refused_by_field,
    history_is_read_in_both_directions,
}

async fn a_message_is_stored_once_and_told(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    let path = format!("{group}/messages");
    let body = json!({
        "message_id": new_id(), "content": "hello", "reply_to": 1, "metadata": {"k": [1, null]},
    });
    let sent = ann.post(&path, body.clone()).await.is(201).data();
    assert_eq!(
        (&sent["seq"], &sent["sender_id"]),
        (&json!(2), &json!(ann.id))
    );
    assert_eq!(
        (&sent["kind"], &sent["status"]),
        (&json!("text"), &json!("sent"))
    );
    assert_eq!(
        (&sent["reply_to"], &sent["metadata"]),
        (&json!(1), &json!({"k": [1, null]}))
    );
    assert_eq!(world.told_of("hello").await.len(), 2);
    let again = ann.post(&path, body.clone()).await.is(200).data();
    assert_eq!(
        (&again["seq"], &again["created_at"]),
        (&sent["seq"], &sent["created_at"])
    );
    let mut other = body.clone();
    other["content"] = json!("something else");
    ann.post(&path, other).await.refused(409, "CONFLICT");
    bob.post(&path, body).await.refused(409, "CONFLICT");
    assert_eq!(ann.get(&group).await.is(200).data()["last_seq"], 2);
}

async fn bad_messages_are_refused_by_field(world: World) {
    let ann = world.register("ann").await;
    let group = ann.group(&[]).await;
    let path = format!("{group}/messages");
    let send = |field: &str, value: Value| {
        let (ann, path) = (ann.clone(), path.clone());
        let mut body = json!({"message_id": new_id(), "content": "x"});
        body[field] = value;
        async move { ann.post(&path, body).await }
    };
    send("content", json!("")).await.invalid("content");
    send("content", json!(" \n")).await.invalid("content");
    send("content", json!("a\0b")).await.invalid("content");
    send("content", json!("x".repeat(16_001)))
        .await
        .invalid("content");
    send("content", json!(7)).await.invalid("content");
    send("message_id", json!("x")).await.invalid("message_id");
    send("metadata", json!([])).await.invalid("metadata");
    send("metadata", json!({"x": "x".repeat(4_096)}))
        .await
        .invalid("metadata");
    send("reply_to", json!("1")).await.invalid("reply_to");
    send("content", json!("é".repeat(16_000))).await.is(201);
    let lost = format!("/conversations/{}/messages", new_id());
    let body = json!({"message_id": new_id(), "content": "x"});
    ann.post(&lost, body).await.refused(404, "NOT_FOUND");
}

async fn history_is_read_in_both_directions(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    for number in 2..=7 {
        let who = if number % 2 == 0 { &ann } else { &bob };
        who.say(&group, &number.to_string()).await;
    }
    let history = |query: &str| {
        let ann = ann.clone();
        let path = format!("{group}/messages?{query}");
        async move {
            let page = ann.get(&path).await.is(200);
            let seqs = page
                .items()
                .iter()
                .map(|one| one["seq"].as_i64().unwrap())
                .collect();
            (seqs, page.data()["has_more"].as_bool().unwrap())
        }
    };
    let expect = |seqs: &[i64], more: bool| (seqs.to_vec(), more);
    assert_eq!(history("").await, expect(&[1, 2, 3, 4, 5, 6, 7], false));
    assert_eq!(history("limit=3").await, expect(&[5, 6, 7], true));
    assert_eq!(
        history("limit=3&before_seq=5").await,
        expect(&[2, 3, 4], true)
    );
    assert_eq!(
        history("limit=3&before_seq=4").await,
        expect(&[1, 2, 3], false)
    );
    assert_eq!(
        history("limit=3&after_seq=0").await,
        expect(&[1, 2, 3], true)
    );
    assert_eq!(
        history("limit=3&after_seq=4").await,
        expect(&[5, 6, 7], false)
    );
    assert_eq!(history("after_seq=7").await, expect(&[], false));
    let page = ann
        .get(&format!("{group}/messages?limit=2"))
        .await
        .is(200)
        .data();
    let mut names: Vec<&str> = page["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["username"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["ann", "bob"]);
    assert!(page["users"][0].get("email").is_none());
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("before_seq=x", "before_seq"),
        ("after_seq=-1", "after_seq"),
        ("before_seq=3&after_seq=1", "after_seq"),
    ] {
        ann.get(&format!("{group}/messages?{query}"))
            .await
            .invalid(field);
    }
}
