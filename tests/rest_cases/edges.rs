//! What is the same for every route: unknown ones, bad bodies, browsers, documents.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, header};
use bytes::Bytes;
use serde_json::json;

use super::world::World;

#[tokio::test]
async fn unknown_routes_and_methods_are_answered_in_the_envelope() {
    let world = World::sqlite().await;
    let ann = world.register("ann").await;
    for path in [
        "/",
        "/nothing",
        "/users/me/",
        "/admin/users",
        "/conversations/x",
    ] {
        ann.get(path).await.refused(404, "NOT_FOUND");
    }
    world.call_root("/nothing").await.refused(404, "NOT_FOUND");
    let refused = ann.delete("/users/me").await.is(405);
    assert_eq!(refused.error()["code"], "INVALID");
    assert_eq!(refused.error()["details"][0]["field"], "method");
    let allow = refused.headers[header::ALLOW].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("PATCH"), "{allow}");
    world
        .send(Request::post("/docs").body(Body::empty()).unwrap())
        .await
        .is(405);
}

#[tokio::test]
async fn bad_bodies_are_told_apart() {
    let world = World::sqlite().await;
    let post = |body: Vec<u8>| {
        let request = Request::post("/api/v1/auth/login")
            .body(Body::from(body))
            .unwrap();
        let world = world.clone();
        async move { world.send(request).await }
    };
    post(Vec::new()).await.refused(400, "BAD_FRAME");
    post(b"{".to_vec()).await.refused(400, "BAD_FRAME");
    post(b"\xff\xfe".to_vec()).await.refused(400, "BAD_FRAME");
    post(b"login=ann&password=x".to_vec())
        .await
        .refused(400, "BAD_FRAME");
    post("[".repeat(10_000).into_bytes())
        .await
        .refused(400, "BAD_FRAME");
    post(b"{}".to_vec()).await.invalid("login");
    post(b"7".to_vec()).await.refused(400, "INVALID");
    // Fields have names: their order in a list means nothing.
    post(br#"["ann","0123456789"]"#.to_vec())
        .await
        .invalid("body");
    post(br#"{"login":"ann","password":{}}"#.to_vec())
        .await
        .invalid("password");
    let padded = |size: usize| {
        let frame = r#"{"login":"","password":"x"}"#;
        let login = "a".repeat(size - frame.len());
        format!(r#"{{"login":"{login}","password":"x"}}"#).into_bytes()
    };
    post(padded(256 * 1024))
        .await
        .refused(401, "UNAUTHENTICATED");
    post(padded(256 * 1024 + 1)).await.refused(413, "TOO_LARGE");
}

#[tokio::test]
async fn a_body_that_dribbles_is_not_waited_for() {
    let world = World::sqlite().await;
    let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let request = Request::post("/api/v1/auth/login").body(Body::from_stream(endless));
    // From here on time passes as soon as nothing else is left to do.
    tokio::time::pause();
    world.send(request.unwrap()).await.refused(400, "BAD_FRAME");
}

#[tokio::test]
async fn tokens_are_taken_from_the_header_only() {
    let world = World::sqlite().await;
    let ann = world.register("ann").await;
    let get = |value: String| {
        let request = Request::get("/api/v1/users/me").header(header::AUTHORIZATION, value);
        let request = request.body(Body::empty()).unwrap();
        let world = world.clone();
        async move { world.send(request).await }
    };
    get(format!("bearer {}", ann.access)).await.is(200);
    for bad in [
        "",
        "Bearer",
        "Bearer ",
        "Basic YW5uOng=",
        &ann.access,
        "Bearer x.y.z",
    ] {
        get(bad.to_owned()).await.refused(401, "UNAUTHENTICATED");
    }
    let path = format!("/users/me?token={}", ann.access);
    world
        .call(None, Method::GET, &path, None)
        .await
        .refused(401, "UNAUTHENTICATED");
}

async fn from_origin(world: &World, method: Method, origin: &str, preflight: bool) -> HeaderMap {
    let mut request = Request::builder().method(method).uri("/api/v1/users/me");
    request = request.header(header::ORIGIN, origin);
    if preflight {
        request = request.header(header::ACCESS_CONTROL_REQUEST_METHOD, "PATCH");
    }
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    if preflight
        && answer
            .headers
            .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        assert_eq!(answer.status, 200);
    }
    answer.headers
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_answers() {
    let world = World::sqlite().await;
    let good = "https://chat.example";
    let preflight = from_origin(&world, Method::OPTIONS, good, true).await;
    assert_eq!(preflight[header::ACCESS_CONTROL_ALLOW_ORIGIN], good);
    let methods = preflight[header::ACCESS_CONTROL_ALLOW_METHODS]
        .to_str()
        .unwrap();
    assert!(methods.contains("PATCH"), "{methods}");
    let allowed = preflight[header::ACCESS_CONTROL_ALLOW_HEADERS]
        .to_str()
        .unwrap();
    assert!(allowed.contains("authorization"), "{allowed}");
    let answer = from_origin(&world, Method::GET, good, false).await;
    assert_eq!(
        answer[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        good,
        "refusals too"
    );
    assert_eq!(answer[header::VARY], "origin");
    for (method, preflight) in [(Method::OPTIONS, true), (Method::GET, false)] {
        let answer = from_origin(&world, method, "https://evil.example", preflight).await;
        assert!(!answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_served() {
    let world = World::sqlite().await;
    let document = world.call_root("/openapi.json").await;
    assert_eq!(document.status, 200);
    assert_eq!(document.json()["openapi"], json!("3.1.0"));
    let page = world.call_root("/docs").await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.headers[header::CONTENT_TYPE],
        "text/html; charset=utf-8"
    );
    assert!(
        page.headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap()
            .contains("'none'")
    );
}
