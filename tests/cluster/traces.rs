//! Traces, as a collector gets them.

use std::sync::{Arc, Mutex, PoisonError};

use rookery_test_support::{TestCluster, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::ROOKERY;

/// Takes what is posted to `/v1/traces`, and says that it is well.
struct Collector {
    address: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&bodies);
        #[expect(clippy::disallowed_methods, reason = "ends with its test")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Some(body) = take(stream).await {
                    let mut all = collected.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push(body);
                }
            }
        });
        Self { address, bodies }
    }

    /// Whether one batch has all of these.
    fn has_batch_with(&self, parts: &[&[u8]]) -> bool {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let has = |body: &Vec<u8>, part: &[u8]| body.windows(part.len()).any(|w| w == part);
        let mut bodies = bodies.iter();
        bodies.any(|body| parts.iter().all(|part| has(body, part)))
    }
}

/// The body of one request, if it is one for traces in protobuf.
async fn take(mut stream: TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        let length: usize = length?.parse().ok()?;
        if bytes.len() < end + 4 + length {
            continue;
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await
            .ok()?;
        let is_ours = head.starts_with("post /v1/traces http/1.1")
            && head.contains("content-type: application/x-protobuf");
        return is_ours.then(|| bytes[end + 4..].to_vec());
    }
}

#[tokio::test]
async fn the_trace_of_a_message_has_its_id_on_every_node_it_passes() {
    let collector = Collector::start().await;
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .set(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &format!("http://{}", collector.address),
        )
        .set("ROOKERY_TRACES_RATIO", "1")
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let ack = phone.send(room, "nobody else reads this").await;
    bobs.expect_message("nobody else reads this").await;

    // The first field of a span, sixteen bytes long.
    let trace_id = [&[0x0a, 16][..], ack.message_id.as_bytes()].concat();
    for (node, span) in [(0, "message.send"), (0, "publish"), (1, "deliver")] {
        let name = cluster.node(node).name().as_bytes();
        eventually(&format!("{span} of node {node}"), async || {
            collector.has_batch_with(&[name, span.as_bytes(), &trace_id])
        })
        .await;
    }
    eventually("spans of a commit and a request", async || {
        collector.has_batch_with(&[b"commit"]) && collector.has_batch_with(&[b"request"])
    })
    .await;
    assert!(!collector.has_batch_with(&[b"nobody else reads this"]));
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_of_once_and_costs_nothing_else() {
    let cluster = TestCluster::builder(ROOKERY)
        .alone()
        // Nothing listens on the port of discard.
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .set("ROOKERY_TRACES_RATIO", "1")
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let complaints = || {
        let log = cluster.node(0).log();
        log.matches("the collector does not take traces").count()
    };
    let mut count = 0;
    eventually("the log tells of it", async || {
        count += 1;
        let text = format!("message {count}");
        phone.send(&bob, &text).await;
        bobs.expect_message(&text).await;
        complaints() > 0
    })
    .await;
    assert_eq!(cluster.node(0).stop().await, 0);
    assert_eq!(complaints(), 1);
}
