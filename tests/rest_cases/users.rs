//! Profiles and finding people.

use rookery::clock::new_id;
use serde_json::{Value, json};

use super::world::World;
use crate::on_both;

on_both! {
    a_profile_is_changed_by_its_owner,
    addresses_are_shown_to_their_owner_only,
    people_are_found_by_name_page_by_page,
    people_are_found_by_id,
}

async fn a_profile_is_changed_by_its_owner(world: World) {
    let ann = world.register("ann").await;
    let change = json!({"full_name": "Ann Bee", "avatar_url": "https://example.org/a.png"});
    let changed = ann.patch("/users/me", change).await.is(200).data();
    assert_eq!(changed["full_name"], "Ann Bee");
    let changed = ann
        .patch("/users/me", json!({"full_name": null}))
        .await
        .is(200)
        .data();
    assert_eq!(changed["full_name"], Value::Null, "null clears");
    assert_eq!(
        changed["avatar_url"], "https://example.org/a.png",
        "what is absent stays"
    );
    assert_eq!(
        ann.patch("/users/me", json!({})).await.is(200).data(),
        changed
    );
    let patch = |field: &str, value: Value| {
        let ann = ann.clone();
        let body = json!({field: value});
        async move { ann.patch("/users/me", body).await }
    };
    patch("avatar_url", json!("http://example.org/a.png"))
        .await
        .invalid("avatar_url");
    patch("avatar_url", json!("javascript:alert(1)"))
        .await
        .invalid("avatar_url");
    patch("avatar_url", json!(7)).await.invalid("avatar_url");
    patch("full_name", json!("")).await.invalid("full_name");
    patch("full_name", json!("a\0b")).await.invalid("full_name");
    patch("full_name", json!("x".repeat(101)))
        .await
        .invalid("full_name");
    assert_eq!(ann.get("/users/me").await.is(200).data(), changed);
}

async fn addresses_are_shown_to_their_owner_only(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let path = format!("/users/{}", ann.id);
    let seen = bob.get(&path).await.is(200).data();
    assert_eq!(seen["username"], "ann");
    assert!(seen.get("email").is_none(), "{seen}");
    assert_eq!(
        ann.get(&path).await.is(200).data()["email"],
        "ann@example.org"
    );
    for found in bob.get("/users?query=").await.is(200).items() {
        assert_eq!(
            found.get("email").is_some(),
            found["username"] == "bob",
            "{found}"
        );
    }
    bob.get(&format!("/users/{}", new_id()))
        .await
        .refused(404, "NOT_FOUND");
    bob.get("/users/ann").await.refused(404, "NOT_FOUND");
}

async fn people_are_found_by_name_page_by_page(world: World) {
    let [ann, ..] = world
        .people(["ann", "anna", "bob", "joanna", "a_b", "a.b"])
        .await;
    ann.patch("/users/me", json!({"full_name": "Elephant 100%"}))
        .await
        .is(200);
    let found = ann.get("/users?query=ANN").await.is(200);
    assert_eq!(found.each("username"), ["ann", "anna", "joanna"]);
    assert_eq!(found.data()["next_cursor"], Value::Null);
    let found = |query: &str| {
        let ann = ann.clone();
        let path = format!("/users?query={query}");
        async move { ann.get(&path).await.is(200).each("username") }
    };
    assert_eq!(found("elephant").await, ["ann"], "by full name");
    assert_eq!(
        found("%25").await,
        ["ann"],
        "a per cent sign is a plain character"
    );
    assert_eq!(found("a_b").await, ["a_b"], "and so is an underscore");
    assert_eq!(found("nobody").await, Vec::<String>::new());
    let mut names = Vec::new();
    let mut path = "/users?limit=2".to_owned();
    loop {
        let page = ann.get(&path).await.is(200);
        assert!(page.items().len() <= 2);
        names.extend(page.each("username"));
        let Some(cursor) = page.data()["next_cursor"].as_str().map(str::to_owned) else {
            break;
        };
        path = format!("/users?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["a.b", "a_b", "ann", "anna", "bob", "joanna"]);
    ann.get("/users?limit=0").await.invalid("limit");
    ann.get("/users?limit=many").await.invalid("limit");
    ann.get("/users?cursor=x").await.invalid("cursor");
    ann.get("/users?query=a%00b").await.invalid("query");
}

async fn people_are_found_by_id(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let path = format!("/users?user_ids={},{},{}", bob.id, new_id(), ann.id);
    assert_eq!(
        ann.get(&path).await.is(200).each("username"),
        ["bob", "ann"],
        "in that order"
    );
    assert_eq!(
        ann.get("/users?user_ids=").await.is(200).items(),
        Vec::<Value>::new()
    );
    ann.get("/users?user_ids=x").await.invalid("user_ids");
    ann.get(&format!("{path}&query=ann"))
        .await
        .invalid("user_ids");
    let many = vec![ann.id.to_string(); 201].join(",");
    ann.get(&format!("/users?user_ids={many}"))
        .await
        .invalid("user_ids");
}
