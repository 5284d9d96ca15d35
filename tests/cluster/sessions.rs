//! Log-ins that end, and sockets that are too many.

use std::time::Duration;

use rookery_client::{Connect, ConnectError, Socket};
use rookery_protocol::ErrorCode;
use rookery_test_support::{Person, TestCluster, eventually};

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
