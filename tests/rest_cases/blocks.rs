//! Blocks over REST: who may still write to whom, and who is told.

use axum::http::Method;
use rookery::bus::{BusEvent, Channel};
use rookery::clock::new_id;
use serde_json::json;

use super::world::{Person, World};
use crate::on_both;

on_both! {
    who_is_blocked_cannot_write_and_may_take_back,
    to_the_blocked_a_new_conversation_looks_like_nobody,
    blocks_are_listed_in_pages,
}

impl Person {
    async fn block(&self, other: &Person) {
        let path = format!("/users/{}/block", other.id);
        self.call(Method::PUT, &path, None).await.is(200);
    }

    async fn unblock(&self, other: &Person) {
        self.delete(&format!("/users/{}/block", other.id))
            .await
            .is(200);
    }
}

async fn who_is_blocked_cannot_write_and_may_take_back(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let made = bob
        .post(
            "/conversations",
            json!({"kind": "direct", "user_id": ann.id}),
        )
        .await
        .is(201)
        .data();
    let direct = format!(
        "/conversations/{}",
        made["conversation_id"].as_str().unwrap()
    );
    bob.say(&direct, "hi").await;
    ann.say(&direct, "stop it").await;
    world.told_of("stop it").await;
    ann.block(&bob).await;
    let blocked: Vec<_> = world.published();
    assert!(
        matches!(
            blocked[..],
            [(Channel::User(user), BusEvent::Blocked { by, blocked: true })]
                if user == bob.id && by == ann.id
        ),
        "{blocked:?}"
    );
    ann.block(&bob).await;
    assert!(world.published().is_empty(), "a repeat is no news");

    let message = json!({"message_id": new_id(), "content": "but"});
    let path = format!("{direct}/messages");
    bob.post(&path, message).await.refused(403, "FORBIDDEN");
    let edit = json!({"content": "ho"});
    let own = format!("{path}/1");
    bob.patch(&own, edit).await.refused(403, "FORBIDDEN");
    let react = format!("{path}/2/reactions/%F0%9F%91%8E");
    let refused = bob.call(Method::PUT, &react, None).await;
    refused.refused(403, "FORBIDDEN");
    bob.delete(&own).await.is(200);
    ann.say(&direct, "thanks").await;
    bob.get(&path).await.is(200);
    let group = ann.group(&[&bob]).await;
    bob.say(&group, "groups stay as they are").await;

    world.told_of("groups stay as they are").await;
    ann.unblock(&bob).await;
    assert!(matches!(
        world.published()[..],
        [(_, BusEvent::Blocked { blocked: false, .. })]
    ));
    ann.unblock(&bob).await;
    bob.say(&direct, "sorry").await;
}

async fn to_the_blocked_a_new_conversation_looks_like_nobody(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    ann.block(&bob).await;
    let with = |id| json!({"kind": "direct", "user_id": id});
    let refused = bob.post("/conversations", with(ann.id)).await;
    let nobody = rookery_protocol::UserId::from_uuid(new_id());
    let unknown = bob.post("/conversations", with(nobody)).await;
    assert_eq!(refused.error(), unknown.error());
    refused.refused(404, "NOT_FOUND");
    assert!(bob.get("/conversations").await.is(200).items().is_empty());

    // The one who blocks may begin; the other one hears, and cannot answer.
    let made = ann.post("/conversations", with(bob.id)).await.is(201);
    let id = made.data()["conversation_id"].as_str().unwrap().to_owned();
    let direct = format!("/conversations/{id}");
    ann.say(&direct, "listen").await;
    let answer = json!({"message_id": new_id(), "content": "no"});
    bob.post(&format!("{direct}/messages"), answer)
        .await
        .refused(403, "FORBIDDEN");
    bob.post("/conversations", with(ann.id)).await.is(200);
}

async fn blocks_are_listed_in_pages(world: World) {
    let [ann, bob, carol, dave] = world.people(["ann", "bob", "carol", "dave"]).await;
    for other in [&bob, &carol, &dave] {
        ann.block(other).await;
    }
    let all = ann.get("/users/blocks").await.is(200);
    assert_eq!(all.each("username"), ["bob", "carol", "dave"]);
    assert!(all.items()[0].get("email").is_none());
    let first = ann.get("/users/blocks?limit=2").await.is(200);
    let cursor = first.data()["next_cursor"].as_str().unwrap().to_owned();
    let rest = ann
        .get(&format!("/users/blocks?limit=2&cursor={cursor}"))
        .await
        .is(200);
    assert_eq!(rest.each("username"), ["dave"]);
    assert!(rest.data()["next_cursor"].is_null());
    ann.get("/users/blocks?cursor=x").await.invalid("cursor");
    ann.unblock(&carol).await;
    let left = ann.get("/users/blocks").await.is(200);
    assert_eq!(left.each("username"), ["bob", "dave"]);
    assert!(bob.get("/users/blocks").await.is(200).items().is_empty());

    let own = format!("/users/{}/block", ann.id);
    for method in [Method::PUT, Method::DELETE] {
        let refused = ann.call(method.clone(), &own, None).await;
        refused.invalid("user_id");
        for nobody in [new_id().to_string(), "x".to_owned()] {
            let path = format!("/users/{nobody}/block");
            let refused = ann.call(method.clone(), &path, None).await;
            refused.refused(404, "NOT_FOUND");
        }
    }
}
