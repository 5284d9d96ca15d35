//! Accounts and sessions.

use axum::body::Body;
use axum::http::{Method, Request, header};
use rookery::bus::{BusEvent, Channel};
use rookery_protocol::SessionId;
use serde_json::{Value, json};

use super::world::{Answer, PASSWORD, Person, World};
use crate::on_both;

on_both! {
    an_account_is_made_and_used,
    names_are_unique_without_regard_to_case,
    a_wrong_login_tells_nothing,
    refreshing_twice_gives_the_same_successor,
    fifty_refreshes_at_once_make_one_chain,
    a_replaced_token_ends_the_session,
    the_grace_ends_after_twenty_seconds,
    the_grace_ends_when_the_successor_is_used,
    logging_out_ends_one_session,
    logging_out_everywhere_ends_all,
    sessions_are_listed_and_ended_one_by_one,
    access_tokens_expire,
    a_node_that_starts_knows_who_was_logged_out,
}

async fn refresh(world: &World, token: &str) -> Answer {
    world
        .post("/auth/refresh", json!({"refresh_token": token}))
        .await
}

async fn refreshed(world: &World, token: &str) -> String {
    let tokens = refresh(world, token).await.is(200).data();
    tokens["refresh_token"].as_str().unwrap().to_owned()
}

async fn login(world: &World, login: &str, password: &str) -> Answer {
    world
        .post("/auth/login", json!({"login": login, "password": password}))
        .await
}

async fn an_account_is_made_and_used(world: World) {
    let body = json!({
        "username": "Ann.B", "email": "Ann@Example.org", "password": PASSWORD,
        "full_name": "Ann Bee", "device_name": "Laptop",
    });
    let tokens = world.post("/auth/register", body).await.is(201).data();
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 900);
    assert_eq!(tokens["user"]["username"], "ann.b", "folded");
    assert_eq!(tokens["user"]["email"], "ann@example.org");
    assert_eq!(tokens["user"]["role"], "user");
    let ann = Person::from_tokens(world.clone(), &tokens);
    assert_eq!(ann.get("/users/me").await.is(200).data(), tokens["user"]);
    for name in [
        "ann.b",
        "ANN.B",
        "ann@example.org",
        "ANN@example.ORG",
        " ann.b ",
    ] {
        login(&world, name, PASSWORD).await.is(200);
    }
}

async fn names_are_unique_without_regard_to_case(world: World) {
    world.register("ann").await;
    let register = |username: &str, email: &str| {
        let body = json!({"username": username, "email": email, "password": PASSWORD});
        let world = world.clone();
        async move { world.post("/auth/register", body).await }
    };
    let taken = register("ANN", "other@example.org")
        .await
        .refused(409, "CONFLICT");
    assert_eq!(taken.error()["details"][0]["field"], "username");
    let taken = register("other", "ANN@EXAMPLE.ORG")
        .await
        .refused(409, "CONFLICT");
    assert_eq!(taken.error()["details"][0]["field"], "email");
    register("an", "x@example.org").await.invalid("username");
    register("a n n", "x@example.org").await.invalid("username");
    register("other", "x").await.invalid("email");
    register("other", "x\0@example.org").await.invalid("email");
    register("other", "x@example.org").await.is(201);
}

async fn a_wrong_login_tells_nothing(world: World) {
    world.register("ann").await;
    let wrong = login(&world, "ann", "wrong horse!")
        .await
        .refused(401, "UNAUTHENTICATED");
    for (name, password) in [
        ("nobody", PASSWORD),
        ("ann@example.com", PASSWORD),
        ("ann", ""),
        ("ann", &"x".repeat(2_000)),
        ("", PASSWORD),
        ("a\0nn", PASSWORD),
        (&"a".repeat(5_000), PASSWORD),
        ("%", PASSWORD),
        ("a__", PASSWORD),
    ] {
        let refused = login(&world, name, password)
            .await
            .refused(401, "UNAUTHENTICATED");
        assert_eq!(refused.error(), wrong.error(), "{name}");
    }
    world
        .post("/auth/login", json!({"login": "ann"}))
        .await
        .invalid("password");
    let body = json!({"login": "ann", "password": PASSWORD, "device_name": "a\nb"});
    world.post("/auth/login", body).await.invalid("device_name");
}

async fn refreshing_twice_gives_the_same_successor(world: World) {
    let ann = world.register("ann").await;
    let second = refreshed(&world, &ann.refresh).await;
    assert_ne!(second, ann.refresh);
    world.clock.advance_millis(10_000);
    assert_eq!(
        refreshed(&world, &ann.refresh).await,
        second,
        "the answer was lost"
    );
    let third = refreshed(&world, &second).await;
    let tokens = refresh(&world, &third).await.is(200).data();
    let ann = Person::from_tokens(world.clone(), &tokens);
    ann.get("/users/me").await.is(200);
    let sessions = ann.get("/auth/sessions").await.is(200);
    assert_eq!(sessions.items().len(), 1, "still one session");
}

async fn fifty_refreshes_at_once_make_one_chain(world: World) {
    let ann = world.register("ann").await;
    let asked = (0..50).map(|_| refreshed(&world, &ann.refresh));
    let successors = futures_util::future::join_all(asked).await;
    assert!(
        successors
            .iter()
            .all(|successor| *successor == successors[0])
    );
    refreshed(&world, &successors[0]).await;
}

async fn a_replaced_token_ends_the_session(world: World) {
    let ann = world.register("ann").await;
    let second = refreshed(&world, &ann.refresh).await;
    let third = refreshed(&world, &second).await;
    world.published();
    refresh(&world, &ann.refresh)
        .await
        .refused(401, "UNAUTHENTICATED");
    refresh(&world, &third)
        .await
        .refused(401, "UNAUTHENTICATED");
    refresh(&world, &second)
        .await
        .refused(401, "UNAUTHENTICATED");
    ann.get("/users/me").await.refused(401, "UNAUTHENTICATED");
    let [
        (
            channel,
            BusEvent::Revoked {
                user_id,
                session_ids,
            },
        ),
    ] = &world.published()[..]
    else {
        panic!("told once")
    };
    assert_eq!((channel, user_id), (&Channel::User(ann.id), &ann.id));
    assert_eq!(session_ids.len(), 1);
}

async fn the_grace_ends_after_twenty_seconds(world: World) {
    let ann = world.register("ann").await;
    let second = refreshed(&world, &ann.refresh).await;
    world.clock.advance_millis(20_000);
    refresh(&world, &ann.refresh)
        .await
        .refused(401, "UNAUTHENTICATED");
    refresh(&world, &second)
        .await
        .refused(401, "UNAUTHENTICATED");
}

async fn the_grace_ends_when_the_successor_is_used(world: World) {
    let ann = world.register("ann").await;
    let second = refreshed(&world, &ann.refresh).await;
    let third = refreshed(&world, &second).await;
    assert_eq!(
        refreshed(&world, &second).await,
        third,
        "the immediate predecessor"
    );
    refresh(&world, &ann.refresh)
        .await
        .refused(401, "UNAUTHENTICATED");
    for garbage in ["", "x", "x.y", &third[1..], &format!("{third}x")] {
        refresh(&world, garbage)
            .await
            .refused(401, "UNAUTHENTICATED");
    }
}

async fn logging_out_ends_one_session(world: World) {
    let ann = world.register("ann").await;
    let tokens = login(&world, "ann", PASSWORD).await.is(200).data();
    let phone = Person::from_tokens(world.clone(), &tokens);
    world.published();
    let answer = ann.call(Method::POST, "/auth/logout", None).await.is(200);
    assert_eq!(answer.data(), Value::Null);
    assert!(matches!(
        &world.published()[..],
        [(_, BusEvent::Revoked { .. })]
    ));
    ann.get("/users/me").await.refused(401, "UNAUTHENTICATED");
    refresh(&world, &ann.refresh)
        .await
        .refused(401, "UNAUTHENTICATED");
    phone.get("/users/me").await.is(200);
    refreshed(&world, &phone.refresh).await;
}

async fn logging_out_everywhere_ends_all(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let tokens = login(&world, "ann", PASSWORD).await.is(200).data();
    let phone = Person::from_tokens(world.clone(), &tokens);
    phone
        .call(Method::POST, "/auth/logout-all", None)
        .await
        .is(200);
    for device in [&ann, &phone] {
        device
            .get("/users/me")
            .await
            .refused(401, "UNAUTHENTICATED");
        refresh(&world, &device.refresh)
            .await
            .refused(401, "UNAUTHENTICATED");
    }
    bob.get("/users/me").await.is(200);
    login(&world, "ann", PASSWORD).await.is(200);
}

async fn sessions_are_listed_and_ended_one_by_one(world: World) {
    let [ann, bob] = world.people(["ann", "bob"]).await;
    let body = json!({"login": "ann", "password": PASSWORD, "device_name": "Phone"});
    let request = Request::builder()
        .method(Method::POST)
        .uri("/api/v1/auth/login")
        .header(header::USER_AGENT, "tests/1")
        .header("x-forwarded-for", "1.2.3.4, 198.51.100.7");
    let request = request.body(Body::from(body.to_string())).unwrap();
    let tokens = world.send(request).await.is(200).data();
    let phone = Person::from_tokens(world.clone(), &tokens);
    let sessions = phone.get("/auth/sessions").await.is(200).items();
    assert_eq!(sessions.len(), 2);
    let newest = &sessions[0];
    assert_eq!(
        (&newest["device_name"], &newest["current"]),
        (&json!("Phone"), &json!(true))
    );
    assert_eq!(newest["user_agent"], "tests/1");
    assert_eq!(
        newest["ip"], "198.51.100.7",
        "behind the proxy, and not what the client wrote"
    );
    assert_eq!(
        (&sessions[1]["ip"], &sessions[1]["current"]),
        (&json!("127.0.0.1"), &json!(false))
    );
    let other = format!(
        "/auth/sessions/{}",
        sessions[1]["session_id"].as_str().unwrap()
    );
    bob.delete(&other).await.refused(404, "NOT_FOUND");
    ann.get("/users/me").await.is(200);
    phone.delete(&other).await.is(200);
    ann.get("/users/me").await.refused(401, "UNAUTHENTICATED");
    phone.delete(&other).await.refused(404, "NOT_FOUND");
    phone
        .delete("/auth/sessions/x")
        .await
        .refused(404, "NOT_FOUND");
    assert_eq!(phone.get("/auth/sessions").await.is(200).items().len(), 1);
}

async fn access_tokens_expire(world: World) {
    let ann = world.register("ann").await;
    world.clock.advance_millis(900_000 + 15_000);
    let refused = ann.get("/users/me").await.refused(401, "UNAUTHENTICATED");
    assert_eq!(refused.headers[header::WWW_AUTHENTICATE], "Bearer");
    assert!(
        refused.error()["message"]
            .as_str()
            .unwrap()
            .contains("expired")
    );
    let tokens = refresh(&world, &ann.refresh).await.is(200).data();
    Person::from_tokens(world.clone(), &tokens)
        .get("/users/me")
        .await
        .is(200);
    world.clock.advance_millis(31 * 24 * 3_600_000);
    let unused = tokens["refresh_token"].as_str().unwrap();
    refresh(&world, unused)
        .await
        .refused(401, "UNAUTHENTICATED");
}

async fn a_node_that_starts_knows_who_was_logged_out(world: World) {
    use rookery::auth::{Auth, AuthOptions};
    let ann = world.register("ann").await;
    ann.call(Method::POST, "/auth/logout", None).await.is(200);
    let options = AuthOptions::new(vec![("test".into(), vec![7; 32])]);
    let tasks = rookery::lifecycle::Tasks::new();
    let other = Auth::new(options, world.store.clone(), world.clock.clone(), &tasks).unwrap();
    let session: SessionId = other.verify(&ann.access).unwrap().session_id;
    other.load_revocations().await.unwrap();
    assert!(other.revocations.contains(session));
    assert!(other.verify(&ann.access).is_err());
}

#[tokio::test]
async fn guessing_is_limited_by_account_and_by_address() {
    let world = World::with_rates().await;
    world.register("ann").await;
    let guess = |name: String, address: String| {
        let body = json!({"login": name, "password": "wrong horse!"}).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri("/api/v1/auth/login")
            .header("x-forwarded-for", address)
            .body(Body::from(body))
            .unwrap();
        let world = world.clone();
        async move { world.send(request).await }
    };
    for number in 0..10 {
        guess("ann".into(), format!("198.51.100.{number}"))
            .await
            .refused(401, "UNAUTHENTICATED");
    }
    let refused = guess("ANN".into(), "198.51.100.99".into()).await;
    let refused = refused.refused(429, "RATE_LIMITED");
    let seconds: u64 = refused.headers[header::RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=6).contains(&seconds), "{seconds}");
    assert!(refused.error()["retry_after_ms"].as_u64().unwrap() <= 6_000);
    for number in 0..30 {
        let name = format!("somebody{number}");
        guess(name, "2001:db8::1".into())
            .await
            .refused(401, "UNAUTHENTICATED");
    }
    guess("nobody".into(), "2001:db8::2".into())
        .await
        .refused(429, "RATE_LIMITED");
    guess("nobody".into(), "2001:db8:0:1::2".into())
        .await
        .refused(401, "UNAUTHENTICATED");
}
