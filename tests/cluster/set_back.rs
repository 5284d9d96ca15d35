//! A database that was set back under running nodes: nothing that is written then may hide behind
//! what was passed on before.

use std::time::Duration;

use rookery_protocol::Seq;
use rookery_test_support::TestCluster;

use crate::ROOKERY;

/// It is asked for every 3 s; the rest is for a busy machine.
const NOTICED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn sockets_resume_with_the_new_epoch_and_hear_what_comes_next() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    for text in ["one", "two", "three"] {
        phone.send(room, text).await;
        bobs.expect_message(text).await;
    }
    let epoch = bobs.ready().await.epoch;

    // As a restore of a backup that was made after "one".
    cluster
        .sql(&format!(
            "begin; \
             delete from messages where conversation_id = '{room}' and seq > 2; \
             update conversation_heads set last_seq = 2 where conversation_id = '{room}'; \
             update meta set value = 'restored' where key = 'epoch'; \
             commit"
        ))
        .await;
    assert_eq!(phone.expect_close_within(NOTICED).await, 4102);
    assert_eq!(bobs.expect_close_within(NOTICED).await, 4102);
    let resumes = r#"rookery_forced_resumes_total{reason="set_back"}"#;
    assert_eq!(cluster.metrics(1).await.get(resumes), 1.0);

    let done = bobs.resume_on(cluster.node(1)).await;
    let now = bobs.ready().await.epoch;
    assert!(now != epoch && now.starts_with("restored"), "{now}");
    assert_eq!(done.reset.len(), 1, "{:?}", done.reset);
    assert_eq!(done.reset[0].seq, Seq(2));
    let phone = ann.connect(cluster.node(0)).await;
    assert_eq!(phone.send(room, "anew").await.seq, Seq(3));
    bobs.expect_message("anew").await;
}
