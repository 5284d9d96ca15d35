//! Log-ins that end, and sockets that are too many.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rookery_client::{Connect, ConnectError, Socket, SocketError};
use rookery_protocol::ErrorCode;
use rookery_test_support::{Device, Node, PATIENCE, Person, TestCluster, eventually};
use tokio::time::timeout;

use crate::ROOKERY;

/// Promised are 5 s without Redis; the rest is for a busy machine.
const REVOKED: Duration = Duration::from_secs(30);

async fn found_by_journal(cluster: &TestCluster, node: usize) -> f64 {
    cluster
        .metrics(node)
        .await
        .get("rookery_reconcile_found_total")
}

/// No node takes this log-in any more.
async fn is_refused_everywhere(cluster: &TestCluster, person: &Person) {
    for node in cluster.nodes() {
        eventually("the node refuses an ended session", async || {
            let refused = person.at(node).me().await.err();
            refused.is_some_and(|error| error.code == ErrorCode::Unauthenticated)
        })
        .await;
        let how = Connect::with_token(&person.tokens.access_token);
        match Socket::connect(&node.url(), &how).await {
            Err(ConnectError::Refused { status: 401, .. }) => {}
            Err(other) => panic!("refused otherwise: {other}"),
            Ok(_) => panic!("a socket for an ended session"),
        }
    }
}

#[tokio::test]
async fn logging_out_closes_the_sockets_of_that_session_on_every_node() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let ann = cluster.register("ann").await;
    let other = ann.log_in_again().await;
    let third = ann.log_in_again().await;
    let (one, two) = (
        ann.connect(cluster.node(0)).await,
        ann.connect(cluster.node(1)).await,
    );
    let others = other.connect(cluster.node(1)).await;
    let thirds = third.connect(cluster.node(1)).await;
    let before = found_by_journal(&cluster, 1).await;

    ann.at(cluster.node(0)).logout().await.expect("a log-out");
    assert_eq!(one.expect_close().await, 4001);
    assert_eq!(two.expect_close().await, 4001);
    is_refused_everywhere(&cluster, &ann).await;
    others.ping().await;

    let session = thirds.ready().await.session_id;
    other
        .at(cluster.node(0))
        .end_session(session)
        .await
        .expect("one's own session");
    assert_eq!(thirds.expect_close().await, 4001);
    others.ping().await;
    let fourth = ann.log_in_again().await;
    let fourths = fourth.connect(cluster.node(0)).await;
    other
        .at(cluster.node(0))
        .logout_all()
        .await
        .expect("a log-out");
    assert_eq!(others.expect_close().await, 4001);
    assert_eq!(fourths.expect_close().await, 4001);
    is_refused_everywhere(&cluster, &fourth).await;
    // Promised is a second: the bus brought it, not the journal, which takes up to five.
    assert_eq!(found_by_journal(&cluster, 1).await, before);
}

#[tokio::test]
async fn logging_out_reaches_every_node_without_redis_too() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let ann = cluster.register("ann").await;
    let two = ann.connect(cluster.node(1)).await;
    cluster.redis().kill().await.expect("a dead Redis");
    ann.at(cluster.node(0)).logout().await.expect("a log-out");
    assert_eq!(two.expect_close_within(REVOKED).await, 4001);
    is_refused_everywhere(&cluster, &ann).await;
}

#[tokio::test]
async fn a_sixth_socket_closes_the_longest_silent_one() {
    let cluster = TestCluster::start(ROOKERY, 1).await;
    let ann = cluster.register("ann").await;
    let mut devices = Vec::new();
    for _ in 0..5 {
        devices.push(ann.connect(cluster.node(0)).await);
    }
    // Nodes count silence in seconds, so some have to pass.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    for talking in [0, 1, 3, 4] {
        devices[talking].ping().await;
    }
    let sixth = ann.connect(cluster.node(0)).await;
    assert_eq!(devices[2].expect_close().await, 4008);
    for number in [0, 1, 3, 4] {
        devices[number].ping().await;
    }
    sixth.ping().await;
}

/// Nodes count silence in seconds, so some have to pass before the others talk.
async fn talk_later(devices: impl IntoIterator<Item = &Device>) {
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    for device in devices {
        device.ping().await;
    }
}

fn all_but(devices: &[Device], silent: usize) -> impl Iterator<Item = &Device> {
    let (before, behind) = devices.split_at(silent);
    before.iter().chain(&behind[1..])
}

#[tokio::test]
async fn a_sixth_socket_on_another_node_closes_the_longest_silent_one_of_all() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let ann = cluster.register("ann").await;
    let mut devices = Vec::new();
    for node in [0, 0, 1, 1, 1] {
        devices.push(ann.connect(cluster.node(node)).await);
    }
    // The newest opens on a node that has none of hers, then on nodes that have some.
    for (silent, node) in [(3, 2), (0, 1), (3, 0)] {
        talk_later(all_but(&devices, silent)).await;
        devices.push(ann.connect(cluster.node(node)).await);
        assert_eq!(devices.remove(silent).expect_close().await, 4008);
        for device in &devices {
            device.ping().await;
        }
    }
}

/// Opens a socket that may be closed at any time; returns the code of that.
async fn closed_some_time(ann: &Person, node: &Node) -> u16 {
    let how = Connect::with_token(&ann.tokens.access_token);
    let mut socket = Socket::connect(&node.url(), &how).await.expect("a socket");
    loop {
        match socket.recv().await {
            Ok(_) => {}
            Err(SocketError::Closed { code, .. }) => return code,
            Err(error) => panic!("cut off: {error}"),
        }
    }
}

#[tokio::test]
async fn sockets_that_open_on_all_nodes_at_once_end_at_the_limit() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let ann = cluster.register("ann").await;
    let nodes = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2].map(|node| cluster.node(node));
    let mut open: FuturesUnordered<_> = nodes
        .into_iter()
        .map(|node| closed_some_time(&ann, node))
        .collect();
    for _ in 0..7 {
        let code = timeout(PATIENCE, open.next()).await.expect("a close");
        assert_eq!(code, Some(4008));
    }
    // One more has all nodes asked again, behind everything that was said before.
    let quiet = tokio::time::sleep(Duration::from_millis(2_100));
    tokio::select! {
        code = open.next() => panic!("fewer than five are left: {code:?}"),
        () = quiet => {}
    }
    let last = async {
        let last = ann.connect(cluster.node(1)).await;
        last.expect_close_within(Duration::from_secs(600)).await
    };
    let mut last = std::pin::pin!(last);
    tokio::select! {
        code = open.next() => assert_eq!(code, Some(4008)),
        code = &mut last => panic!("the newest was closed with {code}"),
        () = tokio::time::sleep(PATIENCE) => panic!("six are left"),
    }
    tokio::select! {
        code = open.next() => panic!("fewer than five are left: {code:?}"),
        code = last => panic!("the newest was closed with {code}"),
        () = tokio::time::sleep(Duration::from_millis(2_100)) => {}
    }
}

#[tokio::test]
async fn sockets_of_a_killed_node_do_not_count() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let ann = cluster.register("ann").await;
    let (mut lost, mut devices) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        lost.push(ann.connect(cluster.node(2)).await);
    }
    for _ in 0..2 {
        devices.push(ann.connect(cluster.node(0)).await);
    }
    talk_later(&devices).await;
    talk_later(&lost[1..]).await;
    devices.push(ann.connect(cluster.node(1)).await);
    // Now every node was told of those on the third, which were heard later than the first two.
    assert_eq!(lost[0].expect_close().await, 4008);
    cluster.node(2).kill().await;
    // What a node told counts for 2 s (`FRESH` in `src/gateway/surplus.rs`): twice that is long enough to
    // forget the dead one's sockets. The lease lasts longer, and the list still says three.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for node in [0, 1] {
        devices.push(ann.connect(cluster.node(node)).await);
    }
    // None of the five was closed.
    talk_later(all_but(&devices, 1)).await;
    devices.push(ann.connect(cluster.node(0)).await);
    assert_eq!(devices.remove(1).expect_close().await, 4008);
    for device in &devices {
        device.ping().await;
    }
}
