//! Frames that are no commands at all, in both subprotocols.

use rookery_protocol::ErrorCode;
use rookery_test_support::wire::{BINARY, FIN, Handshake, TEXT, Wire};
use serde_json::{Value, json};

use crate::stage::{Stage, is_error};

#[tokio::test]
async fn what_is_no_object_with_a_type_is_a_bad_frame() {
    let mut stage = Stage::set().await;
    for frame in [
        "hello",
        "",
        " ",
        "{",
        "}",
        "null",
        "7",
        "true",
        "\"ping\"",
        "[]",
        "[\"ping\"]",
        "[\"ping\",\"r\"]",
        "{}",
        "{\"ref\":\"r\"}",
        "{\"type\":7}",
        "{\"type\":null}",
        "{\"type\":[\"ping\"]}",
        "{\"type\":{}}",
        "{\"type\":\"ping\"",
        "{\"type\":\"ping\",}",
        "{\"type\":\"ping\"}}",
        "{\"type\":\"ping\"} {\"type\":\"ping\"}",
        "{'type':'ping'}",
        "{type:\"ping\"}",
        "{\"type\":\"ping\",\"type\":\"ping\"}",
        "\u{feff}{\"type\":\"ping\"}",
        "{\"type\":\"ping\",\"x\":\"\u{1}\"}",
        "{\"type\":\"ping\",\"x\":NaN}",
        "{\"type\":\"pi\\ud800ng\"}",
        "{\"type\":\"ping\"}\u{0}",
    ] {
        let error = stage.refused(frame, frame, "BAD_FRAME", "type").await;
        assert_eq!(error["ref"], Value::Null, "{frame}");
    }
    for kind in [
        "dance",
        "",
        "PING",
        "ping ",
        "message",
        "ready",
        "message.new",
        "error",
        "__proto__",
    ] {
        let frame = json!({"type": kind, "ref": "r"}).to_string();
        let error = stage.refused(&frame, &frame, "UNKNOWN_TYPE", "type").await;
        assert_eq!(error["ref"], "r", "{frame}");
    }
    let long = json!({"type": "x".repeat(60_000)}).to_string();
    let error = stage
        .refused("a long type", &long, "UNKNOWN_TYPE", "type")
        .await;
    assert!(
        error.to_string().len() < 1_000,
        "what came in is not sent back at length"
    );
}

#[tokio::test]
async fn a_field_given_twice_is_refused() {
    let mut stage = Stage::set().await;
    let frame = "{\"type\":\"ping\",\"ref\":\"a\",\"ref\":\"b\"}";
    stage.refused("two refs", frame, "INVALID", "").await;
    let (id, other) = (stage.group, stage.foreign);
    let frame = format!(
        "{{\"type\":\"message.read\",\"seq\":1,\"conversation_id\":\"{id}\",\
         \"conversation_id\":\"{other}\"}}"
    );
    stage
        .refused("two conversations", &frame, "INVALID", "")
        .await;
}

#[tokio::test]
async fn unknown_fields_and_escapes_are_no_matter() {
    let mut stage = Stage::set().await;
    let mut socket = stage.open(&stage.ann).await;
    for frame in [
        "{\"type\":\"ping\",\"ref\":\"r\",\"newer\":{\"deep\":[1,2,{}]}}",
        "{\"\\u0074ype\":\"pi\\u006eg\",\"ref\":\"\\u0072\"}",
        "\r\n\t {\"ref\" : \"r\" ,\n\"type\"\t:\"ping\" } \n",
        "{\"type\":\"ping\",\"ref\":\"r\",\"huge\":1e999}",
    ] {
        socket.text(frame).await;
        assert_eq!(
            socket.event().await,
            json!({"type": "pong", "ref": "r"}),
            "{frame}"
        );
    }
    stage.still_works(&mut socket, "odd pings").await;
}

#[tokio::test]
async fn deep_nesting_exhausts_nothing() {
    let mut stage = Stage::set().await;
    // 100,000 brackets are more than a frame may have.
    let mut socket = stage.open(&stage.ann).await;
    socket.text(&"[".repeat(100_000)).await;
    assert_eq!(socket.closed().await, 1009);
    for open in ["[", "{\"a\":", "[{\"a\":"] {
        let deep = open.repeat(65_000 / open.len());
        stage.refused(open, &deep, "BAD_FRAME", "type").await;
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    // In a field nobody reads it does not matter, whatever the answer is.
    let ignored = format!("{{\"type\":\"ping\",\"x\":{}}}", nested(30_000));
    let mut socket = stage.open(&stage.ann).await;
    socket.text(&ignored).await;
    assert!(["pong", "error"].contains(&socket.event().await["type"].as_str().unwrap()));
    stage
        .still_works(&mut socket, "nesting that is passed over")
        .await;
    // In one that is kept it is refused.
    for depth in [200, 2_000, 30_000] {
        let mut frame = crate::stage::send_to(stage.group, "x").to_string();
        frame.pop();
        let frame = format!("{frame},\"metadata\":{{\"x\":{}}}}}", nested(depth));
        let error = stage.refused("metadata", &frame, "INVALID", "").await;
        let field = error["details"][0]["field"].as_str().unwrap();
        assert!(
            field.starts_with("metadata") && field.len() <= 120,
            "{field}"
        );
    }
}

async fn open_msgpack(stage: &Stage) -> Wire {
    let handshake = Handshake::to(&stage.cluster.url()).token(&stage.ann.tokens.access_token);
    let mut socket = handshake
        .header("Sec-WebSocket-Protocol", "rookery.v1.msgpack")
        .open()
        .await;
    assert_eq!(packed_event(&mut socket).await["type"], "ready");
    socket
}

async fn packed_event(socket: &mut Wire) -> Value {
    let frame = socket.read().await.expect("the socket stays open");
    assert_eq!(frame.first, FIN | BINARY, "{frame:?}");
    rmp_serde::from_slice(&frame.payload).unwrap()
}

fn pack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

#[tokio::test]
async fn each_subprotocol_has_its_kind_of_frame() {
    let mut stage = Stage::set().await;
    let ping = json!({"type": "ping", "ref": "r"});
    let mut json_socket = stage.open(&stage.ann).await;
    for bytes in [
        ping.to_string().into_bytes(),
        pack(&ping),
        vec![0xff; 1_000],
    ] {
        json_socket.send(FIN | BINARY, &bytes).await;
        let error = json_socket.event().await;
        assert_eq!(is_error(&error, "binary"), ErrorCode::BadFrame);
        assert_eq!(error["details"][0]["field"], "frame");
        assert_eq!(error["details"][0]["allowed"], "text frames");
    }
    stage.still_works(&mut json_socket, "binary frames").await;

    let mut packed_socket = open_msgpack(&stage).await;
    packed_socket.text(&ping.to_string()).await;
    let error = packed_event(&mut packed_socket).await;
    assert_eq!(is_error(&error, "text"), ErrorCode::BadFrame);
    assert_eq!(error["details"][0]["allowed"], "binary frames");
    packed_socket.send(FIN | BINARY, &pack(&ping)).await;
    assert_eq!(
        packed_event(&mut packed_socket).await,
        json!({"type": "pong", "ref": "r"})
    );
    stage.all_is_well("text on a binary socket").await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "most of it is a table")]
async fn bad_msgpack_is_refused_like_bad_json() {
    let mut stage = Stage::set().await;
    let ping = pack(&json!({"type": "ping", "ref": "r"}));
    let send = crate::stage::send_to(stage.group, "x");
    let with = |field: &str, value: Value| pack(&crate::stage::with(send.clone(), field, value));
    let deep = |byte: u8| vec![byte; 60_000];
    let bad = [
        ("nothing", Vec::new()),
        ("nil", vec![0xc0]),
        ("the byte that is never used", vec![0xc1]),
        ("a number", vec![7]),
        ("a text", pack(&json!("ping"))),
        ("an empty map", vec![0x80]),
        ("fields by position", pack(&json!(["ping", "r"]))),
        ("half a frame", ping[..ping.len() / 2].to_vec()),
        ("a map of 4 billion", vec![0xdf, 0xff, 0xff, 0xff, 0xff]),
        (
            "a text of 4 GiB",
            [
                vec![0x81, 0xa4],
                b"type".to_vec(),
                vec![0xdb, 0xff, 0xff, 0xff, 0xff],
            ]
            .concat(),
        ),
        ("an array of 4 billion", vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
        ("an extension", vec![0xd4, 1, 2]),
        (
            "a type that is no UTF-8",
            [vec![0x81, 0xa4], b"type".to_vec(), vec![0xa2, 0xff, 0xfe]].concat(),
        ),
        ("deep arrays", deep(0x91)),
        ("deep maps", deep(0x81)),
        (
            "deep below a key",
            [vec![0x81, 0xa1, b'x'], deep(0x91)].concat(),
        ),
    ];
    for (what, bytes) in bad {
        let mut socket = open_msgpack(&stage).await;
        socket.send(FIN | BINARY, &bytes).await;
        let error = packed_event(&mut socket).await;
        assert_eq!(
            is_error(&error, what),
            ErrorCode::BadFrame,
            "{what}: {error}"
        );
        socket.send(FIN | BINARY, &ping).await;
        assert_eq!(packed_event(&mut socket).await["type"], "pong", "{what}");
        stage.all_is_well(what).await;
    }
    for (field, value) in [
        ("message_id", json!("x")),
        ("message_id", Value::Null),
        ("content", json!(7)),
        ("reply_to", json!("1")),
        ("metadata", json!([])),
        ("ref", json!(7)),
    ] {
        let mut socket = open_msgpack(&stage).await;
        socket.send(FIN | BINARY, &with(field, value.clone())).await;
        let error = packed_event(&mut socket).await;
        assert_eq!(
            is_error(&error, field),
            ErrorCode::Invalid,
            "{field} {value}: {error}"
        );
        assert_eq!(error["details"][0]["field"], field, "{value}: {error}");
    }
    // Ids are strings here too.
    let bytes = rmp_serde::to_vec_named(&serde_json::Map::from_iter([
        ("type".to_owned(), json!("message.read")),
        ("conversation_id".to_owned(), json!([1, 2, 3])),
        ("seq".to_owned(), json!(1)),
    ]));
    let mut socket = open_msgpack(&stage).await;
    socket.send(FIN | BINARY, &bytes.unwrap()).await;
    assert_eq!(
        packed_event(&mut socket).await["details"][0]["field"],
        "conversation_id"
    );
    stage.all_is_well("bad fields").await;
}

/// A generator that gives the same garbage every time (xorshift).
struct Garbage(u64);

impl Garbage {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// A good frame with some bytes of it changed, left out or repeated, still UTF-8.
    fn spoil(&mut self, frame: &str) -> String {
        let mut bytes = frame.as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] = b"{}[]\",:\\0x"[self.below(10)],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Spoilt frames until the server has had enough, a thousand in all: each is answered, with a code
/// from the table if it is refused, and whoever sends too many is thrown out.
#[tokio::test]
async fn a_thousand_garbled_frames_are_each_answered_until_the_server_has_enough() {
    let mut stage = Stage::set().await;
    let mut garbage = Garbage(0x5eed);
    let template = crate::stage::send_to(stage.group, "to be spoilt").to_string();
    let (mut refused, mut thrown_out) = (0, 0);
    while refused < 1_000 {
        let mut socket = stage.open(&stage.ann).await;
        let frames: Vec<String> = (0..100).map(|_| garbage.spoil(&template)).collect();
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|frame| rookery_test_support::wire::frame(FIN | TEXT, frame.as_bytes()))
            .collect();
        socket.raw(&bytes).await;
        let (events, code) = socket.closed_after().await;
        assert_eq!(code, 4009, "{} events", events.len());
        let bad = |event: &&Value| {
            event["type"] == "error"
                && matches!(
                    is_error(event, "garbage"),
                    ErrorCode::BadFrame | ErrorCode::Invalid | ErrorCode::UnknownType
                )
        };
        let count = events.iter().filter(bad).count();
        assert!(count > 20, "thrown out after {count} bad frames");
        refused += count;
        thrown_out += 1;
        stage.all_is_well("garbage").await;
    }
    assert!(thrown_out > 10, "after {thrown_out} sockets");
    let mut socket = stage.open(&stage.ann).await;
    stage
        .still_works(&mut socket, "a thousand garbled frames")
        .await;
}

#[tokio::test]
async fn binary_garbage_is_stopped_as_well() {
    let mut stage = Stage::set().await;
    let mut garbage = Garbage(0xfeed);
    let mut socket = open_msgpack(&stage).await;
    for _ in 0..100 {
        let mut bytes: Vec<u8> = Vec::new();
        bytes.resize_with(1 + garbage.below(300), || garbage.next().to_le_bytes()[0]);
        socket.send(FIN | BINARY, &bytes).await;
    }
    let mut errors = 0;
    let code = loop {
        let frame = socket.read().await.expect("a close frame comes first");
        if frame.first != FIN | BINARY {
            break u16::from_be_bytes(*frame.payload.first_chunk().unwrap());
        }
        let event: Value = rmp_serde::from_slice(&frame.payload).unwrap();
        is_error(&event, "binary garbage");
        errors += 1;
    };
    assert_eq!((errors, code), (21, 4009));
    stage.all_is_well("binary garbage").await;
}
