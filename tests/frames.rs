//! What a socket does with frames that are wrong, odd or hostile (RFC 6455, 4 and 5), byte by byte
//! over plain TCP. While one client misbehaves, another one on the same node notices nothing.

use std::time::Duration;

use rookery_test_support::wire::{
    self, BINARY, CLOSE, CONTINUATION, CUT_OFF, FIN, Handshake, PING, PONG, TEXT, Wire, frame,
    head, unmasked,
};
use rookery_test_support::{Person, TestCluster, eventually};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
/// Largest frame and message, in bytes.
const LIMIT: usize = 64 * 1024;

/// A node alone with one user, whose sockets the cases spoil, and a bystander on a socket of hers.
struct Stage {
    cluster: TestCluster,
    user: Person,
    bystander: Wire,
}

impl Stage {
    async fn set() -> Self {
        // Every case opens a socket of one user, and some are let go only after a while.
        let builder = TestCluster::builder(env!("CARGO_BIN_EXE_rookery")).alone();
        let cluster = builder
            .set("ROOKERY_LIMITS_SOCKETS_PER_USER", "100")
            .start()
            .await;
        let [user, other] = cluster.register_all(["user", "bystander"]).await;
        let bystander = open(&cluster, &other).await;
        Self {
            cluster,
            user,
            bystander,
        }
    }

    async fn open(&self) -> Wire {
        open(&self.cluster, &self.user).await
    }

    /// Sends `bytes` on a fresh socket and reads on to its end.
    async fn closes(&mut self, what: &str, bytes: &[u8], expected: u16) {
        let mut socket = self.open().await;
        socket.raw(bytes).await;
        let code = socket.closed().await;
        assert_eq!(code, expected, "{what}");
        self.all_is_well(what).await;
    }

    /// Sends `bytes` on a fresh socket, which then works as before.
    async fn stays_open(&mut self, what: &str, bytes: &[u8]) -> Wire {
        let mut socket = self.open().await;
        socket.raw(bytes).await;
        ping(&mut socket, what).await;
        self.all_is_well(what).await;
        socket
    }

    async fn all_is_well(&mut self, after: &str) {
        ping(&mut self.bystander, after).await;
    }

    /// Nothing of a spoilt socket is left behind on the node.
    async fn ends_with_only_the_bystander(self) {
        eventually("the node forgets all sockets but one", async || {
            self.cluster.metrics(0).await.get("rookery_sockets") == 1.0
        })
        .await;
    }
}

async fn open(cluster: &TestCluster, person: &Person) -> Wire {
    let handshake = Handshake::to(&cluster.url()).token(&person.tokens.access_token);
    let mut socket = handshake.open().await;
    socket.expect("ready").await;
    socket
}

/// The socket answers.
async fn ping(socket: &mut Wire, label: &str) {
    socket.json(&json!({"type": "ping", "ref": "well"})).await;
    let pong = socket.expect("pong").await;
    assert_eq!(pong["ref"], "well", "{label}");
}

fn ping_text() -> Vec<u8> {
    json!({"type": "ping", "ref": "parts"})
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn broken_frames_close_the_socket_as_a_protocol_error() {
    let mut stage = Stage::set().await;
    let text = ping_text();
    let reserved = |bits: u8| frame(FIN | bits | TEXT, &text);
    let cases = [
        ("an unmasked text", unmasked(FIN | TEXT, &text)),
        ("an unmasked ping", unmasked(FIN | PING, b"")),
        (
            "an unmasked close",
            unmasked(FIN | CLOSE, &wire::close(1000, b"")),
        ),
        ("the first reserved bit, as for compression", reserved(RSV1)),
        ("the second reserved bit", reserved(RSV2)),
        ("the third reserved bit", reserved(RSV3)),
        ("all reserved bits", reserved(RSV1 | RSV2 | RSV3)),
        ("a reserved bit on a ping", frame(FIN | RSV1 | PING, b"")),
        ("a reserved bit on a close", frame(FIN | RSV2 | CLOSE, b"")),
        ("a fragmented ping", frame(PING, b"part")),
        ("a fragmented pong", frame(PONG, b"part")),
        ("a fragmented close", frame(CLOSE, &wire::close(1000, b""))),
        ("a ping of 126 bytes", frame(FIN | PING, &[b'x'; 126])),
        ("a pong of 126 bytes", frame(FIN | PONG, &[b'x'; 126])),
        (
            "a close of 126 bytes",
            frame(FIN | CLOSE, &wire::close(1000, &[b'x'; 124])),
        ),
        (
            "a continuation of nothing",
            frame(FIN | CONTINUATION, &text),
        ),
        (
            "a continuation of nothing, to be continued",
            frame(CONTINUATION, &text),
        ),
        (
            "a text within a text",
            [frame(TEXT, &text), frame(FIN | TEXT, &text)].concat(),
        ),
        (
            "a binary within a text",
            [frame(TEXT, &text), frame(FIN | BINARY, &text)].concat(),
        ),
        (
            "a reserved bit on a continuation",
            [
                frame(TEXT, &text[..5]),
                frame(FIN | RSV1 | CONTINUATION, &text[5..]),
            ]
            .concat(),
        ),
    ];
    for (what, bytes) in cases {
        stage.closes(what, &bytes, 1002).await;
    }
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        let what = format!("the reserved opcode {opcode:#x}");
        stage.closes(&what, &frame(FIN | opcode, b"x"), 1002).await;
    }
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn fragments_are_put_together_and_control_frames_may_come_between() {
    let mut stage = Stage::set().await;
    let text = ping_text();
    let in_bytes = {
        let mut frames = vec![frame(TEXT, &text[..1])];
        frames.extend(text[1..].iter().map(|byte| frame(CONTINUATION, &[*byte])));
        frames.push(frame(FIN | CONTINUATION, b""));
        frames.concat()
    };
    let with_empty_parts = [
        frame(TEXT, b""),
        frame(CONTINUATION, b"").repeat(100),
        frame(CONTINUATION, &text),
        frame(FIN | CONTINUATION, b""),
    ];
    for (what, bytes) in [
        ("a byte at a time", in_bytes),
        ("empty parts", with_empty_parts.concat()),
    ] {
        let mut socket = stage.open().await;
        socket.raw(&bytes).await;
        assert_eq!(socket.expect("pong").await["ref"], "parts", "{what}");
        stage.all_is_well(what).await;
    }

    let mut socket = stage.open().await;
    socket.send(TEXT, &text[..3]).await;
    socket.send(FIN | PING, b"in between").await;
    // The ping is answered before the message it interrupts is there.
    let pong = socket.read().await.unwrap();
    assert_eq!(
        (pong.first, pong.payload.as_slice()),
        (FIN | PONG, b"in between".as_slice())
    );
    socket.send(FIN | PONG, b"nobody asked").await;
    socket.send(CONTINUATION, &text[3..6]).await;
    socket.send(FIN | PING, b"").await;
    assert_eq!(socket.read().await.unwrap().first, FIN | PONG);
    socket.send(FIN | CONTINUATION, &text[6..]).await;
    assert_eq!(socket.expect("pong").await["ref"], "parts");
    // A close between fragments ends the socket at once.
    socket.send(TEXT, &text[..3]).await;
    socket.send(FIN | CLOSE, &wire::close(1000, b"")).await;
    assert_eq!(socket.closed().await, 1000);
    drop(socket);
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn pings_come_back_as_they_were_sent() {
    let mut stage = Stage::set().await;
    let mut socket = stage.open().await;
    for payload in [b"".as_slice(), b"\x00\xff", &[b'x'; 125]] {
        socket.send(FIN | PING, payload).await;
        let pong = socket.read().await.unwrap();
        assert_eq!((pong.first, pong.payload.as_slice()), (FIN | PONG, payload));
    }
    // Of many at once only the last must be answered (RFC 6455, 5.5.3).
    let many: Vec<u8> = (0..1_000_u16)
        .flat_map(|n| frame(FIN | PING, &n.to_be_bytes()))
        .collect();
    socket.raw(&many).await;
    let last = 999_u16.to_be_bytes();
    loop {
        let pong = socket.read().await.unwrap();
        assert_eq!(pong.first, FIN | PONG);
        if pong.payload == last {
            break;
        }
    }
    drop(socket);
    let unasked = frame(FIN | PONG, b"unasked").repeat(50);
    drop(stage.stays_open("pongs nobody asked for", &unasked).await);
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn text_must_be_utf_8() {
    let mut stage = Stage::set().await;
    let parts = |first: &[u8], last: &[u8]| [frame(TEXT, first), frame(FIN | CONTINUATION, last)];
    let cases = [
        ("a byte that is never one", frame(FIN | TEXT, b"ab\xffcd")),
        ("a slash written too long", frame(FIN | TEXT, b"\xc0\xaf")),
        ("half a surrogate pair", frame(FIN | TEXT, b"\xed\xa0\x80")),
        ("beyond U+10FFFF", frame(FIN | TEXT, b"\xf4\x90\x80\x80")),
        ("a cut character", frame(FIN | TEXT, b"\xe2\x82")),
        (
            "a character that goes on wrongly",
            parts(b"\xe2\x82", b"(").concat(),
        ),
        (
            "a character that never ends",
            parts(b"a", b"\xf0\x9f\x92").concat(),
        ),
        (
            "a bad part after a good one",
            parts(b"good", b"\xff").concat(),
        ),
        (
            "a close with a bad reason",
            frame(FIN | CLOSE, &wire::close(1000, b"\xff")),
        ),
    ];
    for (what, bytes) in cases {
        stage.closes(what, &bytes, 1007).await;
    }

    let whole = json!({"type": "ping", "ref": "€💚"})
        .to_string()
        .into_bytes();
    for at in 1..whole.len() {
        let mut socket = stage.open().await;
        socket
            .raw(&parts(&whole[..at], &whole[at..]).concat())
            .await;
        assert_eq!(socket.expect("pong").await["ref"], "€💚", "cut at {at}");
        // Let go without a word, so that the next one has room.
        drop(socket);
    }
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_own_code_unless_it_is_none() {
    let mut stage = Stage::set().await;
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        let bytes = frame(FIN | CLOSE, &wire::close(code, b"bye"));
        stage
            .closes(&format!("close code {code}"), &bytes, code)
            .await;
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        let bytes = frame(FIN | CLOSE, &wire::close(code, b""));
        stage
            .closes(&format!("close code {code}"), &bytes, 1002)
            .await;
    }
    stage
        .closes("a close of one byte", &frame(FIN | CLOSE, b"\x03"), 1002)
        .await;
    stage
        .closes("an empty close", &frame(FIN | CLOSE, b""), 1005)
        .await;
    let longest = frame(FIN | CLOSE, &wire::close(1000, &[b'x'; 123]));
    stage.closes("the longest close", &longest, 1000).await;

    // After its close frame nothing of a client counts, and the server hangs up first.
    let mut socket = stage.open().await;
    let after = [
        frame(FIN | CLOSE, &wire::close(1000, b"")),
        frame(FIN | TEXT, &ping_text()),
    ];
    socket.raw(&after.concat()).await;
    assert_eq!(socket.closed_after().await, (Vec::new(), 1000));
    assert_eq!(socket.read().await, None);
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let mut stage = Stage::set().await;
    let announced = |first: u8, length: u64| head(FIN | first, length, true);
    let cases = [
        // Only the head is sent: nothing is kept for what it announces.
        ("a text a byte too long", announced(TEXT, LIMIT as u64 + 1)),
        ("a binary of 4 GiB", announced(BINARY, 1 << 32)),
        (
            "the largest length there is",
            announced(TEXT, (1 << 63) - 1),
        ),
        ("a length with its first bit set", announced(TEXT, 1 << 63)),
        ("a length of all ones", announced(BINARY, u64::MAX)),
        ("an announced ping of 1 GiB", announced(PING, 1 << 30)),
        ("fragments that are too long together", {
            let part = vec![b' '; LIMIT / 2];
            let last = frame(FIN | CONTINUATION, b"x");
            [frame(TEXT, &part), frame(CONTINUATION, &part), last].concat()
        }),
        ("endless fragments", {
            let part = frame(CONTINUATION, &[b' '; 1_000]);
            [frame(TEXT, b""), part.repeat(70)].concat()
        }),
    ];
    for (what, bytes) in cases {
        stage.closes(what, &bytes, 1009).await;
    }
    // A client that is busy sending hears why it has to stop.
    let bytes = frame(FIN | TEXT, &vec![b' '; 8 * 1024 * 1024]);
    stage.closes("8 MiB", &bytes, 1009).await;

    let mut padded = ping_text();
    padded.resize(LIMIT, b' ');
    let in_parts: Vec<u8> = {
        let mut parts = padded
            .chunks(LIMIT / 8)
            .map(|part| frame(CONTINUATION, part));
        let mut bytes = frame(TEXT, b"");
        bytes.extend(parts.by_ref().flatten());
        bytes.extend(frame(FIN | CONTINUATION, b""));
        bytes
    };
    for (what, bytes) in [
        ("64 KiB", frame(FIN | TEXT, &padded)),
        ("64 KiB in parts", in_parts),
    ] {
        let mut socket = stage.open().await;
        socket.raw(&bytes).await;
        assert_eq!(socket.expect("pong").await["ref"], "parts", "{what}");
    }
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn clients_that_stop_in_the_middle_are_let_go() {
    let mut stage = Stage::set().await;
    let text = ping_text();
    let whole = frame(FIN | TEXT, &text);
    let announced_more = [head(FIN | TEXT, 5_000, true), text.clone()].concat();
    let unfinished = frame(TEXT, &text);
    for (what, bytes) in [
        ("one byte of a frame", &whole[..1]),
        ("half a head", &whole[..4]),
        ("half a payload", &whole[..whole.len() - 3]),
        ("less than announced", &announced_more),
        ("an unfinished message", &unfinished),
        ("a whole message", &whole),
    ] {
        let mut socket = stage.open().await;
        socket.raw(bytes).await;
        socket.hang_up().await;
        // Nobody is waited for who has hung up; whether a close frame comes first is of no account.
        let (events, _) = socket.closed_after().await;
        assert_eq!(
            events.len(),
            usize::from(what == "a whole message"),
            "{what}: {events:?}"
        );
        drop(socket);
        stage.all_is_well(what).await;
    }
    // And one that is cut off, without the TCP connection being closed in order.
    for bytes in [&whole[..4], whole.as_slice()] {
        let mut socket = stage.open().await;
        socket.raw(bytes).await;
        drop(socket);
    }
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn empty_messages_are_bad_frames_and_nothing_worse() {
    let mut stage = Stage::set().await;
    let mut socket = stage.open().await;
    for (what, first) in [("an empty text", TEXT), ("an empty binary", BINARY)] {
        socket.send(FIN | first, b"").await;
        let error = socket.event().await;
        assert_eq!(error["code"], "BAD_FRAME", "{what}: {error}");
    }
    ping(&mut socket, "after empty frames").await;
    stage.all_is_well("empty frames").await;
    drop(socket);
    stage.ends_with_only_the_bystander().await;
}

/// What a handshake was refused with: status, code, field, what is allowed.
async fn refused(handshake: &Handshake) -> (u16, Value, Value, Value) {
    let answer = handshake.send().await;
    assert_ne!(answer.status, 101, "{handshake:?}: {}", answer.head);
    let error = answer.json()["error"].clone();
    let detail = &error["details"][0];
    (
        answer.status,
        error["code"].clone(),
        detail["field"].clone(),
        detail["allowed"].clone(),
    )
}

#[tokio::test]
async fn bad_handshakes_are_refused_in_plain_http() {
    let stage = Stage::set().await;
    let good = Handshake::to(&stage.cluster.url()).token(&stage.user.tokens.access_token);

    for version in ["8", "12", "14", "130", "13, 8", "x"] {
        let answer = good
            .clone()
            .header("Sec-WebSocket-Version", version)
            .send()
            .await;
        assert_eq!(answer.status, 426, "version {version}: {}", answer.head);
        assert!(
            answer.head.contains("sec-websocket-version: 13"),
            "{}",
            answer.head
        );
    }
    let cases = [
        (
            good.clone().without("Sec-WebSocket-Version"),
            426,
            "Sec-WebSocket-Version",
        ),
        (
            good.clone().without("Sec-WebSocket-Key"),
            400,
            "Sec-WebSocket-Key",
        ),
        (
            good.clone().header("Sec-WebSocket-Key", "c2hvcnQ="),
            400,
            "Sec-WebSocket-Key",
        ),
        (good.clone().without("Upgrade"), 400, "Upgrade"),
        (good.clone().header("Upgrade", "h2c"), 400, "Upgrade"),
        (good.clone().without("Connection"), 400, "Upgrade"),
        (
            good.clone().header("Connection", "keep-alive"),
            400,
            "Upgrade",
        ),
    ];
    for (handshake, status, field) in cases {
        let (got, code, got_field, _) = refused(&handshake).await;
        assert_eq!((got, got_field), (status, json!(field)), "{handshake:?}");
        assert_eq!(code, "INVALID", "{handshake:?}");
    }

    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn subprotocols_are_agreed_on_or_refused_by_name() {
    let stage = Stage::set().await;
    let good = Handshake::to(&stage.cluster.url()).token(&stage.user.tokens.access_token);

    for protocol in ["rookery.v2.json", "chat", "rookery.v1.jso", ""] {
        let handshake = good.clone().header("Sec-WebSocket-Protocol", protocol);
        let (status, code, field, allowed) = refused(&handshake).await;
        assert_eq!((status, code), (400, json!("INVALID")), "{protocol:?}");
        assert_eq!(field, "Sec-WebSocket-Protocol");
        assert_eq!(
            allowed, "rookery.v1.json, rookery.v1.msgpack",
            "{protocol:?}"
        );
    }
    let answer = good
        .clone()
        .header("Sec-WebSocket-Protocol", "chat, rookery.v1.json")
        .send()
        .await;
    assert_eq!(answer.status, 101);
    assert!(
        answer
            .head
            .contains("sec-websocket-protocol: rookery.v1.json\r\n"),
        "{}",
        answer.head
    );
    // RFC 6455, 1.3: the key of the example and what is made of it.
    let accept = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n";
    assert!(answer.head.contains(accept), "{}", answer.head);
    drop(answer);

    let answer = good.clone().send().await;
    assert_eq!(answer.status, 101);
    assert!(
        !answer.head.contains("sec-websocket-protocol"),
        "none was asked for: {}",
        answer.head
    );
    assert!(
        !answer.head.contains("sec-websocket-extensions"),
        "{}",
        answer.head
    );
    drop(answer);
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn only_known_origins_may_open_sockets() {
    let stage = Stage::set().await;
    let url = stage.cluster.url();
    let good = Handshake::to(&url).token(&stage.user.tokens.access_token);
    let host = url.trim_start_matches("http://");
    for evil in [
        "https://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://evil.example/127.0.0.1",
        "http://127.0.0.1@evil.example",
        &format!("http://{host}.evil.example"),
        "127.0.0.1",
        "",
    ] {
        let (status, code, ..) = refused(&good.clone().header("Origin", evil)).await;
        assert_eq!((status, code), (403, json!("FORBIDDEN")), "{evil:?}");
    }
    for own in [
        format!("http://{host}"),
        "http://localhost:3000".into(),
        "https://[::1]".into(),
    ] {
        let answer = good.clone().header("Origin", &own).send().await;
        assert_eq!(answer.status, 101, "{own}: {}", answer.body);
    }
    stage.ends_with_only_the_bystander().await;
}

#[tokio::test]
async fn slow_handshakes_are_cut_off() {
    let mut stage = Stage::set().await;
    let handshake = Handshake::to(&stage.cluster.url()).token(&stage.user.tokens.access_token);
    let bytes = handshake.bytes();

    let mut gone = handshake.connect().await;
    gone.raw(&bytes[..bytes.len() / 2]).await;
    gone.hang_up().await;
    assert_eq!(gone.read().await, None, "half a handshake gets no answer");

    let silent = async {
        let began = Instant::now();
        let mut wire = handshake.connect().await;
        wire.raw(&bytes[..bytes.len() / 2]).await;
        assert_eq!(wire.closed().await, CUT_OFF);
        began.elapsed()
    };
    // A byte now and then does not buy time.
    let dripping = async {
        let began = Instant::now();
        let mut wire = handshake.connect().await;
        for byte in &bytes[..bytes.len() - 1] {
            wire.raw(std::slice::from_ref(byte)).await;
            if timeout(Duration::from_millis(500), wire.read())
                .await
                .is_ok()
            {
                return began.elapsed();
            }
        }
        panic!("a handshake may take {:?}", began.elapsed());
    };
    let (silent, dripping) = tokio::join!(silent, dripping);
    for took in [silent, dripping] {
        assert!((8..60).contains(&took.as_secs()), "let go after {took:?}");
    }
    stage.all_is_well("slow handshakes").await;
    stage.ends_with_only_the_bystander().await;
}
