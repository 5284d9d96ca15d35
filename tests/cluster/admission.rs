//! More clients at once than a node takes: those it cannot take are told when to come back, before
//! any work is done for them, and those it has notice nothing.

use std::os::unix::fs::PermissionsExt;

use futures_util::future::join_all;
use rookery_test_support::wire::{Answer, Handshake};
use rookery_test_support::{TestCluster, eventually};
use serde_json::json;
use tokio::net::TcpStream;

use crate::ROOKERY;

/// Refused for now, with a time to come back.
fn is_put_off(answer: &Answer) -> bool {
    assert!(matches!(answer.status, 101 | 503), "{}", answer.head);
    let is_put_off = answer.status == 503;
    assert_eq!(is_put_off, answer.head.contains("\r\nretry-after: "));
    is_put_off
}

#[tokio::test]
async fn a_storm_of_connections_is_put_off_and_those_who_are_there_are_served() {
    const STORM: usize = 300;
    let cluster = TestCluster::builder(ROOKERY)
        .set("ROOKERY_RATES_ENABLED", "true")
        .set("ROOKERY_LIMITS_UPGRADES_PER_SECOND", "20")
        .set("ROOKERY_LIMITS_SOCKETS_PER_USER", "1000")
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let handshake = Handshake::to(&cluster.node(0).url()).token(&bob.tokens.access_token);
    let storm = join_all((0..STORM).map(|_| handshake.send()));
    let talk = async {
        for number in 0..10 {
            let text = format!("in the storm {number}");
            anns.send(room, &text).await;
            bobs.expect_message(&text).await;
        }
    };
    let (answers, ()) = futures_util::future::join(storm, talk).await;
    let put_off = answers.iter().filter(|answer| is_put_off(answer)).count();
    assert!((1..STORM).contains(&put_off), "{put_off} of {STORM}");
    let refused = cluster.metrics(0).await;
    let refused = refused.get(r#"rookery_upgrades_total{result="rate"}"#);
    assert_eq!(refused, put_off as f64);
    eventually("there is room for one more", async || {
        !is_put_off(&handshake.send().await)
    })
    .await;
}

#[tokio::test]
async fn those_who_do_not_say_who_they_are_keep_nobody_else_out() {
    const STRANGERS: usize = 200;
    let builder = TestCluster::builder(ROOKERY).alone();
    let cluster = builder.set("ROOKERY_RATES_ENABLED", "true").start().await;
    let [ann] = cluster.register_all(["ann"]).await;
    let stranger = Handshake::to(&cluster.url());
    let mut strangers = join_all((0..=STRANGERS).map(|_| stranger.send())).await;
    let put_off = strangers.iter().filter(|answer| is_put_off(answer)).count();
    assert_eq!(put_off, 1, "of one more than there may be");
    let token = &ann.tokens.access_token;
    assert!(!is_put_off(&stranger.clone().token(token).send().await));

    strangers.retain(|answer| !is_put_off(answer));
    let mut one = strangers.remove(0).wire;
    one.json(&json!({"type": "auth", "token": token})).await;
    one.expect("ready").await;
    let mut next = stranger.open().await;
    assert!(
        is_put_off(&stranger.send().await),
        "its place is taken again"
    );
    next.json(&json!({"type": "auth", "token": token})).await;
    next.expect("ready").await;
}

/// Sockets and requests share the files that a process may open. Whoever connects, some are left for
/// the database, for Redis and for those who look after the node.
#[tokio::test]
async fn files_never_run_out_whoever_connects() {
    const FILES: usize = 700;
    let folder = tempfile::tempdir().unwrap();
    let limited = folder.path().join("limited");
    let script = format!("#!/bin/sh\nulimit -n {FILES}\nexec '{ROOKERY}' \"$@\"\n");
    std::fs::write(&limited, script).unwrap();
    std::fs::set_permissions(&limited, PermissionsExt::from_mode(0o755)).unwrap();
    let cluster = TestCluster::builder(limited.to_str().unwrap())
        .set("ROOKERY_LIMITS_SOCKETS_PER_USER", "1000")
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let (node, token) = (cluster.node(0), &bob.tokens.access_token);
    let [anns, bobs] = [ann.connect(node).await, bob.connect(node).await];
    let handshake = Handshake::to(&node.url()).token(token);
    let answers = join_all((0..250).map(|_| handshake.send())).await;
    let put_off = answers.iter().filter(|answer| is_put_off(answer)).count();
    assert!(
        (1..150).contains(&put_off),
        "full is {put_off} short of 250"
    );

    let address = node.url();
    let address = address.trim_start_matches("http://");
    let idle = join_all((0..FILES).map(|_| TcpStream::connect(address))).await;
    anns.send(&bob, "among many").await;
    bobs.expect_message("among many").await;
    let open = cluster.metrics(0).await.get("process_open_fds");
    assert!(open < FILES as f64, "{open} of {FILES} files are open");
    let lacked = node.log().contains("a connection could not be accepted");
    assert!(!lacked, "the node ran out of files");
    drop(idle);
}
