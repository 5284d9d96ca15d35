//! Editing, deleting and reacting over REST, and whom messages mention.

use axum::http::Method;
use rookery::bus::{BusEvent, Channel};
use rookery::clock::new_id;
use rookery_protocol::UserId;
use serde_json::{Value, json};

use super::world::{Answer, Person, World};
use crate::on_both;

on_both! {
    a_message_is_edited_by_its_author,
    a_message_is_deleted_by_its_author_and_by_admins,
    reactions_are_put_on_and_taken_off,
    what_is_no_emoji_is_refused,
    a_message_takes_fifty_different_emojis,
    names_in_a_message_mention_members,
    replies_name_messages,
}

const THUMB: &str = "%F0%9F%91%8D";

impl Person {
    async fn put(&self, path: &str) -> Answer {
        self.call(Method::PUT, path, None).await
    }
}

/// What members were told of a change: its kind, and to how many.
fn told(world: &World) -> Vec<(String, usize)> {
    let mut told: Vec<(String, usize)> = Vec::new();
    for (channel, event) in world.published() {
        if let (Channel::User(_), BusEvent::Changed { kind, seq, .. }) = (channel, event) {
            let what = format!("{kind:?} {seq}");
            match told.last_mut() {
                Some((last, count)) if *last == what => *count += 1,
                _ => told.push((what, 1)),
            }
        }
    }
    told
}

async fn a_message_is_edited_by_its_author(world: World) {
    let [ann, bob, eve] = world.people(["ann", "bob", "eve"]).await;
    let group = ann.group(&[&bob]).await;
    let sent = ann.say(&group, "helo").await;
    let path = format!("{group}/messages/2");
    world.told_of("helo").await;
    let edited = ann.patch(&path, json!({"content": "hello"})).await;
    let edited = edited.is(200).data();
    assert_eq!(
        (&edited["content"], &edited["seq"]),
        (&json!("hello"), &json!(2))
    );
    assert_eq!(edited["message_id"], sent["message_id"]);
    assert!(edited["edited_at"].is_string());
    assert_eq!(edited["status"], "sent", "one's own");
    assert_eq!(told(&world), [("Edited 3".to_owned(), 2)]);

    let again = ann.patch(&path, json!({"content": "hello"})).await;
    assert_eq!(again.is(200).data()["edited_at"], edited["edited_at"]);
    assert_eq!(told(&world), [], "nothing changed");
    for content in ["", " \n", "a\0b", &"x".repeat(16_001)] {
        ann.patch(&path, json!({"content": content}))
            .await
            .invalid("content");
    }
    ann.patch(&path, json!({})).await.invalid("content");
    let hi = json!({"content": "hi"});
    bob.patch(&path, hi.clone()).await.refused(403, "FORBIDDEN");
    eve.patch(&path, hi.clone()).await.refused(404, "NOT_FOUND");
    for nothing in ["1", "3", "99", "0", "-1", "x"] {
        let path = format!("{group}/messages/{nothing}");
        let answer = ann.patch(&path, hi.clone()).await;
        // The first entry is the server's.
        assert_eq!(
            answer.status,
            if nothing == "1" { 403 } else { 404 },
            "{nothing}"
        );
    }
    let page = bob.get(&format!("{group}/messages")).await.is(200);
    let items = page.items();
    assert_eq!(items.len(), 2, "an edit is no message");
    assert_eq!(
        (&items[1]["content"], &items[1]["status"]),
        (&json!("hello"), &Value::Null)
    );
    assert_eq!(bob.get(&group).await.is(200).data()["last_seq"], 3);

    ann.delete(&format!("{group}/members/{}", bob.id))
        .await
        .is(200);
    let of_bob = format!("{group}/messages/2/reactions/{THUMB}");
    bob.put(&of_bob).await.refused(404, "NOT_FOUND");
}

async fn a_message_is_deleted_by_its_author_and_by_admins(world: World) {
    let [ann, bob, carol] = world.people(["ann", "bob", "carol"]).await;
    let group = ann.group(&[&bob, &carol]).await;
    for text in ["one", "two"] {
        bob.say(&group, text).await;
    }
    let path = |seq: i64| format!("{group}/messages/{seq}");
    carol.delete(&path(2)).await.refused(403, "FORBIDDEN");
    let gone = bob.delete(&path(2)).await.is(200).data();
    assert_eq!((&gone["content"], &gone["seq"]), (&json!(""), &json!(2)));
    assert!(gone["deleted_at"].is_string());
    let again = bob.delete(&path(2)).await.is(200).data();
    assert_eq!(again["deleted_at"], gone["deleted_at"]);
    let gone = ann.delete(&path(3)).await.is(200).data();
    assert_eq!(
        (&gone["content"], &gone["status"]),
        (&json!(""), &Value::Null)
    );
    bob.patch(&path(2), json!({"content": "back"}))
        .await
        .refused(409, "CONFLICT");
    let react = format!("{}/reactions/{THUMB}", path(3));
    ann.put(&react).await.refused(409, "CONFLICT");
    ann.delete(&react).await.refused(409, "CONFLICT");
    let last = carol.get(&group).await.is(200).data();
    assert_eq!(last["last_message"]["content"], "");
    assert_eq!(last["unread_count"], 2, "tombstones keep their place");
    world.told_of("two").await;
}

async fn reactions_are_put_on_and_taken_off(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    ann.say(&group, "hi").await;
    world.told_of("hi").await;
    let path = |emoji: &str| format!("{group}/messages/2/reactions/{emoji}");
    let now = bob.put(&path(THUMB)).await.is(200).data();
    let one = json!([{"emoji": "👍", "user_ids": [bob.id], "count": 1}]);
    assert_eq!((&now["reactions"], &now["status"]), (&one, &Value::Null));
    let again = bob.put(&path(THUMB)).await.is(200).data();
    assert_eq!(again["reactions"], one);
    assert_eq!(told(&world), [("ReactionAdded 3".to_owned(), 2)]);
    ann.put(&path(THUMB)).await.is(200);
    let two = json!([{"emoji": "👍", "user_ids": [bob.id, ann.id], "count": 2}]);
    let page = ann.get(&format!("{group}/messages")).await.is(200);
    assert_eq!(page.items()[1]["reactions"], two);
    let list = ann.get("/conversations").await.is(200);
    assert_eq!(list.items()[0]["last_message"]["reactions"], two);

    // With and without U+FE0F it is the same heart.
    bob.put(&path("%E2%9D%A4")).await.is(200);
    let now = bob.put(&path("%E2%9D%A4%EF%B8%8F")).await.is(200).data();
    assert_eq!(now["reactions"][1]["emoji"], "\u{2764}\u{fe0f}");
    assert_eq!(now["reactions"][1]["count"], 1);
    let now = bob.delete(&path("%E2%9D%A4")).await.is(200).data();
    assert_eq!(now["reactions"], two);
    bob.delete(&path(THUMB)).await.is(200);
    bob.delete(&path(THUMB)).await.is(200);
    let now = ann.delete(&path(THUMB)).await.is(200).data();
    assert_eq!(now["reactions"], json!([]));
    assert_eq!(ann.get(&group).await.is(200).data()["last_seq"], 8);
}

async fn what_is_no_emoji_is_refused(world: World) {
    let ann = world.register("ann").await;
    let group = ann.group(&[]).await;
    ann.say(&group, "hi").await;
    let twice = THUMB.repeat(2);
    let long = THUMB.repeat(9);
    for bad in ["a", "1", "ok", "%20", &twice, &long, "%EF%B8%8F", "%00"] {
        let path = format!("{group}/messages/2/reactions/{bad}");
        let answer = ann.put(&path).await.invalid("emoji");
        let details = answer.error()["details"].to_string();
        assert!(details.contains("32 bytes"), "{details}");
        ann.delete(&path).await.invalid("emoji");
    }
    // Not text at all: no such path.
    let path = format!("{group}/messages/2/reactions/%FF");
    ann.put(&path).await.refused(404, "NOT_FOUND");
}

async fn a_message_takes_fifty_different_emojis(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    ann.say(&group, "hi").await;
    let path = |number: u32| {
        // From U+1F400 on, one after the other.
        let emoji = char::from_u32(0x1F400 + number).unwrap().to_string();
        let bytes = emoji.bytes().map(|byte| format!("%{byte:02X}"));
        format!("{group}/messages/2/reactions/{}", bytes.collect::<String>())
    };
    for number in 0..50 {
        ann.put(&path(number)).await.is(200);
    }
    let refused = ann.put(&path(50)).await.refused(409, "CONFLICT");
    let message = refused.error()["message"].to_string();
    assert!(message.contains("50"), "{message}");
    let now = bob.put(&path(0)).await.is(200).data();
    assert_eq!(now["reactions"].as_array().unwrap().len(), 50);
    ann.delete(&path(49)).await.is(200);
    bob.put(&path(50)).await.is(200);
}

async fn names_in_a_message_mention_members(world: World) {
    let [ann, bob, dot, eve] = world.people(["ann", "bob", "dot.", "eve"]).await;
    let group = ann.group(&[&bob, &dot]).await;
    let mentions = |message: &Value| -> Vec<UserId> {
        serde_json::from_value(message["mentions"].clone()).unwrap()
    };
    let path = format!("{group}/messages");
    let body = json!({
        "message_id": new_id(),
        "content": "@Bob, @bob. and @eve: ask @dot. or x@ann.org (@nobody)",
    });
    let sent = ann.post(&path, body.clone()).await.is(201).data();
    assert_eq!(mentions(&sent), [bob.id, dot.id], "members only, each once");
    let again = ann.post(&path, body).await.is(200).data();
    assert_eq!(again["seq"], sent["seq"]);
    let count = async |who: &Person| {
        let seen = who.get(&group).await.is(200).data();
        (
            seen["unread_count"].as_i64(),
            seen["mention_count"].as_i64(),
        )
    };
    assert_eq!(count(&bob).await, (Some(1), Some(1)));
    assert_eq!(count(&ann).await, (Some(0), Some(0)));
    eve.get(&group).await.refused(404, "NOT_FOUND");

    let edit = json!({"content": "@dot. only"});
    let edited = ann.patch(&format!("{path}/2"), edit).await.is(200).data();
    assert_eq!(mentions(&edited), [dot.id]);
    assert_eq!(count(&bob).await, (Some(1), Some(0)));
    assert_eq!(count(&dot).await, (Some(1), Some(1)));
    dot.post(&format!("{group}/read"), json!({"seq": 3}))
        .await
        .is(200);
    assert_eq!(count(&dot).await, (Some(0), Some(0)));
    let page = dot.get(&path).await.is(200);
    assert_eq!(mentions(&page.items()[1]), [dot.id]);
}

async fn replies_name_messages(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    ann.say(&group, "hi").await;
    bob.put(&format!("{group}/messages/2/reactions/{THUMB}"))
        .await
        .is(200);
    let path = format!("{group}/messages");
    let reply = async |to: i64| {
        let body = json!({"message_id": new_id(), "content": "re", "reply_to": to});
        bob.post(&path, body).await
    };
    for no_message in [0, -1, 3, 4, 99] {
        reply(no_message).await.invalid("reply_to");
    }
    assert_eq!(reply(2).await.is(201).data()["reply_to"], 2);
    ann.delete(&format!("{path}/2")).await.is(200);
    assert_eq!(
        reply(2).await.is(201).data()["reply_to"],
        2,
        "its place is there"
    );
}
