//! Making and listing conversations.

use rookery::bus::Channel;
use rookery::clock::new_id;
use rookery_protocol::ConversationId;
use serde_json::{Value, json};

use super::world::{Person, World};
use crate::on_both;

on_both! {
    a_direct_conversation_exists_once,
    a_group_starts_with_a_notice,
    making_a_group_is_repeatable_with_ones_own_id,
    groups_refuse_what_is_out_of_bounds,
    the_list_has_the_newest_activity_first,
    the_list_is_paged_and_filtered,
    reading_lowers_the_unread_count,
}

async fn a_direct_conversation_exists_once(world: World) {
    let [ann, bob, eve] = world.people(["ann", "bob", "eve"]).await;
    world.published();
    let body = json!({"kind": "direct", "user_id": bob.id});
    let made = ann
        .post("/conversations", body.clone())
        .await
        .is(201)
        .data();
    assert_eq!(made["kind"], "direct");
    assert_eq!(
        (&made["last_seq"], &made["member_count"]),
        (&json!(0), &json!(2))
    );
    let id = ConversationId::direct(ann.id, bob.id);
    assert_eq!(made["conversation_id"], json!(id));
    let told: Vec<Channel> = world
        .published()
        .into_iter()
        .map(|(channel, _)| channel)
        .collect();
    assert_eq!(told.len(), 2);
    assert!(told.contains(&Channel::User(ann.id)) && told.contains(&Channel::User(bob.id)));
    ann.post("/conversations", body).await.is(200);
    let body = json!({"kind": "direct", "user_id": ann.id});
    let other_side = bob
        .post("/conversations", body.clone())
        .await
        .is(200)
        .data();
    assert_eq!(other_side["conversation_id"], json!(id));
    assert!(world.published().is_empty(), "nothing new to tell");
    eve.get(&format!("/conversations/{id}"))
        .await
        .refused(404, "NOT_FOUND");
    ann.post("/conversations", body).await.invalid("user_id");
    let body = json!({"kind": "direct", "user_id": new_id()});
    ann.post("/conversations", body)
        .await
        .refused(404, "NOT_FOUND");
    for (method, path) in direct_changes(&id, &bob) {
        let body = json!({"title": "x", "user_ids": [eve.id], "role": "owner"});
        ann.call(method.parse().unwrap(), &path, Some(body))
            .await
            .refused(403, "FORBIDDEN");
    }
    assert_eq!(
        ann.say(&format!("/conversations/{id}"), "hi").await["seq"],
        1
    );
}

/// Everything that only groups allow.
fn direct_changes(id: &ConversationId, bob: &Person) -> Vec<(&'static str, String)> {
    let path = format!("/conversations/{id}");
    vec![
        ("PATCH", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/members")),
        ("PATCH", format!("{path}/members/{}", bob.id)),
        ("DELETE", format!("{path}/members/{}", bob.id)),
    ]
}

async fn a_group_starts_with_a_notice(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    world.published();
    let body = json!({
        "kind": "group", "title": "Team", "description": "All of us",
        "member_ids": [bob.id, bob.id, ann.id],
    });
    let group = ann.post("/conversations", body).await.is(201).data();
    assert_eq!(
        (&group["title"], &group["description"]),
        (&json!("Team"), &json!("All of us"))
    );
    assert_eq!(
        (&group["member_count"], &group["last_seq"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&group["me"]["role"], &group["unread_count"]),
        (&json!("owner"), &json!(0))
    );
    assert_eq!(group["created_by"], json!(ann.id));
    let notice = &group["last_message"];
    assert_eq!(
        (&notice["kind"], &notice["seq"]),
        (&json!("system"), &json!(1))
    );
    assert_eq!(notice["content"], "ann created the group \"Team\"");
    assert_eq!(notice["metadata"]["event"], "group_created");
    let mut both = vec![ann.id, bob.id];
    both.sort_unstable();
    assert_eq!(world.told_of("ann created the group \"Team\"").await, both);
    let path = format!(
        "/conversations/{}",
        group["conversation_id"].as_str().unwrap()
    );
    let seen = bob.get(&path).await.is(200).data();
    assert_eq!(
        (&seen["me"]["role"], &seen["unread_count"]),
        (&json!("member"), &json!(0))
    );
    let alone = ann
        .post("/conversations", json!({"kind": "group"}))
        .await
        .is(201)
        .data();
    assert_eq!(
        (&alone["title"], &alone["member_count"]),
        (&Value::Null, &json!(1))
    );
    assert_eq!(alone["last_message"]["content"], "ann created the group");
}

async fn making_a_group_is_repeatable_with_ones_own_id(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let id = new_id();
    let body = json!({"kind": "group", "conversation_id": id, "member_ids": [bob.id]});
    let made = ann
        .post("/conversations", body.clone())
        .await
        .is(201)
        .data();
    assert_eq!(made["conversation_id"], json!(id));
    world.published();
    assert_eq!(
        ann.post("/conversations", body.clone())
            .await
            .is(200)
            .data(),
        made
    );
    assert!(world.published().is_empty());
    bob.post("/conversations", body)
        .await
        .refused(409, "CONFLICT");
    let stolen = ConversationId::direct(ann.id, bob.id);
    let body = json!({"kind": "group", "conversation_id": stolen});
    ann.post("/conversations", body)
        .await
        .invalid("conversation_id");
}

async fn groups_refuse_what_is_out_of_bounds(world: World) {
    let ann = world.register("ann").await;
    let make = |field: &str, value: Value| {
        let ann = ann.clone();
        let mut body = json!({"kind": "group"});
        body[field] = value;
        async move { ann.post("/conversations", body).await }
    };
    make("title", json!("x".repeat(101))).await.invalid("title");
    make("title", json!(" ")).await.invalid("title");
    make("title", json!("a\nb")).await.invalid("title");
    make("description", json!("x".repeat(1_001)))
        .await
        .invalid("description");
    make("description", json!("a\0b"))
        .await
        .invalid("description");
    make("member_ids", json!([new_id()]))
        .await
        .invalid("member_ids");
    let many: Vec<_> = (0..1_001).map(|_| new_id()).collect();
    make("member_ids", json!(many)).await.invalid("member_ids");
    make("member_ids", json!(["x"]))
        .await
        .refused(400, "INVALID");
    make("kind", json!("club")).await.refused(400, "INVALID");
    let listed = ann.get("/conversations").await.is(200);
    assert!(listed.items().is_empty(), "nothing was made");
}

async fn the_list_has_the_newest_activity_first(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let first = ann.group(&[&bob]).await;
    let second = ann.group(&[&bob]).await;
    let order = || async {
        let listed = ann.get("/conversations").await.is(200);
        let ids = listed.each("conversation_id").into_iter();
        ids.map(|id| format!("/conversations/{id}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(order().await, [second.clone(), first.clone()]);
    bob.say(&first, "hello").await;
    assert_eq!(order().await, [first, second]);
    let listed = ann.get("/conversations").await.is(200).items();
    assert_eq!(listed[0]["last_message"]["content"], "hello");
    assert_eq!(
        (&listed[0]["unread_count"], &listed[1]["unread_count"]),
        (&json!(1), &json!(0))
    );
    let own = bob.get("/conversations").await.is(200).items();
    assert_eq!(own[0]["unread_count"], 0, "one's own messages never count");
}

async fn the_list_is_paged_and_filtered(world: World) {
    let [ann, bob, eve] = world.people(["ann", "bob", "eve"]).await;
    bob.patch("/users/me", json!({"full_name": "Robert"}))
        .await
        .is(200);
    ann.post(
        "/conversations",
        json!({"kind": "direct", "user_id": bob.id}),
    )
    .await
    .is(201);
    for title in ["One", "Two", "Three"] {
        ann.post("/conversations", json!({"kind": "group", "title": title}))
            .await
            .is(201);
    }
    let mut titles = Vec::new();
    let mut path = "/conversations?limit=2".to_owned();
    loop {
        let page = ann.get(&path).await.is(200);
        titles.extend(page.each("title"));
        let Some(cursor) = page.data()["next_cursor"].as_str().map(str::to_owned) else {
            break;
        };
        path = format!("/conversations?limit=2&cursor={cursor}");
        eve.get(&path).await.is(200);
        ann.get(&format!("/users?cursor={cursor}"))
            .await
            .invalid("cursor");
    }
    assert_eq!(titles, ["Three", "Two", "One", ""]);
    let found = |query: &str| {
        let ann = ann.clone();
        let path = format!("/conversations?query={query}");
        async move { ann.get(&path).await.is(200).each("title") }
    };
    assert_eq!(found("tw").await, ["Two"]);
    assert_eq!(
        found("BOB").await,
        [""],
        "a direct conversation by the other's username"
    );
    assert_eq!(found("robert").await, [""], "or full name");
    assert_eq!(
        found("ann").await,
        Vec::<String>::new(),
        "one's own name finds nothing"
    );
    let since = world.clock.now().plus_millis(1);
    ann.post("/conversations", json!({"kind": "group", "title": "Four"}))
        .await
        .is(201);
    let changed = ann
        .get(&format!("/conversations?changed_since={since}"))
        .await
        .is(200);
    assert_eq!(changed.each("title"), ["Four"]);
    assert!(eve.get("/conversations").await.is(200).items().is_empty());
    ann.get("/conversations?changed_since=now")
        .await
        .invalid("changed_since");
    ann.get("/conversations?cursor=bTE6eA")
        .await
        .invalid("cursor");
    ann.get("/conversations?query=%00").await.invalid("query");
}

async fn reading_lowers_the_unread_count(world: World) {
    let [ann, bob, eve] = world.people(["ann", "bob", "eve"]).await;
    let group = ann.group(&[&bob]).await;
    for text in ["one", "two", "three"] {
        ann.say(&group, text).await;
    }
    let mark = |seq: i64| {
        let bob = bob.clone();
        let path = format!("{group}/read");
        async move { bob.post(&path, json!({"seq": seq})).await }
    };
    let unread = || async {
        let seen = bob.get(&group).await.is(200).data();
        (
            seen["unread_count"].as_i64().unwrap(),
            seen["me"]["read_seq"].as_i64().unwrap(),
        )
    };
    assert_eq!(unread().await, (3, 0));
    mark(3).await.is(200);
    assert_eq!(unread().await, (1, 3));
    mark(2).await.is(200);
    assert_eq!(unread().await, (1, 3), "backwards is ignored");
    mark(9).await.invalid("seq");
    mark(-1).await.invalid("seq");
    let seen = bob.get(&group).await.is(200).data();
    assert_eq!(seen["me"]["delivered_seq"], 3, "read implies delivered");
    eve.post(&format!("{group}/read"), json!({"seq": 1}))
        .await
        .refused(404, "NOT_FOUND");
    bob.post(&format!("{group}/read"), json!({}))
        .await
        .invalid("seq");
}
