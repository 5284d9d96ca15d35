//! Nodes that are stopped in order: nobody notices more than a reconnect.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use rookery_client::{Live, LiveConfig, Outgoing, Start, Update};
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{ConversationId, MessageId, Seq};
use rookery_test_support::wire::Handshake;
use rookery_test_support::{
    Device, Node, PATIENCE, Person, SendFailure, TestCluster, eventually, new_message_id,
};

use super::held::{hold, somebody_waits};
use crate::ROOKERY;

/// Talks until told to stop, on other nodes when its own goes; returns what was acknowledged.
async fn keep_talking(
    cluster: &TestCluster,
    device: &Device,
    room: ConversationId,
    stop: &AtomicBool,
) -> Vec<String> {
    let mut said = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let text = format!("{} {}", device.person().name(), said.len());
        let id = new_message_id();
        loop {
            match device.try_send(id, room, &text).await {
                Ok(_) => break,
                Err(SendFailure::Refused(error)) => assert!(error.retryable, "{error:?}"),
                Err(SendFailure::Closed(code)) => {
                    device.read(|record| {
                        assert_eq!(code, 1012, "not the code that says come back:\n{record}");
                    });
                    device.resume_on(cluster.node(1)).await;
                }
            }
        }
        said.push(text);
    }
    said
}

#[tokio::test]
async fn a_stopped_node_sends_its_people_away_and_loses_nothing() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let carols = carol.connect(cluster.node(1)).await;
    let room = ann.group("room", &[&bob, &carol]).await;
    let stop = AtomicBool::new(false);
    let talking =
        join_all([&anns, &bobs, &carols].map(|device| keep_talking(&cluster, device, room, &stop)));
    let story = async {
        bobs.until("some talk", PATIENCE, |record| {
            (record.known(room).len() > 60).then_some(())
        })
        .await;
        let exit_code = cluster.node(0).stop().await;
        assert_eq!(exit_code, 0, "everything was finished");
        for device in [&anns, &bobs] {
            device
                .until("the other node", PATIENCE, |record| {
                    (record.connection() == 2).then_some(())
                })
                .await;
        }
        let last = ann
            .send_text(room, "after the move")
            .await
            .expect("nginx knows a node");
        for device in [&anns, &bobs, &carols] {
            device.expect_all(room, last.seq, last.seq).await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    let (said, ()) = join(talking, story).await;
    for device in [&anns, &bobs] {
        let was_told = device.read(|record| {
            record
                .all_events()
                .any(|event| matches!(event, ServerEvent::ServerDraining(_)))
        });
        assert!(was_told, "server.draining comes before the close");
    }
    let last = ann.conversation(room).await.expect("the room").last_seq;
    let count = said.iter().map(Vec::len).sum::<usize>();
    assert_eq!(
        last,
        Seq(i64::try_from(count).expect("few") + 2),
        "each stored once"
    );
    for device in [&anns, &bobs, &carols] {
        device.expect_all(room, Seq(1), last).await;
        device.seen_once_in_order(room);
    }
}

/// What people with connections that look after themselves share.
#[derive(Default)]
struct Talk {
    /// Nobody says anything more.
    over: AtomicBool,
    /// Messages said so far, by anybody.
    said: AtomicUsize,
}

/// Says something every now and then until the talk is over, then waits for all that was said;
/// returns it. Nothing may come twice.
async fn live_through(
    cluster: &TestCluster,
    person: &Person,
    room: ConversationId,
    talk: &Talk,
) -> BTreeMap<Seq, String> {
    let urls = cluster.nodes().iter().map(Node::url);
    let config = LiveConfig {
        start: Start::Cursors([].into()),
        ..LiveConfig::new(urls, (&person.tokens).into())
    };
    let mut live = Live::start(config).expect("a connection");
    let handle = live.handle().clone();
    let mut sent: HashMap<MessageId, String> = HashMap::new();
    let mut seen: BTreeMap<Seq, String> = BTreeMap::new();
    // A pace, not a wait.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let deadline = tokio::time::Instant::now() + 4 * PATIENCE;
    let is_over = || talk.over.load(Ordering::SeqCst);
    while !is_over() || seen.len() < talk.said.load(Ordering::SeqCst) {
        let update = tokio::select! {
            update = live.next() => update.expect("it never ends by itself"),
            _ = ticks.tick(), if !is_over() => {
                let number = sent.len();
                let text = format!("{} {number}", person.name());
                let message = Outgoing::to_conversation(room, &text);
                sent.insert(message.message_id, text);
                talk.said.fetch_add(1, Ordering::SeqCst);
                handle.send(message).await.expect("it never ends by itself");
                continue;
            }
            () = tokio::time::sleep_until(deadline) => {
                let said = talk.said.load(Ordering::SeqCst);
                panic!("{} has {} of {said}: {:?}", person.name(), seen.len(), seen.keys());
            }
        };
        let (seq, text) = match update {
            Update::Message(message) => (message.seq, message.content),
            Update::Acked(ack) => (ack.seq, sent[&ack.message_id].clone()),
            Update::Failed { error, .. } => panic!("refused: {error:?}"),
            Update::Stopped { code, reason } => panic!("ended with {code} ({reason})"),
            _ => continue,
        };
        let before = seen.insert(seq, text);
        assert_eq!(before, None, "{seq} came twice to {}", person.name());
    }
    seen
}

#[tokio::test]
async fn a_rolling_restart_is_invisible_to_clients_that_look_after_themselves() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let people = cluster.register_all(["ann", "bob", "carol"]).await;
    let room = people[0].group("room", &[&people[1], &people[2]]).await;
    let talk = Talk::default();
    // The notice of the group comes to everybody as well.
    talk.said.fetch_add(1, Ordering::SeqCst);
    let talking = join_all(
        people
            .iter()
            .map(|person| live_through(&cluster, person, room, &talk)),
    );
    let rolling = async {
        for node in cluster.nodes() {
            assert_eq!(node.stop().await, 0, "everything was finished");
            node.restart().await;
        }
        talk.over.store(true, Ordering::SeqCst);
    };
    let (seen, ()) = join(talking, rolling).await;
    assert!(
        seen.iter().all(|one| *one == seen[0]),
        "everybody saw the same"
    );
    let last = i64::try_from(talk.said.load(Ordering::SeqCst)).expect("few");
    assert_eq!(seen[0].keys().last(), Some(&Seq(last)), "without a hole");
}

#[tokio::test]
async fn a_send_in_flight_is_answered_before_its_socket_is_closed() {
    let cluster = TestCluster::start(ROOKERY, 1).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let room = ann.group("room", &[&bob]).await;
    let held = hold(&cluster, room, 4).await;
    let story = async {
        let reference = anns.post(new_message_id(), room, "on its way");
        somebody_waits(&cluster).await;
        cluster.node(0).terminate().await;
        assert_eq!(anns.expect_close().await, 1012);
        let is_acked = anns.read(|record| {
            record.events().any(|event| match event {
                ServerEvent::MessageAck(ack) => ack.reference.as_ref() == Some(&reference),
                _ => false,
            })
        });
        assert!(is_acked, "nothing is left behind without a word");
        assert_eq!(cluster.node(0).exit_code().await, 0);
    };
    join(held, story).await;
}

#[tokio::test]
async fn many_busy_sockets_are_all_told_why() {
    const EACH: usize = 25;
    let cluster = TestCluster::builder(ROOKERY)
        .set("ROOKERY_LIMITS_SOCKETS_PER_USER", "100")
        .set("ROOKERY_DRAIN_WINDOW_SECONDS", "3")
        .start()
        .await;
    let names = [
        "ann", "bob", "carol", "dora", "emil", "fred", "gina", "hans",
    ];
    let people = cluster.register_all(names).await;
    let mut talkers = Vec::new();
    for person in &people {
        let room = person.group("notes", &[]).await;
        for _ in 0..EACH {
            talkers.push((person.connect(cluster.node(0)).await, room));
        }
    }
    let talk = join_all(talkers.iter().map(async |(device, room)| {
        let mut count = 0;
        loop {
            let text = format!("note {count}");
            match device.try_send(new_message_id(), *room, &text).await {
                Ok(_) => count += 1,
                Err(SendFailure::Closed(code)) => return code,
                Err(SendFailure::Refused(error)) => panic!("{error:?}"),
            }
        }
    }));
    let stop = async {
        let (first, room) = &talkers[0];
        first.expect_all(*room, Seq(2), Seq(40)).await;
        cluster.node(0).terminate().await;
        first
            .expect("the hint", |event| match event {
                ServerEvent::ServerDraining(_) => Some(()),
                _ => None,
            })
            .await;
        let token = &people[0].tokens.access_token;
        let late = Handshake::to(&cluster.node(0).url()).token(token);
        let answer = late.send().await;
        assert_eq!(answer.status, 503, "no new sockets");
        assert!(answer.head.contains("\r\nretry-after: "), "{}", answer.head);
        assert_eq!(cluster.node(0).exit_code().await, 0);
    };
    let (codes, ()) = join(talk, stop).await;
    let cut_off = codes.iter().filter(|code| **code != 1012).count();
    assert_eq!(
        cut_off,
        0,
        "of {} were not told why: {codes:?}",
        codes.len()
    );
}

#[tokio::test]
async fn a_second_signal_ends_a_drain() {
    let cluster = TestCluster::builder(ROOKERY)
        .set("ROOKERY_DRAIN_DELAY_SECONDS", "30")
        .start()
        .await;
    let node = cluster.node(0);
    node.terminate().await;
    eventually("it drains", async || !node.is_ready().await).await;
    node.terminate().await;
    assert_eq!(node.exit_code().await, 3);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_ended() {
    let cluster = TestCluster::builder(ROOKERY)
        .set("ROOKERY_DRAIN_TIMEOUT_SECONDS", "2")
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let room = ann.group("room", &[&bob]).await;
    let held = hold(&cluster, room, 60).await;
    let story = async {
        anns.post(new_message_id(), room, "on its way");
        somebody_waits(&cluster).await;
        assert_eq!(cluster.node(0).stop().await, 3);
    };
    tokio::select! {
        () = held => panic!("the drain waited for the end of it"),
        () = story => {}
    }
}

#[tokio::test]
async fn a_node_that_is_still_starting_ends_at_the_first_signal() {
    // Takes connections and never answers.
    let database = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let database = database.expect("a free port");
    let address = database.local_addr().expect("it is bound");
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = tokio::process::Command::new(ROOKERY)
        .env_clear()
        .env(
            "DATABASE_URL",
            format!("postgres://rookery@{address}/rookery"),
        )
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .env("OPS_ADDR", "127.0.0.1:0")
        .env("DATA_DIR", folder.path())
        .kill_on_drop(true)
        .spawn()
        .expect("the program runs");
    let _connection = database
        .accept()
        .await
        .expect("the node asks for its database");
    let process = node.id().expect("it runs").to_string();
    let mut kill = tokio::process::Command::new("kill");
    let sent = kill.args(["-TERM", &process]).status().await;
    assert!(sent.expect("there is kill").success());
    let ended = tokio::time::timeout(PATIENCE, node.wait()).await;
    let status = ended.expect("it ends").expect("it can be waited for");
    assert_eq!(status.code(), Some(0));
}
