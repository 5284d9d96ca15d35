//! Changing groups. Who may do what is in the matrix; here is what it does.

use rookery::clock::new_id;
use serde_json::{Value, json};

use super::world::World;
use crate::on_both;

on_both! {
    a_group_is_renamed,
    members_are_added_once,
    a_removed_member_hears_of_it_and_of_nothing_later,
    who_joins_later_sees_what_the_group_allows,
    roles_are_given_and_taken,
    the_last_owner_cannot_go,
    the_last_member_may_go,
    a_deleted_group_is_gone_for_all,
    members_are_listed_page_by_page,
}

async fn a_group_is_renamed(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    world.published();
    let change = json!({"title": "Crew", "description": "All of us"});
    let changed = ann.patch(&group, change.clone()).await.is(200).data();
    assert_eq!(
        (&changed["title"], &changed["description"]),
        (&json!("Crew"), &json!("All of us"))
    );
    let notice = &changed["last_message"];
    assert_eq!(
        (&notice["seq"], &notice["kind"]),
        (&json!(2), &json!("system"))
    );
    assert_eq!(notice["metadata"]["event"], "group_updated");
    let text = "ann renamed the group to \"Crew\" and changed the group's description";
    assert_eq!(notice["content"], text);
    assert_eq!(world.told_of(text).await.len(), 2);
    let again = ann.patch(&group, change).await.is(200).data();
    assert_eq!(again["last_seq"], 2, "nothing changed, nothing is reported");
    let cleared = ann
        .patch(&group, json!({"title": null}))
        .await
        .is(200)
        .data();
    assert_eq!(
        (&cleared["title"], &cleared["description"]),
        (&Value::Null, &json!("All of us"))
    );
    ann.patch(&group, json!({"title": "x".repeat(101)}))
        .await
        .invalid("title");
    ann.patch(&group, json!({"title": 7}))
        .await
        .invalid("title");
}

async fn members_are_added_once(world: World) {
    let [ann, bob, eve, joe] = world.people(["ann", "bob", "eve", "joe"]).await;
    let group = ann.group(&[&bob]).await;
    let members = format!("{group}/members");
    world.published();
    let body = json!({"user_ids": [bob.id, eve.id, joe.id, eve.id]});
    let added = ann.post(&members, body.clone()).await.is(201);
    let mut names = added.each("username");
    names.sort_unstable();
    assert_eq!(names, ["bob", "eve", "joe"]);
    let seen = eve.get(&group).await.is(200).data();
    assert_eq!(
        (&seen["member_count"], &seen["last_seq"]),
        (&json!(4), &json!(2))
    );
    let mut told = seen["last_message"]["metadata"]["user_ids"]
        .as_array()
        .unwrap()
        .clone();
    told.sort_by_key(ToString::to_string);
    let mut new = vec![json!(eve.id), json!(joe.id)];
    new.sort_by_key(ToString::to_string);
    assert_eq!(told, new, "only those who are new");
    let text = seen["last_message"]["content"].as_str().unwrap();
    assert!(
        ["ann added eve and joe", "ann added joe and eve"].contains(&text),
        "{text}"
    );
    assert_eq!(world.told_of(text).await.len(), 4, "the new ones too");
    ann.post(&members, body).await.is(200);
    assert_eq!(
        ann.get(&group).await.is(200).data()["last_seq"],
        2,
        "nobody was new"
    );
    let unknown = json!({"user_ids": [bob.id, new_id()]});
    ann.post(&members, unknown).await.invalid("user_ids");
    let many: Vec<_> = (0..1_001).map(|_| new_id()).collect();
    ann.post(&members, json!({"user_ids": many}))
        .await
        .invalid("user_ids");
    ann.post(&members, json!({})).await.invalid("user_ids");
}

async fn a_removed_member_hears_of_it_and_of_nothing_later(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let body = json!({"kind": "group", "history_visible": false, "member_ids": [bob.id]});
    let group = ann.post("/conversations", body).await.is(201).data();
    let id = group["conversation_id"].as_str().unwrap();
    let group = format!("/conversations/{id}");
    ann.say(&group, "before").await;
    world.published();
    ann.delete(&format!("{group}/members/{}", bob.id))
        .await
        .is(200);
    assert_eq!(
        world.told_of("ann removed bob").await.len(),
        2,
        "bob hears of it"
    );
    ann.say(&group, "after").await;
    assert_eq!(world.told_of("after").await, [ann.id]);
    bob.get(&group).await.refused(404, "NOT_FOUND");
    bob.get(&format!("{group}/messages"))
        .await
        .refused(404, "NOT_FOUND");
    let body = json!({"message_id": new_id(), "content": "let me in"});
    bob.post(&format!("{group}/messages"), body)
        .await
        .refused(404, "NOT_FOUND");
    assert!(bob.get("/conversations").await.is(200).items().is_empty());
    let back = json!({"user_ids": [bob.id]});
    ann.post(&format!("{group}/members"), back).await.is(201);
    let seen = bob.get(&format!("{group}/messages")).await.is(200);
    let texts = seen.each("content");
    assert!(
        !texts.contains(&"after".to_owned()),
        "not what was said meanwhile: {texts:?}"
    );
}

async fn who_joins_later_sees_what_the_group_allows(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    for (visible, expected) in [(true, true), (false, false)] {
        let body = json!({"kind": "group", "history_visible": visible});
        let group = ann.post("/conversations", body).await.is(201).data();
        assert_eq!(group["history_visible"], visible);
        let group = format!(
            "/conversations/{}",
            group["conversation_id"].as_str().unwrap()
        );
        ann.say(&group, "before").await;
        let body = json!({"user_ids": [bob.id]});
        ann.post(&format!("{group}/members"), body).await.is(201);
        ann.say(&group, "after").await;
        let texts = bob
            .get(&format!("{group}/messages"))
            .await
            .is(200)
            .each("content");
        assert_eq!(texts.contains(&"before".to_owned()), expected, "{texts:?}");
        assert!(texts.contains(&"after".to_owned()), "{texts:?}");
        let unread = bob.get(&group).await.is(200).data()["unread_count"].clone();
        assert_eq!(unread, 1, "what was before the joining does not count");
    }
}

async fn roles_are_given_and_taken(world: World) {
    let [ann, bob, eve] = world.people(["ann", "bob", "eve"]).await;
    let group = ann.group(&[&bob, &eve]).await;
    let role_of_bob = format!("{group}/members/{}", bob.id);
    let made = ann
        .patch(&role_of_bob, json!({"role": "admin"}))
        .await
        .is(200)
        .data();
    assert_eq!(
        (&made["username"], &made["role"]),
        (&json!("bob"), &json!("admin"))
    );
    let notice = ann.get(&group).await.is(200).data()["last_message"].clone();
    assert_eq!(notice["content"], "ann made bob an admin");
    assert_eq!(notice["metadata"]["event"], "role_changed");
    bob.patch(&group, json!({"title": "Mine"})).await.is(200);
    bob.delete(&format!("{group}/members/{}", eve.id))
        .await
        .is(200);
    ann.patch(&role_of_bob, json!({"role": "member"}))
        .await
        .is(200);
    bob.patch(&group, json!({"title": "Mine again"}))
        .await
        .refused(403, "FORBIDDEN");
    ann.patch(&role_of_bob, json!({"role": "emperor"}))
        .await
        .invalid("role");
    let role_of_eve = format!("{group}/members/{}", eve.id);
    ann.patch(&role_of_eve, json!({"role": "admin"}))
        .await
        .refused(404, "NOT_FOUND");
}

async fn the_last_owner_cannot_go(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    let own = format!("{group}/members/{}", ann.id);
    let refused = ann.delete(&own).await.refused(409, "CONFLICT");
    let why = refused.error()["message"].as_str().unwrap().to_owned();
    assert!(why.contains("make someone else owner first"), "{why}");
    ann.patch(&own, json!({"role": "member"}))
        .await
        .refused(409, "CONFLICT");
    let body = json!({"role": "owner"});
    ann.patch(&format!("{group}/members/{}", bob.id), body)
        .await
        .is(200);
    ann.delete(&own).await.is(200);
    ann.get(&group).await.refused(404, "NOT_FOUND");
    let seen = bob.get(&group).await.is(200).data();
    assert_eq!(seen["last_message"]["content"], "ann left");
    assert_eq!(
        (&seen["member_count"], &seen["me"]["role"]),
        (&json!(1), &json!("owner"))
    );
}

async fn the_last_member_may_go(world: World) {
    let ann = world.register("ann").await;
    let group = ann.group(&[]).await;
    ann.delete(&format!("{group}/members/{}", ann.id))
        .await
        .is(200);
    ann.get(&group).await.refused(404, "NOT_FOUND");
    ann.delete(&format!("{group}/members/{}", ann.id))
        .await
        .refused(404, "NOT_FOUND");
}

async fn a_deleted_group_is_gone_for_all(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    world.published();
    ann.delete(&group).await.is(200);
    assert_eq!(world.told_of("ann deleted the group").await.len(), 2);
    for person in [&ann, &bob] {
        person.get(&group).await.refused(404, "NOT_FOUND");
        person
            .get(&format!("{group}/members"))
            .await
            .refused(404, "NOT_FOUND");
        assert!(
            person
                .get("/conversations")
                .await
                .is(200)
                .items()
                .is_empty()
        );
        let body = json!({"message_id": new_id(), "content": "still here?"});
        person
            .post(&format!("{group}/messages"), body)
            .await
            .refused(404, "NOT_FOUND");
    }
    ann.delete(&group).await.refused(404, "NOT_FOUND");
}

async fn members_are_listed_page_by_page(world: World) {
    let [ann, bob, eve] = world.people(["ann", "bob", "eve"]).await;
    let group = ann.group(&[&bob, &eve]).await;
    let mut found = Vec::new();
    let mut path = format!("{group}/members?limit=2");
    loop {
        let page = ann.get(&path).await.is(200);
        found.extend(page.items());
        let Some(cursor) = page.data()["next_cursor"].as_str().map(str::to_owned) else {
            break;
        };
        path = format!("{group}/members?limit=2&cursor={cursor}");
    }
    let ids: Vec<&str> = found
        .iter()
        .map(|one| one["user_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.is_sorted(), "{ids:?}");
    let roles: Vec<&Value> = found.iter().map(|one| &one["role"]).collect();
    assert_eq!(roles.iter().filter(|role| **role == "owner").count(), 1);
    ann.get(&format!("{group}/members?cursor=x"))
        .await
        .invalid("cursor");
    ann.get(&format!("{group}/members?limit=201"))
        .await
        .invalid("limit");
}
