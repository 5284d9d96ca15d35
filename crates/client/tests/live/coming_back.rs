//! Which node, when, and when not.

use std::time::{Duration, Instant};

use rookery_client::{Live, LiveConfig, Outgoing, ServerEvent};
use rookery_protocol::event::{Ready, ServerDraining};
use tokio::net::TcpListener;

use super::scripted::*;

#[tokio::test]
async fn a_draining_node_is_left_with_its_hint_and_resumed_elsewhere() {
    let (listener, mut live) = start().await;
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    let drained = Instant::now();
    peer.say(ServerEvent::ServerDraining(ServerDraining {
        reconnect_after_ms: 300,
    }))
    .await;
    peer.close(1012).await;
    let _peer = Peer::accept(&listener, "b", 4).await;
    let waited = drained.elapsed();
    assert!(
        waited >= Duration::from_millis(290),
        "came back after {waited:?}"
    );
    expect_next!(
        &mut live,
        "connected a",
        "synced",
        "draining",
        "disconnected 1012",
        "connected b"
    );

    live.handle()
        .send(Outgoing::to_conversation(ROOM, "never synced"))
        .await
        .unwrap();
    let unsent = live.close().await.unacked;
    assert_eq!(unsent.len(), 1);
    assert_eq!(unsent[0].content, "never synced");
}

#[tokio::test]
async fn codes_say_whether_to_come_back() {
    for (code, comes_back) in [
        (4101, true),
        (4102, true),
        (4199, true),
        (1001, true),
        (4003, false),
        (4008, false),
        (4099, false),
        (1009, false),
    ] {
        let (listener, mut live) = start().await;
        let mut peer = Peer::accept(&listener, "a", 4).await;
        peer.synced().await;
        peer.close(code).await;
        expect_next!(&mut live, "connected a", "synced");
        let said = next(&mut live).await;
        if comes_back {
            assert_eq!(said, format!("disconnected {code}"));
            Peer::accept(&listener, "b", 4).await;
        } else {
            assert_eq!(said, format!("stopped {code}"));
            expect_next!(&mut live, "end");
        }
    }
}

#[tokio::test]
async fn a_full_node_is_left_alone_as_long_as_it_asks() {
    let (listener, mut live) = start().await;
    let turned_away = Instant::now();
    turn_away(&listener, "503 Service Unavailable\r\nretry-after: 1").await;
    expect_next!(&mut live, "disconnected 1006");
    Peer::accept(&listener, "a", 4).await;
    assert!(turned_away.elapsed() >= Duration::from_millis(990));
}

/// Two nodes, in turn; whoever came to the good one twice was at the bad one, too.
async fn two_nodes(patience: Duration) -> (TcpListener, TcpListener, Live) {
    let (bad, good) = (listen().await, listen().await);
    let config = LiveConfig {
        patience,
        ..config(&[&bad, &good], None)
    };
    let live = Live::start(config).unwrap();
    (bad, good, live)
}

/// Long enough for a handshake on a busy machine.
const BRIEFLY: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_full_node_is_passed_over_where_there_is_another() {
    let (bad, good, _live) = two_nodes(PATIENCE).await;
    let turning_away = async {
        loop {
            turn_away(&bad, "503 Service Unavailable\r\nretry-after: 600").await;
        }
    };
    tokio::select! {
        never = turning_away => never,
        () = accept_twice(&good) => {}
    }
}

async fn accept_twice(good: &TcpListener) {
    drop(Peer::accept(good, "good", 4).await);
    Peer::accept(good, "good", 4).await;
}

#[tokio::test]
async fn a_node_that_takes_connections_and_never_answers_is_left() {
    let (_frozen, good, _live) = two_nodes(BRIEFLY).await;
    // The kernel takes connections for the frozen one.
    accept_twice(&good).await;
}

#[tokio::test]
async fn a_node_that_answers_no_sync_and_no_send_is_left() {
    let listener = listen().await;
    let config = LiveConfig {
        patience: BRIEFLY,
        ..config(&[&listener], None)
    };
    let mut live = Live::start(config).unwrap();
    let _unsynced = Peer::accept(&listener, "a", 4).await;
    expect_next!(&mut live, "connected a", "disconnected 1006");
    let mut peer = Peer::accept(&listener, "b", 4).await;
    peer.synced().await;
    let text = Outgoing::to_conversation(ROOM, "a");
    let id = live.handle().send(text).await.unwrap();
    assert_eq!(peer.hear_send().await.1, id);
    expect_next!(&mut live, "connected b", "synced", "disconnected 1006");
    let mut peer = Peer::accept(&listener, "c", 4).await;
    peer.synced().await;
    assert_eq!(peer.hear_send().await.1, id, "elsewhere, with the same id");
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_is_left() {
    let listener = listen().await;
    let config = LiveConfig {
        patience: BRIEFLY,
        ..config(&[&listener], None)
    };
    let mut live = Live::start(config).unwrap();
    let quick = Ready {
        heartbeat_seconds: 1,
        ..ready("a")
    };
    let silent_since = Instant::now();
    let mut peer = Peer::accept_with(&listener, "token", quick).await;
    peer.synced().await;
    expect_next!(&mut live, "connected a", "synced", "disconnected 1006");
    assert!(
        silent_since.elapsed() >= Duration::from_secs(1),
        "not before it is due"
    );
    Peer::accept(&listener, "b", 4).await;
    drop(peer);
}

/// While the application does not read, no answer can be heard: that is not the node's fault.
#[tokio::test]
async fn an_application_that_reads_late_does_not_blame_the_node() {
    let listener = listen().await;
    let config = LiveConfig {
        patience: BRIEFLY,
        updates: 1,
        ..config(&[&listener], None)
    };
    let mut live = Live::start(config).unwrap();
    let text = Outgoing::to_conversation(ROOM, "a");
    live.handle().send(text).await.unwrap();
    let mut peer = Peer::accept(&listener, "a", 4).await;
    peer.synced().await;
    // The queue of updates is full with the first one, so that the task waits before this leaves.
    expect_next!(&mut live, "connected a");
    let (_, id) = peer.hear_send().await;
    peer.say(news(theirs(5))).await;
    peer.say(news(theirs(6))).await;
    peer.say(ack(id, 7)).await;
    // The application is busy: a pause, not a wait.
    tokio::time::sleep(2 * BRIEFLY).await;
    expect_next!(&mut live, "synced", "message 5", "message 6", "acked 7");
}
