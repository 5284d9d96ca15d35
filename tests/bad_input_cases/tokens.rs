//! Forged, garbled and expired tokens, on every way in.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rookery_test_support::wire::{FIN, Handshake, PING};
use rookery_test_support::{PATIENCE, new_message_id};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::stage::{Stage, builder, is_error};

const SECRET: &str = "a secret of the tests alone, long enough";

/// A genuine token's parts, to make others from.
struct Mint {
    token: String,
    header: Header,
    claims: Value,
}

impl Mint {
    fn of(token: &str) -> Self {
        let payload = token.split('.').nth(1).unwrap();
        Self {
            token: token.to_owned(),
            header: jsonwebtoken::decode_header(token).unwrap(),
            claims: serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap(),
        }
    }

    /// Signed with the server's own secret.
    fn signed(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    /// With one claim changed; `null` leaves it out.
    fn with(&self, claim: &str, value: Value) -> String {
        self.signed(
            &self.header,
            &crate::stage::with(self.claims.clone(), claim, value),
        )
    }

    /// Every kind of token that must not be taken for a genuine one.
    #[expect(clippy::too_many_lines, reason = "most of it is a table")]
    fn forged(&self) -> Vec<(String, String)> {
        let [head, payload, signature] = self
            .token
            .split('.')
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let kid = self.header.kid.clone();
        let unsigned = |alg: &str| encode(&json!({"alg": alg, "typ": "JWT", "kid": kid}));
        let mut admin = self.claims.clone();
        admin["role"] = json!("admin");
        let of = |algorithm| Header {
            kid: kid.clone(),
            ..Header::new(algorithm)
        };
        let stranger = EncodingKey::from_secret(b"another secret of at least 32 bytes, or more");
        let other_kid = Header {
            kid: Some("other".into()),
            ..self.header.clone()
        };
        let no_kid = Header {
            kid: None,
            ..self.header.clone()
        };
        let own_key = json!({"alg": "HS256", "kid": "k", "jwk": {"kty": "oct", "k": "AAAA"}});
        let mut forged = vec![
            ("nothing at all", "x".to_owned()),
            ("dots", "..".to_owned()),
            ("too long", format!("{}{}", self.token, "A".repeat(4_000))),
            ("an empty signature", format!("{head}.{payload}.")),
            ("no signature", format!("{head}.{payload}")),
            ("alg none", format!("{}.{payload}.", unsigned("none"))),
            (
                "alg None",
                format!("{}.{payload}.{signature}", unsigned("None")),
            ),
            (
                "alg HS256 by name only",
                format!("{}.{payload}.", unsigned("HS256")),
            ),
            (
                "a made-up role",
                format!("{head}.{}.{signature}", encode(&admin)),
            ),
            (
                "half a signature",
                format!("{head}.{payload}.{}", &signature[..20]),
            ),
            (
                "zeros for a signature",
                format!("{head}.{payload}.{}", "A".repeat(43)),
            ),
            (
                "another algorithm",
                self.signed(&of(Algorithm::HS384), &self.claims),
            ),
            (
                "a third algorithm",
                self.signed(&of(Algorithm::HS512), &self.claims),
            ),
            ("another secret", {
                jsonwebtoken::encode(&self.header, &self.claims, &stranger).unwrap()
            }),
            ("an unknown key", self.signed(&other_kid, &self.claims)),
            ("no key", self.signed(&no_kid, &self.claims)),
            (
                "a key of its own",
                format!("{}.{payload}.{signature}", encode(&own_key)),
            ),
            ("a list for claims", self.signed(&self.header, &json!([1]))),
        ];
        let far = 4_000_000_000_i64;
        for (claim, values) in [
            (
                "exp",
                vec![
                    Value::Null,
                    json!(far.to_string()),
                    json!(far as f64 + 0.5),
                    json!([far]),
                ],
            ),
            ("iat", vec![Value::Null, json!("0"), json!(far)]),
            ("sub", vec![Value::Null, json!(1), json!("ann"), json!([])]),
            ("sid", vec![Value::Null, json!(1), json!("x")]),
            ("role", vec![Value::Null, json!("root"), json!(1)]),
            ("av", vec![Value::Null, json!("1"), json!(1.5)]),
            ("iss", vec![Value::Null, json!("other"), json!(["rookery"])]),
            ("aud", vec![Value::Null, json!("other"), json!(["rookery"])]),
            ("username", vec![Value::Null, json!(1)]),
        ] {
            for value in values {
                let token = self.with(claim, value.clone());
                forged.push(("", token));
                forged.last_mut().unwrap().0 = claim;
            }
        }
        forged
            .into_iter()
            .map(|(what, token)| (what.to_owned(), token))
            .collect()
    }
}

async fn stage() -> (Stage, Mint) {
    let cluster = builder().set("JWT_SECRET", SECRET).start().await;
    let stage = Stage::on(cluster).await;
    let mint = Mint::of(&stage.ann.tokens.access_token);
    (stage, mint)
}

fn now() -> i64 {
    let since = UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[tokio::test]
async fn forged_tokens_open_nothing() {
    let (mut stage, mint) = stage().await;
    let handshake = Handshake::to(&stage.cluster.url());
    // What is made here is genuine but for what was changed.
    let genuine = mint.signed(&mint.header, &mint.claims);
    assert_eq!(handshake.clone().token(&genuine).send().await.status, 101);

    for (what, token) in mint.forged() {
        let answer = handshake.clone().token(&token).send().await;
        assert_eq!(answer.status, 401, "{what}");
        assert_eq!(answer.json()["error"]["code"], "UNAUTHENTICATED", "{what}");

        let path = format!("/ws?token={token}");
        let mut socket = handshake.clone().path(&path).open().await;
        assert_eq!(socket.closed_after().await, (Vec::new(), 4001), "{what}");

        let mut socket = handshake.open().await;
        socket.json(&json!({"type": "auth", "token": token})).await;
        assert_eq!(socket.closed_after().await, (Vec::new(), 4001), "{what}");

        let path = "/api/v1/users/me";
        let answer = handshake
            .clone()
            .path(path)
            .without("Upgrade")
            .token(&token)
            .send()
            .await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.body);
        stage.all_is_well(&what).await;
    }

    // On a live socket they change nothing, and neither does somebody else's.
    let mut socket = stage.open(&stage.ann).await;
    let mut others = mint.forged();
    others.push(("bob's".into(), stage.bob.tokens.access_token.clone()));
    others.push(("of another log-in".into(), {
        stage.ann.log_in_again().await.tokens.access_token
    }));
    for (what, token) in others {
        socket
            .json(&json!({"type": "auth", "ref": "r", "token": token}))
            .await;
        let error = socket.event().await;
        is_error(&error, &what);
        assert_eq!(
            (&error["code"], &error["ref"]),
            (&json!("UNAUTHENTICATED"), &json!("r"))
        );
    }
    socket
        .json(&json!({"type": "auth", "ref": "r", "token": mint.token}))
        .await;
    socket.expect("auth.ok").await;
    stage.still_works(&mut socket, "forged renewals").await;
}

#[tokio::test]
async fn bad_authorization_headers_are_refused() {
    let (stage, mint) = stage().await;
    let handshake = Handshake::to(&stage.cluster.url());
    for value in [
        "Bearer",
        "Bearer  ",
        "bearer x",
        "Bearer ,",
        &format!("Bearer {} x", mint.token),
    ] {
        let answer = handshake
            .clone()
            .header("Authorization", value)
            .send()
            .await;
        assert_eq!(answer.status, 401, "{value:?}");
    }
    // The scheme's name has no case (RFC 9110, 11.1).
    let value = format!("BEARER {}", mint.token);
    assert_eq!(
        handshake
            .clone()
            .header("Authorization", &value)
            .send()
            .await
            .status,
        101
    );
    // A bad header is not made good by the address.
    let path = format!("/ws?token={}", mint.token);
    let both = handshake.clone().path(&path).token("x");
    assert_eq!(both.send().await.status, 401);
}

#[tokio::test]
async fn expired_tokens_say_refresh() {
    let (mut stage, mint) = stage().await;
    let handshake = Handshake::to(&stage.cluster.url());
    for seconds in [16, 60, 1_000_000] {
        let token = mint.with("exp", json!(now() - seconds));
        let answer = handshake.clone().token(&token).send().await;
        assert_eq!(answer.status, 401);
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("expired"), "{message}");

        let path = format!("/ws?token={token}");
        let mut socket = handshake.clone().path(&path).open().await;
        assert_eq!(socket.closed_after().await, (Vec::new(), 4103));

        let mut socket = handshake.open().await;
        socket.json(&json!({"type": "auth", "token": token})).await;
        assert_eq!(socket.closed_after().await, (Vec::new(), 4103));
    }
    // A clock may be 15 s late; a socket ends then, unless its token is renewed.
    let token = mint.with("exp", json!(now() - 10));
    let mut ends = handshake.clone().token(&token).open().await;
    let mut renewed = handshake.clone().token(&token).open().await;
    let mut shortened = handshake.clone().token(&mint.token).open().await;
    for socket in [&mut ends, &mut renewed, &mut shortened] {
        socket.expect("ready").await;
    }
    for (socket, token) in [(&mut renewed, &mint.token), (&mut shortened, &token)] {
        socket.json(&json!({"type": "auth", "token": token})).await;
        socket.expect("auth.ok").await;
    }
    assert_eq!(ends.closed_after().await, (Vec::new(), 4103));
    assert_eq!(shortened.closed_after().await, (Vec::new(), 4103));
    stage.still_works(&mut renewed, "a renewed token").await;
}

#[tokio::test]
async fn genuine_tokens_of_what_is_over_open_nothing() {
    let (mut stage, mint) = stage().await;
    let handshake = Handshake::to(&stage.cluster.url());
    for (what, token) in [
        ("nobody", mint.with("sub", json!(new_message_id()))),
        ("an older version of the account", mint.with("av", json!(0))),
        ("a later version of the account", mint.with("av", json!(99))),
    ] {
        // Tokens are checked without asking the store, sockets are not opened without it.
        let mut socket = handshake.clone().token(&token).open().await;
        assert_eq!(socket.closed_after().await, (Vec::new(), 4001), "{what}");
        stage.all_is_well(what).await;
    }
    let gone = stage.ann.log_in_again().await;
    let mut socket = stage.open(&gone).await;
    gone.logout().await.unwrap();
    assert_eq!(socket.closed().await, 4001);
    let token = &gone.tokens.access_token;
    assert_eq!(handshake.clone().token(token).send().await.status, 401);
    let mut socket = handshake.path(&format!("/ws?token={token}")).open().await;
    assert_eq!(socket.closed_after().await, (Vec::new(), 4001));
}

#[tokio::test]
async fn who_does_not_say_who_they_are_is_let_go() {
    let (mut stage, mint) = stage().await;
    let handshake = Handshake::to(&stage.cluster.url());
    for (first, code) in [
        (
            json!({"type": "ping", "ref": "r"}).to_string(),
            "UNAUTHENTICATED",
        ),
        (
            crate::stage::send_to(stage.group, "x").to_string(),
            "UNAUTHENTICATED",
        ),
        (json!({"type": "auth", "ref": "r"}).to_string(), "INVALID"),
        (
            json!({"type": "dance", "ref": "r"}).to_string(),
            "UNKNOWN_TYPE",
        ),
        ("hello".into(), "BAD_FRAME"),
        (String::new(), "BAD_FRAME"),
    ] {
        let mut socket = handshake.open().await;
        socket.text(&first).await;
        let (events, close) = socket.closed_after().await;
        assert_eq!((events.len(), close), (1, 4001), "{first}: {events:?}");
        is_error(&events[0], &first);
        assert_eq!(events[0]["code"], code, "{first}");
        if code != "BAD_FRAME" {
            assert_eq!(events[0]["ref"], "r", "{first}");
        }
    }
    let mut empty = handshake.clone().path("/ws?token=").open().await;
    assert_eq!(empty.closed().await, 4001);

    // 5 s are given; pings do not buy more.
    let silent = async {
        let began = Instant::now();
        let mut socket = handshake.open().await;
        assert_eq!(socket.closed_after().await, (Vec::new(), 4001));
        began.elapsed()
    };
    let pinging = async {
        let began = Instant::now();
        let mut socket = handshake.open().await;
        while began.elapsed() < PATIENCE {
            socket.send(FIN | PING, b"wait").await;
            let Some(frame) = socket.read().await else {
                panic!("no close frame")
            };
            if frame.first == FIN | rookery_test_support::wire::CLOSE {
                assert_eq!(frame.payload[..2], 4001_u16.to_be_bytes());
                return began.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("pings keep it open");
    };
    let late = async {
        let mut socket = handshake.open().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        socket
            .json(&json!({"type": "auth", "ref": "r", "token": mint.token}))
            .await;
        assert_eq!(socket.expect("ready").await["ref"], "r");
    };
    let (silent, pinging, ()) = tokio::join!(silent, pinging, late);
    for took in [silent, pinging] {
        assert!(took >= Duration::from_secs(5), "let go after {took:?}");
    }
    stage.all_is_well("anonymous sockets").await;
}
