//! The same over HTTP, byte by byte where it matters. What the routes themselves refuse stands in
//! `rest.rs` of the tests.

use rookery_client::rest::Method;
use rookery_test_support::wire::{Answer, Handshake};
use rookery_test_support::{Person, TestCluster, new_message_id};
use serde_json::{Value, json};

use crate::stage::Stage;

/// A request of one's own making on a fresh connection.
async fn ask(cluster: &TestCluster, request: &[u8]) -> Answer {
    let mut wire = Handshake::to(&cluster.url()).connect().await;
    wire.raw(request).await;
    wire.answer().await
}

/// For what is no HTTP: this status, unless the connection is gone before it arrives.
async fn ended_with(cluster: &TestCluster, request: &[u8], status: u16) {
    let mut wire = Handshake::to(&cluster.url()).connect().await;
    wire.raw(request).await;
    if let Some(answer) = wire.answer_or_end().await {
        assert_eq!(answer.status, status, "{}", answer.body);
    }
}

/// A request with these headers; the body's length is told rightly unless a header tells it.
fn request(person: &Person, method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let token = &person.tokens.access_token;
    let length = if headers.contains("Content-Length") || headers.contains("Transfer-Encoding") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let head = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         {headers}{length}\r\n"
    );
    [head.as_bytes(), body].concat()
}

const JSON: &str = "Content-Type: application/json\r\n";

/// The answer must be a failure in the envelope, with this status, code and field.
fn refused(answer: &Answer, status: u16, code: &str, field: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.body);
    let body = answer.json();
    assert_eq!(body["success"], false, "{what}: {body}");
    assert_eq!(body["error"]["code"], code, "{what}: {body}");
    if !field.is_empty() {
        assert_eq!(
            body["error"]["details"][0]["field"], field,
            "{what}: {body}"
        );
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_are_bad_frames() {
    let mut stage = Stage::set().await;
    let path = format!("/conversations/{}/messages", stage.group);
    let deep = "[".repeat(100_000);
    for body in [
        "",
        " ",
        "{",
        "content=x",
        "{\"message_id\":",
        "\u{feff}{}",
        "{}{}",
        "{'content':'x'}",
        "\0",
        &deep,
        &"{\"a\":".repeat(30_000),
        &"9".repeat(200_000)
            .replacen('9', "-", 1)
            .replace("-9", "-x"),
    ] {
        let shown: String = body.chars().take(40).collect();
        let bytes = request(&stage.ann, "POST", &path, JSON, body.as_bytes());
        refused(
            &ask(&stage.cluster, &bytes).await,
            400,
            "BAD_FRAME",
            "",
            &shown,
        );
    }
    let bytes = request(&stage.ann, "POST", &path, JSON, b"\xff\xfe{}");
    refused(
        &ask(&stage.cluster, &bytes).await,
        400,
        "BAD_FRAME",
        "",
        "no UTF-8",
    );
    let bytes = request(
        &stage.ann,
        "POST",
        &path,
        JSON,
        b"{\"content\":\"\xc0\xaf\"}",
    );
    refused(
        &ask(&stage.cluster, &bytes).await,
        400,
        "INVALID",
        "content",
        "a text that is no UTF-8",
    );
    stage.all_is_well("bad bodies").await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "most of it is a table")]
async fn fields_of_the_wrong_shape_are_named() {
    let mut stage = Stage::set().await;
    let group = format!("/conversations/{}", stage.group);
    let messages = format!("{group}/messages");
    let message = json!({"message_id": new_message_id(), "content": "x"});
    let read = format!("{group}/read");
    let members = format!("{group}/members");
    let bob = format!("{members}/{}", stage.bob.id());
    let cases: Vec<(&str, &str, Value, &str)> = vec![
        ("POST", &messages, json!({}), "message_id"),
        (
            "POST",
            &messages,
            json!({"message_id": new_message_id()}),
            "content",
        ),
        (
            "POST",
            &messages,
            crate::stage::with(message.clone(), "content", json!(1)),
            "content",
        ),
        (
            "POST",
            &messages,
            crate::stage::with(message.clone(), "content", json!(" ")),
            "content",
        ),
        (
            "POST",
            &messages,
            crate::stage::with(message.clone(), "message_id", json!(1)),
            "message_id",
        ),
        (
            "POST",
            &messages,
            crate::stage::with(message.clone(), "metadata", json!("x")),
            "metadata",
        ),
        (
            "POST",
            &messages,
            crate::stage::with(message.clone(), "reply_to", json!(99)),
            "reply_to",
        ),
        (
            "POST",
            &messages,
            crate::stage::with(message, "reply_to", json!("1")),
            "reply_to",
        ),
        ("POST", &read, json!({"seq": "1"}), "seq"),
        ("POST", &read, json!({"seq": -1}), "seq"),
        ("POST", &read, json!({"seq": i64::MAX}), "seq"),
        ("POST", &read, json!({"seq": u64::MAX}), "seq"),
        ("POST", &members, json!({"user_ids": "x"}), "user_ids"),
        ("POST", &members, json!({"user_ids": ["x"]}), "user_ids[0]"),
        ("PATCH", &bob, json!({"role": "king"}), "role"),
        ("PATCH", &group, json!({"title": 7}), "title"),
        ("PATCH", &group, json!({"title": "x".repeat(101)}), "title"),
        (
            "POST",
            "/conversations",
            json!({"kind": "direct"}),
            "user_id",
        ),
        (
            "POST",
            "/conversations",
            json!({"kind": "group", "member_ids": [7]}),
            "",
        ),
        ("POST", "/conversations", json!({"kind": "club"}), ""),
        ("POST", "/conversations", json!({}), "kind"),
        (
            "PATCH",
            "/users/me",
            json!({"avatar_url": "javascript:alert(1)"}),
            "avatar_url",
        ),
        (
            "PATCH",
            "/users/me",
            json!({"full_name": "a\nb"}),
            "full_name",
        ),
        ("POST", "/auth/register", json!({"username": "x"}), "email"),
    ];
    for (method, path, body, field) in cases {
        let what = format!("{method} {path} {body}");
        let bytes = request(&stage.ann, method, path, JSON, body.to_string().as_bytes());
        refused(
            &ask(&stage.cluster, &bytes).await,
            400,
            "INVALID",
            field,
            &what,
        );
    }
    for number in ["1e99", "1e999", "1.5", "99999999999999999999"] {
        let body = format!("{{\"seq\":{number}}}");
        let bytes = request(&stage.ann, "POST", &read, JSON, body.as_bytes());
        refused(
            &ask(&stage.cluster, &bytes).await,
            400,
            "INVALID",
            "seq",
            number,
        );
    }
    stage.all_is_well("bad fields").await;
}

#[tokio::test]
async fn a_body_is_what_its_bytes_say_and_bounded() {
    let mut stage = Stage::set().await;
    let path = format!("/conversations/{}/messages", stage.group);
    let body = |content: &str| {
        json!({"message_id": new_message_id(), "content": content})
            .to_string()
            .into_bytes()
    };
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "image/png",
        "",
    ] {
        let headers = format!("Content-Type: {kind}\r\n");
        let bytes = request(&stage.ann, "POST", &path, &headers, &body("x"));
        assert_eq!(ask(&stage.cluster, &bytes).await.status, 201, "{kind}");
    }
    for size in [256 * 1024 + 1, 10 * 1024 * 1024] {
        let bytes = request(&stage.ann, "POST", &path, JSON, &vec![b' '; size]);
        refused(
            &ask(&stage.cluster, &bytes).await,
            413,
            "TOO_LARGE",
            "",
            &size.to_string(),
        );
    }
    // In chunks it is the same; a chunk that is none ends it.
    let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n");
    let good = body("in chunks");
    let chunks: Vec<u8> = good
        .iter()
        .flat_map(|byte| [b"1\r\n".as_slice(), &[*byte], b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    let bytes = request(&stage.ann, "POST", &path, &chunked, &chunks);
    assert_eq!(ask(&stage.cluster, &bytes).await.status, 201);
    let bytes = request(&stage.ann, "POST", &path, &chunked, b"what\r\n");
    ended_with(&stage.cluster, &bytes, 400).await;

    // Less than announced, and then nothing: nobody waits for the rest.
    let headers = format!("{JSON}Content-Length: 100\r\n");
    let mut wire = Handshake::to(&stage.cluster.url()).connect().await;
    wire.raw(&request(&stage.ann, "POST", &path, &headers, b"{\"mess"))
        .await;
    wire.hang_up().await;
    while wire.read().await.is_some() {}
    // Two lengths are one too many (RFC 9112, 6.3).
    let headers = format!("{JSON}Content-Length: 2\r\nContent-Length: 3\r\n");
    let bytes = request(&stage.ann, "POST", &path, &headers, b"{} ");
    ended_with(&stage.cluster, &bytes, 400).await;
    stage.all_is_well("odd bodies").await;
}

#[tokio::test]
async fn garbage_in_the_address_names_nothing() {
    let mut stage = Stage::set().await;
    let group = stage.group.to_string();
    for id in [
        "x",
        "0",
        "-1",
        "null",
        "%00",
        "%ff",
        "..",
        "%2e%2e",
        "'--",
        "%27%20OR%201=1",
        "💚",
        &group[1..],
        &format!("{group}0"),
        &"x".repeat(5_000),
        &stage.foreign.to_string(),
        &new_message_id().to_string(),
    ] {
        for (method, path) in [
            ("GET", format!("/conversations/{id}")),
            ("GET", format!("/conversations/{id}/messages")),
            (
                "DELETE",
                format!("/conversations/{id}/members/{}", stage.ann.id()),
            ),
            ("GET", format!("/users/{id}")),
            ("DELETE", format!("/auth/sessions/{id}")),
        ] {
            let bytes = request(&stage.ann, method, &path, "", b"");
            let answer = ask(&stage.cluster, &bytes).await;
            let what = format!("{method} {path}");
            // hyper refuses what is no address at all.
            if answer.status == 400 && answer.body.is_empty() {
                assert!(!path.is_ascii(), "{what}");
                continue;
            }
            refused(&answer, 404, "NOT_FOUND", "", &what);
        }
    }
    for (method, path, status) in [
        ("GET", "/conversations/", 404),
        ("GET", "//conversations", 404),
        ("GET", "/CONVERSATIONS", 404),
        ("GET", "/../../etc/passwd", 404),
        ("PUT", "/conversations", 405),
        ("TRACE", "/users/me", 405),
        ("BREW", "/users/me", 405),
    ] {
        let bytes = request(&stage.ann, method, path, "", b"");
        let answer = ask(&stage.cluster, &bytes).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.json()["success"], false, "{method} {path}");
    }
    // A head that is too long, or has too many lines.
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    let many: String = (0..200).map(|n| format!("X-{n}: x\r\n")).collect();
    for headers in [long, many] {
        let bytes = request(&stage.ann, "GET", "/users/me", &headers, b"");
        ended_with(&stage.cluster, &bytes, 431).await;
    }
    stage.all_is_well("odd addresses").await;
}

#[tokio::test]
async fn garbage_in_the_query_is_named() {
    let mut stage = Stage::set().await;
    let messages = format!("/conversations/{}/messages", stage.group);
    let ids = vec![new_message_id().to_string(); 201].join(",");
    let cases = [
        (messages.as_str(), "limit=0", "limit"),
        (&messages, "limit=201", "limit"),
        (&messages, "limit=-1", "limit"),
        (&messages, "limit=", "limit"),
        (&messages, "limit=ten", "limit"),
        (&messages, "limit=1e3", "limit"),
        (&messages, "limit=99999999999999999999", "limit"),
        (&messages, "limit=%ff", "limit"),
        (&messages, "before_seq=-1", "before_seq"),
        (&messages, "before_seq=x", "before_seq"),
        (&messages, "after_seq=9223372036854775808", "after_seq"),
        (&messages, "before_seq=5&after_seq=1", "after_seq"),
        ("/conversations", "cursor=x", "cursor"),
        ("/conversations", "cursor=%00%ff", "cursor"),
        (
            "/conversations",
            "cursor=YzE6OTk5OTk5OTk5OTk5OTk5OTk5OS54",
            "cursor",
        ),
        ("/conversations", "changed_since=yesterday", "changed_since"),
        (
            "/conversations",
            "changed_since=2026-13-45T99:99:99Z",
            "changed_since",
        ),
        ("/users", "user_ids=x", "user_ids"),
        ("/users", &format!("user_ids={ids}"), "user_ids"),
        ("/users", "user_ids=&query=x", "user_ids"),
        ("/users", "query=x&cursor=bTE6eA", "cursor"),
    ];
    for (path, query, field) in cases {
        let bytes = request(&stage.ann, "GET", &format!("{path}?{query}"), "", b"");
        let shown: String = query.chars().take(60).collect();
        refused(
            &ask(&stage.cluster, &bytes).await,
            400,
            "INVALID",
            field,
            &shown,
        );
    }
    for query in [
        "",
        "&&&",
        "=",
        "%",
        "%zz=%zz",
        "nobody=knows",
        "limit=1&limit=x",
        "before_seq=0",
    ] {
        let bytes = request(&stage.ann, "GET", &format!("{messages}?{query}"), "", b"");
        let answer = ask(&stage.cluster, &bytes).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    }
    stage.all_is_well("odd queries").await;
}

/// PostgreSQL cannot store U+0000 in text and fails on it: no field may let it through.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "most of it is a table")]
async fn u_0000_reaches_no_database() {
    let cluster = TestCluster::start(env!("CARGO_BIN_EXE_rookery"), 1).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let group = ann.group("group", &[&bob]).await;
    let account = json!({"username": "new", "email": "new@example.com", "password": "0123456789"});
    let account =
        |field: &str, value: &str| crate::stage::with(account.clone(), field, json!(value));
    let group_path = format!("/conversations/{group}");
    let cases: Vec<(Method, String, Option<Value>)> = vec![
        (
            Method::POST,
            "/auth/register".into(),
            Some(account("username", "a\0b")),
        ),
        (
            Method::POST,
            "/auth/register".into(),
            Some(account("email", "a\0b@example.com")),
        ),
        (
            Method::POST,
            "/auth/register".into(),
            Some(account("full_name", "a\0b")),
        ),
        (
            Method::POST,
            "/auth/register".into(),
            Some(account("device_name", "a\0b")),
        ),
        (
            Method::POST,
            "/auth/login".into(),
            Some(json!({"login": "a\0", "password": "x"})),
        ),
        (
            Method::POST,
            "/auth/login".into(),
            Some(json!({"login": "a\0@x", "password": "x"})),
        ),
        (
            Method::POST,
            "/auth/refresh".into(),
            Some(json!({"refresh_token": "a\0b"})),
        ),
        (
            Method::PATCH,
            "/users/me".into(),
            Some(json!({"full_name": "a\0b"})),
        ),
        (
            Method::PATCH,
            "/users/me".into(),
            Some(json!({"avatar_url": "https://a\0b"})),
        ),
        (Method::GET, "/users?query=a%00b".into(), None),
        (Method::GET, "/conversations?query=a%00b".into(), None),
        (
            Method::POST,
            "/conversations".into(),
            Some(json!({
                "kind": "group", "title": "a\0b", "member_ids": [],
            })),
        ),
        (
            Method::PATCH,
            group_path.clone(),
            Some(json!({"title": "a\0b"})),
        ),
        (
            Method::PATCH,
            group_path.clone(),
            Some(json!({"description": "a\0b"})),
        ),
        (
            Method::POST,
            format!("{group_path}/messages"),
            Some(json!({
                "message_id": new_message_id(), "content": "a\0b",
            })),
        ),
        (
            Method::POST,
            format!("{group_path}/messages"),
            Some(json!({
                "message_id": new_message_id(), "content": "x", "metadata": {"a\0": ["\0"]},
            })),
        ),
    ];
    for (method, path, body) in cases {
        let what = format!("{method} {path} {body:?}");
        let answer = ann
            .call::<Value, Value>(method, &path, &[], body.as_ref())
            .await;
        if let Err(error) = answer {
            assert!((400..500).contains(&error.status), "{what}: {error:?}");
        }
    }
    ann.me().await.unwrap();
}
