use serde_json::{Value, json};

use super::*;

const START: i64 = 1_790_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &[u8] = b"fedcba9876543210fedcba9876543210";

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(START * 1_000))
}

fn tokens(keys: &[(&str, &[u8])], clock: &Clock) -> AccessTokens {
    let keys: Vec<_> = keys
        .iter()
        .map(|(id, secret)| ((*id).into(), secret.to_vec()))
        .collect();
    AccessTokens::new(&keys, 900, clock.clone()).unwrap()
}

fn user() -> UserRow {
    UserRow {
        user_id: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
        username: "ann".into(),
        email: "ann@example.org".into(),
        full_name: None,
        avatar_url: None,
        role: UserRole::User,
        auth_version: 3,
        banned_at: None,
        created_at: Timestamp::from_millis(0),
        last_seen_at: None,
        chosen: Default::default(),
    }
}

fn session() -> SessionId {
    "00000000-0000-7000-8000-000000000002".parse().unwrap()
}

fn claims() -> Value {
    json!({
        "sub": user().user_id, "sid": session(), "username": "ann", "role": "user", "av": 3,
        "iss": "rookery", "aud": "rookery", "iat": START, "exp": START + 900,
    })
}

/// A token with any header and claims, signed with HMAC-SHA256 whatever the header says.
fn forge(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn head() -> Value {
    json!({"typ": "JWT", "alg": "HS256", "kid": "a"})
}

#[test]
fn a_token_says_who_holds_it_until_it_expires() {
    let clock = clock();
    let tokens = tokens(&[("a", SECRET)], &clock);
    let token = tokens.issue(&user(), session()).unwrap();
    let access = tokens.verify(&token).unwrap();
    assert_eq!(
        (access.user_id, access.session_id),
        (user().user_id, session())
    );
    assert_eq!(
        (access.username.as_str(), access.role),
        ("ann", UserRole::User)
    );
    assert_eq!(access.auth_version, 3);
    assert_eq!(
        access.expires_at,
        Timestamp::from_millis((START + 900) * 1_000)
    );
    clock.advance_millis((900 + LEEWAY_SECONDS) * 1_000 - 1);
    assert!(tokens.verify(&token).is_ok(), "within the leeway");
    clock.advance_millis(1);
    assert_eq!(tokens.verify(&token), Err(TokenRefusal::Expired));
}

#[test]
fn a_token_from_the_future_is_refused_beyond_the_leeway() {
    let clock = clock();
    let tokens = tokens(&[("a", SECRET)], &clock);
    let token = tokens.issue(&user(), session()).unwrap();
    clock.advance_millis(-LEEWAY_SECONDS * 1_000);
    assert!(tokens.verify(&token).is_ok());
    clock.advance_millis(-1_000);
    assert_eq!(tokens.verify(&token), Err(TokenRefusal::Invalid));
}

#[test]
fn the_first_key_signs_and_all_verify() {
    let clock = clock();
    let old = tokens(&[("a", SECRET)], &clock);
    let both = tokens(&[("b", OTHER_SECRET), ("a", SECRET)], &clock);
    let by_old = old.issue(&user(), session()).unwrap();
    let by_new = both.issue(&user(), session()).unwrap();
    assert!(both.verify(&by_old).is_ok());
    assert!(both.verify(&by_new).is_ok());
    assert_eq!(
        old.verify(&by_new),
        Err(TokenRefusal::Invalid),
        "a kid it does not know"
    );
}

#[test]
fn forged_tokens_are_refused() {
    let tokens = tokens(&[("a", SECRET), ("b", OTHER_SECRET)], &clock());
    assert!(
        tokens.verify(&forge(&head(), &claims(), SECRET)).is_ok(),
        "the forger can forge"
    );
    let refused = |what: &str, header: Value, claims: &Value, secret: &[u8]| {
        let verdict = tokens.verify(&forge(&header, claims, secret));
        assert_eq!(verdict, Err(TokenRefusal::Invalid), "{what}");
    };
    refused(
        "another's secret",
        head(),
        &claims(),
        b"not the secret, but just as long",
    );
    refused("another key's secret", head(), &claims(), OTHER_SECRET);
    refused(
        "alg none",
        json!({"alg": "none", "kid": "a"}),
        &claims(),
        SECRET,
    );
    refused(
        "alg None",
        json!({"alg": "None", "kid": "a"}),
        &claims(),
        SECRET,
    );
    refused(
        "alg HS512",
        json!({"alg": "HS512", "kid": "a"}),
        &claims(),
        SECRET,
    );
    refused(
        "alg RS256",
        json!({"alg": "RS256", "kid": "a"}),
        &claims(),
        SECRET,
    );
    refused("no alg", json!({"kid": "a"}), &claims(), SECRET);
    refused("no kid", json!({"alg": "HS256"}), &claims(), SECRET);
    refused(
        "kid null",
        json!({"alg": "HS256", "kid": null}),
        &claims(),
        SECRET,
    );
    refused(
        "unknown kid",
        json!({"alg": "HS256", "kid": "c"}),
        &claims(),
        SECRET,
    );
    refused(
        "crit",
        json!({"alg": "HS256", "kid": "a", "crit": ["x"]}),
        &claims(),
        SECRET,
    );
    let unsigned = forge(&json!({"alg": "none", "kid": "a"}), &claims(), SECRET);
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    assert_eq!(
        tokens.verify(&unsigned),
        Err(TokenRefusal::Invalid),
        "alg none, unsigned"
    );
}

#[test]
fn a_header_cannot_bring_its_own_key() {
    let tokens = tokens(&[("a", SECRET)], &clock());
    let key = URL_SAFE_NO_PAD.encode(OTHER_SECRET);
    let header = json!({
        "alg": "HS256", "kid": "a", "jku": "https://evil.example/keys", "x5u": "https://evil.example",
        "jwk": {"kty": "oct", "k": key},
    });
    let evil = forge(&header, &claims(), OTHER_SECRET);
    assert_eq!(tokens.verify(&evil), Err(TokenRefusal::Invalid));
    assert!(
        tokens.verify(&forge(&header, &claims(), SECRET)).is_ok(),
        "they are ignored"
    );
}

#[test]
fn every_claim_is_required_and_typed() {
    let tokens = tokens(&[("a", SECRET)], &clock());
    let refused = |what: &str, claims: &Value| {
        let verdict = tokens.verify(&forge(&head(), claims, SECRET));
        assert_eq!(verdict, Err(TokenRefusal::Invalid), "{what}");
    };
    for name in claims().as_object().unwrap().keys() {
        let mut without = claims();
        without.as_object_mut().unwrap().remove(name);
        refused(&format!("without {name}"), &without);
        let mut wrong = claims();
        wrong[name] = json!(["x"]);
        refused(&format!("wrong type of {name}"), &wrong);
        wrong[name] = Value::Null;
        refused(&format!("null {name}"), &wrong);
    }
    for (name, value) in [
        ("iss", json!("somebody")),
        ("aud", json!("somebody")),
        ("exp", json!((START + 900).to_string())),
        ("exp", json!(i64::MAX)),
        ("exp", json!(253_402_207_201_i64)),
        ("exp", json!(1.5)),
        ("role", json!("emperor")),
        ("sub", json!("ann")),
    ] {
        let mut wrong = claims();
        wrong[name] = value;
        refused(name, &wrong);
    }
}

#[test]
fn altered_and_misshapen_tokens_are_refused() {
    let tokens = tokens(&[("a", SECRET)], &clock());
    let token = tokens.issue(&user(), session()).unwrap();
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).unwrap();
        assert!(tokens.verify(&altered).is_err(), "altered at {at}");
    }
    let padded = forge(&head(), &json!({"pad": "x".repeat(2_000)}), SECRET);
    for bad in [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c.d",
        padded.as_str(),
        "ä.ö.ü",
    ] {
        assert_eq!(tokens.verify(bad), Err(TokenRefusal::Invalid), "{bad}");
    }
    let mut wide = claims();
    wide["username"] = json!("x".repeat(TOKEN_BYTES_MAX));
    let wide = forge(&head(), &wide, SECRET);
    assert_eq!(
        tokens.verify(&wide),
        Err(TokenRefusal::Invalid),
        "signed, but too large to read"
    );
}

#[test]
fn keys_are_replaced_while_tokens_live() {
    let tokens = tokens(&[("a", SECRET)], &clock());
    let of_a = tokens.issue(&user(), session()).unwrap();
    let keys = |keys: &[(&str, &[u8])]| -> Vec<(String, Vec<u8>)> {
        let keys = keys.iter();
        keys.map(|(id, key)| ((*id).into(), key.to_vec())).collect()
    };
    let both = keys(&[("b", OTHER_SECRET), ("a", SECRET)]);
    tokens.replace_keys(&both).unwrap();
    let of_b = tokens.issue(&user(), session()).unwrap();
    assert!(tokens.verify(&of_a).is_ok(), "still accepted");

    let weak = keys(&[("c", &SECRET[..31])]);
    assert!(tokens.replace_keys(&weak).is_err() && tokens.replace_keys(&[]).is_err());
    assert!(tokens.verify(&of_b).is_ok(), "as it was");

    tokens.replace_keys(&both[..1]).unwrap();
    assert_eq!(tokens.verify(&of_a), Err(TokenRefusal::Invalid));
    assert!(tokens.verify(&of_b).is_ok());
}

#[test]
fn weak_and_ambiguous_keys_are_refused_at_the_start() {
    let new = |keys: &[(&str, &[u8])]| {
        let keys: Vec<_> = keys
            .iter()
            .map(|(id, key)| ((*id).into(), key.to_vec()))
            .collect();
        AccessTokens::new(&keys, 900, clock())
            .err()
            .map(|error| error.to_string())
    };
    assert!(new(&[]).unwrap().contains("no key"));
    assert!(new(&[("a", &SECRET[..31])]).unwrap().contains("32 bytes"));
    assert!(
        new(&[("a", SECRET), ("a", OTHER_SECRET)])
            .unwrap()
            .contains("used once")
    );
    assert!(new(&[("", SECRET)]).is_some());
    assert!(new(&[("a", SECRET)]).is_none());
}
