//! Who asks the operations port and does not read the answer.

use std::net::SocketAddr;

use rookery_test_support::eventually;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::process::Process;

/// Connections that the port takes.
const PLACES: usize = 64;
/// Far more answers than buffers hold.
const QUESTIONS: usize = 200;

/// Asks for metrics again and again, and reads nothing.
async fn silent(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let mut stream = socket.connect(address).await.expect("somebody listens");
    let questions = "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n".repeat(QUESTIONS);
    // One who got no place is cut off.
    stream.write_all(questions.as_bytes()).await.ok();
    stream
}

#[tokio::test]
async fn clients_that_never_read_hold_no_place_for_good() {
    let node = Process::start(&["serve"], &[]);
    node.is_ready().await;
    let mut all = Vec::new();
    for _ in 0..PLACES {
        all.push(silent(node.ops_address()).await);
    }
    eventually("all places are taken", async || {
        all.push(silent(node.ops_address()).await);
        node.probe("healthz").await.is_none()
    })
    .await;
    eventually("a place is free again", async || {
        node.probe("healthz").await == Some(200)
    })
    .await;
    assert_eq!(node.stopped().await.0, 0);
    drop(all);
}
