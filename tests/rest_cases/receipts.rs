//! Marks over REST, who is told of them, and one's own settings.

use rookery::bus::{BusEvent, Channel};
use rookery::chat::receipts::{Mark, Marker};
use rookery::clock::new_id;
use rookery::store::MarkKind;
use rookery_protocol::Seq;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use super::world::{Person, World};
use crate::on_both;

on_both! {
    a_mark_is_told_to_the_others_and_to_ones_own_devices,
    marks_of_several_conversations_are_set_at_once_or_not_at_all,
    a_message_shows_how_far_it_got,
    receipts_of_a_message_are_paged,
    a_conversation_is_muted_for_oneself,
}

/// No request waits for it, and no other mark comes: it is the same one that is tried again.
#[tokio::test]
async fn a_mark_waits_for_a_database_that_is_away() {
    let world = World::postgres().await;
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let group = ann.group(&[&bob]).await;
    ann.say(&group, "hi").await;
    world.told_of("hi").await;
    let mut connection = PgConnection::connect(&world.database_url).await.unwrap();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    connection.execute(cut).await.unwrap();
    let marker = Marker {
        user_id: bob.id,
        socket: None,
    };
    let mark = Mark {
        conversation_id: id_of(&group).parse().unwrap(),
        kind: MarkKind::Read,
        seq: Seq(2),
    };
    world
        .receipts
        .mark(marker, mark, Some(Seq(2)))
        .await
        .unwrap();
    world.published_until(2).await;
    let me = bob.get(&group).await.is(200).data()["me"].clone();
    assert_eq!(me["read_seq"], 2);
}

fn id_of(path: &str) -> &str {
    path.trim_start_matches("/conversations/")
}

async fn a_mark_is_told_to_the_others_and_to_ones_own_devices(world: World) {
    let [ann, bob, carol] = world.people(["ann", "bob", "carol"]).await;
    let group = ann.group(&[&bob, &carol]).await;
    for text in ["one", "two", "three"] {
        ann.say(&group, text).await;
    }
    world.told_of("three").await;
    world.published();
    bob.post(&format!("{group}/read"), json!({"seq": 3}))
        .await
        .is(200);
    let mut told = Vec::new();
    for (channel, event) in world.published_until(3).await {
        match (channel, event) {
            (Channel::User(user), BusEvent::Receipts { receipts }) => {
                assert_eq!(receipts.len(), 1, "what is read is not told as delivered");
                let receipt = receipts[0];
                assert_eq!((receipt.user_id, receipt.seq), (bob.id, Seq(3)));
                assert_eq!(receipt.kind, MarkKind::Read);
                told.push(user);
            }
            (Channel::User(user), BusEvent::OwnRead { reads }) => {
                assert_eq!(user, bob.id);
                let read = reads[0];
                assert_eq!((read.seq, read.last_seq), (Seq(3), Seq(4)));
                assert_eq!((read.unread_count, read.mention_count), (1, 0));
            }
            other => panic!("not expected: {other:?}"),
        }
    }
    told.sort_unstable();
    let mut others = [ann.id, carol.id];
    others.sort_unstable();
    assert_eq!(told, others);

    bob.post(&format!("{group}/read"), json!({"seq": 2}))
        .await
        .is(200);
    bob.post(&format!("{group}/read"), json!({"seq": 3}))
        .await
        .is(200);
    let marks = json!({"marks": [{"conversation_id": id_of(&group), "seq": 4}]});
    bob.post("/receipts/delivered", marks).await.is(200);
    for (_, event) in world.published_until(2).await {
        let BusEvent::Receipts { receipts } = event else {
            panic!("not expected: {event:?}");
        };
        let kinds: Vec<_> = receipts.iter().map(|r| (r.kind, r.seq.0)).collect();
        assert_eq!(kinds, [(MarkKind::Delivered, 4)], "backwards tells nobody");
    }
}

async fn marks_of_several_conversations_are_set_at_once_or_not_at_all(world: World) {
    let [ann, bob, eve] = world.people(["ann", "bob", "eve"]).await;
    let (one, other) = (ann.group(&[&bob]).await, ann.group(&[&bob]).await);
    let foreign = eve.group(&[]).await;
    for group in [&one, &other] {
        ann.say(group, "hi").await;
    }
    let mark = |group: &str, seq: i64| json!({"conversation_id": id_of(group), "seq": seq});
    let post = |kind: &'static str, marks: Vec<Value>| {
        let bob = bob.clone();
        async move {
            let path = format!("/receipts/{kind}");
            bob.post(&path, json!({ "marks": marks })).await
        }
    };
    let seen = async |group: &str| {
        let me = bob.get(group).await.is(200).data()["me"].clone();
        (me["delivered_seq"].clone(), me["read_seq"].clone())
    };
    post("read", vec![mark(&one, 2), mark(&other, 3)])
        .await
        .invalid("marks.1.seq");
    post("read", vec![mark(&one, -1)])
        .await
        .invalid("marks.0.seq");
    post("read", vec![mark(&one, 2), mark(&foreign, 1)])
        .await
        .refused(404, "NOT_FOUND");
    post("delivered", vec![mark(&new_id().to_string(), 1)])
        .await
        .refused(404, "NOT_FOUND");
    let many = (0..1_001).map(|_| mark(&one, 1)).collect();
    post("read", many).await.invalid("marks");
    assert_eq!(seen(&one).await, (json!(0), json!(0)), "nothing was set");

    post("read", Vec::new()).await.is(200);
    let marks = vec![mark(&one, 1), mark(&other, 2), mark(&one, 2)];
    post("read", marks).await.is(200);
    assert_eq!(seen(&one).await, (json!(2), json!(2)));
    assert_eq!(seen(&other).await, (json!(2), json!(2)));
    ann.say(&one, "more").await;
    post("delivered", vec![mark(&one, 3)]).await.is(200);
    assert_eq!(seen(&one).await, (json!(3), json!(2)));
    post("delivered", (0..1_000).map(|_| mark(&one, 1)).collect())
        .await
        .is(200);
}

async fn a_message_shows_how_far_it_got(world: World) {
    let [ann, bob, carol] = world.people(["ann", "bob", "carol"]).await;
    let group = ann.group(&[&bob, &carol]).await;
    let first = new_id();
    let send = |content: &'static str, message_id| {
        let (ann, path) = (ann.clone(), format!("{group}/messages"));
        let body = json!({"message_id": message_id, "content": content});
        async move { ann.post(&path, body).await }
    };
    let sent = send("one", first).await.is(201).data();
    assert_eq!(sent["status"], "sent");
    for text in ["two", "three"] {
        send(text, new_id()).await.is(201);
    }
    bob.post(&format!("{group}/read"), json!({"seq": 2}))
        .await
        .is(200);
    let marks = json!({"marks": [{"conversation_id": id_of(&group), "seq": 3}]});
    carol.post("/receipts/delivered", marks).await.is(200);
    ann.post(&format!("{group}/read"), json!({"seq": 4}))
        .await
        .is(200);

    let statuses = async |person: &Person| {
        let history = person.get(&format!("{group}/messages")).await.is(200);
        history.each("status")
    };
    assert_eq!(statuses(&ann).await, ["read", "read", "delivered", "sent"]);
    assert_eq!(statuses(&bob).await, ["", "", "", ""], "one's own only");
    let again = send("one", first).await.is(200).data();
    assert_eq!(again["status"], "read", "of a repeat, too");
    let last = || async {
        let listed = ann.get("/conversations").await.is(200).items();
        listed[0]["last_message"]["status"].clone()
    };
    assert_eq!(last().await, "sent");
    carol
        .post(&format!("{group}/read"), json!({"seq": 4}))
        .await
        .is(200);
    assert_eq!(last().await, "read");
    let shown = bob.get("/conversations").await.is(200).items();
    assert_eq!(shown[0]["last_message"]["status"], Value::Null);
}

async fn receipts_of_a_message_are_paged(world: World) {
    let [ann, bob, carol, eve] = world.people(["ann", "bob", "carol", "eve"]).await;
    let group = ann.group(&[&bob, &carol]).await;
    ann.say(&group, "hi").await;
    bob.post(&format!("{group}/read"), json!({"seq": 2}))
        .await
        .is(200);
    let path = format!("{group}/messages/2/receipts");
    let mut expected = [(bob.id, "read"), (carol.id, "sent")];
    expected.sort_unstable();
    let found = carol.get(&path).await.is(200).items();
    let found: Vec<_> = found
        .iter()
        .map(|r| (r["user_id"].clone(), r["status"].as_str().unwrap()))
        .collect();
    let expected = expected.map(|(user, status)| (json!(user), status));
    assert_eq!(found, expected);
    let page = ann.get(&format!("{path}?limit=1")).await.is(200);
    let cursor = page.data()["next_cursor"].as_str().unwrap().to_owned();
    let next = ann
        .get(&format!("{path}?limit=1&cursor={cursor}"))
        .await
        .is(200);
    assert_eq!(next.items()[0]["user_id"], expected[1].0);
    assert_eq!(next.data()["next_cursor"], Value::Null);
    for nothing in ["3", "0", "-1", "x"] {
        ann.get(&format!("{group}/messages/{nothing}/receipts"))
            .await
            .refused(404, "NOT_FOUND");
    }
    eve.get(&path).await.refused(404, "NOT_FOUND");
    ann.get(&format!("{path}?cursor=bTE6eA"))
        .await
        .invalid("cursor");
}

async fn a_conversation_is_muted_for_oneself(world: World) {
    let [ann, bob, eve] = world.people(["ann", "bob", "eve"]).await;
    let group = ann.group(&[&bob]).await;
    let path = format!("{group}/me");
    world.published();
    let until = world.clock.now().plus_millis(3_600_000);
    let muted = bob
        .patch(&path, json!({ "muted_until": until }))
        .await
        .is(200);
    assert_eq!(muted.data()["me"]["muted_until"], json!(until));
    let told = world.published();
    assert!(
        matches!(&told[..], [(Channel::User(user), BusEvent::OwnSettings { conversation_id })]
            if *user == bob.id && conversation_id.to_string() == id_of(&group)),
        "{told:?}"
    );
    let listed = bob.get("/conversations").await.is(200).items();
    assert_eq!(listed[0]["me"]["muted_until"], json!(until));
    let others = ann.get(&group).await.is(200).data();
    assert_eq!(others["me"]["muted_until"], Value::Null);
    let unchanged = bob.patch(&path, json!({})).await.is(200).data();
    assert_eq!(unchanged["me"]["muted_until"], json!(until));
    assert!(world.published().is_empty(), "nothing to tell");
    let cleared = bob.patch(&path, json!({"muted_until": null})).await.is(200);
    assert_eq!(cleared.data()["me"]["muted_until"], Value::Null);

    let year_ms = 366 * 24 * 3_600_000_i64;
    let too_far = world.clock.now().plus_millis(10 * year_ms + 60_000);
    bob.patch(&path, json!({ "muted_until": too_far }))
        .await
        .invalid("muted_until");
    for bad in [json!("soon"), json!(5), json!(true)] {
        bob.patch(&path, json!({ "muted_until": bad }))
            .await
            .invalid("muted_until");
    }
    eve.patch(&path, json!({"muted_until": null}))
        .await
        .refused(404, "NOT_FOUND");
}
