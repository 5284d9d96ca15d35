//! A database that goes and comes back, and what travels through it when Redis does not.

use std::time::Duration;

use rookery_protocol::ErrorCode;
use rookery_test_support::{SendFailure, TestCluster, new_message_id};
use tokio::time::Instant;

use super::groups::expect_created;
use crate::ROOKERY;

const OUTAGE: Duration = Duration::from_secs(10);
/// Between two sends during the outage.
const PACE: Duration = Duration::from_millis(250);
/// Promised are 5 s; the rest is for a busy machine.
const BACK: Duration = Duration::from_secs(60);
/// An outage has to be noticed first; after that answers come at once.
const ANSWERED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn sends_during_an_outage_are_repeatable_and_no_socket_closes() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .own_postgres()
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    phone.send(room, "before").await;
    bobs.expect_message("before").await;

    cluster.postgres().stop_immediate().await.expect("a stop");
    let (began, mut unanswered) = (Instant::now(), Vec::new());
    let mut pace = tokio::time::interval(PACE);
    while began.elapsed() < OUTAGE {
        pace.tick().await;
        let (id, text) = (new_message_id(), format!("during {}", unanswered.len()));
        let asked = Instant::now();
        match phone.try_send(id, room, &text).await {
            Err(SendFailure::Refused(error)) => {
                assert_eq!(error.code, ErrorCode::Unavailable);
                assert!(
                    error.retryable && error.retry_after_ms.is_some(),
                    "{error:?}"
                );
            }
            other => panic!("answered otherwise: {other:?}"),
        }
        assert!(asked.elapsed() < ANSWERED, "{:?}", asked.elapsed());
        unanswered.push((id, text));
    }
    phone.ping().await;
    bobs.ping().await;

    cluster.postgres().restart().await.expect("a restart");
    let back = Instant::now();
    for (id, text) in &unanswered {
        while phone.try_send(*id, room, text).await.is_err() {
            assert!(back.elapsed() < BACK, "still away");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bobs.expect_message(text).await;
    }
    bobs.seen_once_in_order(room);
    phone.expect_open().await;
    bobs.expect_open().await;
    let resumes = r#"rookery_forced_resumes_total{reason="set_back"}"#;
    assert_eq!(
        cluster.metrics(1).await.get(resumes),
        0.0,
        "nothing was set back"
    );
}

#[tokio::test]
async fn a_node_that_starts_knows_who_was_logged_out_meanwhile() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let ann = cluster.register("ann").await;
    cluster.node(1).kill().await;
    ann.at(cluster.node(0)).logout().await.expect("a log-out");
    cluster.node(1).restart().await;
    let refused = ann.at(cluster.node(1)).me().await.expect_err("a log-out");
    assert_eq!(refused.code, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn new_memberships_travel_through_the_store_while_redis_is_dead() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let bobs = bob.connect(cluster.node(1)).await;
    cluster.redis().kill().await.expect("a dead Redis");
    let room = ann.group("room", &[&bob]).await;
    expect_created(&bobs, room).await;
    let phone = ann.connect(cluster.node(0)).await;
    phone.send(room, "welcome").await;
    bobs.expect_message_within("welcome", BACK).await;
}
