//! Who is online when nodes stop, die, or are without Redis for a while.

use rookery_client::Api;
use rookery_protocol::user::{ChosenStatus, PresenceStatus};
use rookery_test_support::{Device, Person, TestCluster, eventually};

use PresenceStatus::{Away, Offline, Online};

use crate::ROOKERY;

/// How somebody was shown to a device, one after the other, without repeats.
fn shown(device: &Device, person: &Person) -> Vec<PresenceStatus> {
    let shown = device.read(|record| record.presences_of(person.id()));
    let mut shown: Vec<_> = shown.into_iter().map(|presence| presence.status).collect();
    shown.dedup();
    shown
}

async fn looks(api: &Api, person: &Person) -> PresenceStatus {
    let presence = api.presence(person.id()).await;
    presence.expect("somebody one knows").status
}

/// Waits until these are seen to be online there: a node lists who came a moment later.
async fn are_online(api: &Api, people: &[&Person]) {
    for person in people {
        eventually("somebody is online", async || {
            looks(api, person).await == Online
        })
        .await;
    }
}

/// How often a node had to write its whole list.
async fn rewrites(cluster: &TestCluster, node: usize) -> f64 {
    let metrics = cluster.metrics(node).await;
    metrics.get(r#"rookery_presence_lease_total{result="rewritten"}"#)
}

/// Waits until all nodes know each other.
async fn is_settled(cluster: &TestCluster) {
    let nodes = cluster.nodes().len();
    for node in 0..nodes {
        eventually("a node knows the others", async || {
            cluster.metrics(node).await.get("rookery_presence_nodes") == nodes as f64
        })
        .await;
    }
}

#[tokio::test]
async fn devices_on_three_nodes_are_one_user() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    ann.group("room", &[&bob]).await;
    let watchers = [
        bob.connect(cluster.node(0)).await,
        bob.connect(cluster.node(2)).await,
    ];
    for device in &watchers {
        device.watch(&[&ann]).await;
    }
    let mut devices = Vec::new();
    for number in 0..3 {
        devices.push(ann.connect(cluster.node(number)).await);
    }
    devices[1].appear(ChosenStatus::Away).await;
    for device in watchers.iter().chain([&devices[0], &devices[2]]) {
        device.expect_presence(&ann, Away).await;
    }
    // The choice holds where it was not made.
    devices[1].close().await;
    devices[0].close().await;
    let newcomer = bob.connect(cluster.node(1)).await;
    assert_eq!(newcomer.watch(&[&ann]).await[0].status, Away);
    devices[2].close().await;
    for device in watchers.iter().chain([&newcomer]) {
        device.expect_presence(&ann, Offline).await;
    }
    assert_eq!(shown(&newcomer, &ann), [Away, Offline]);
    for device in &watchers {
        assert_eq!(shown(device, &ann), [Offline, Online, Away, Offline]);
    }
}

#[tokio::test]
async fn a_killed_node_takes_only_its_own_users_with_it() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    is_settled(&cluster).await;
    let [ann, bob, carol, dave] = cluster.register_all(["ann", "bob", "carol", "dave"]).await;
    ann.group("room", &[&bob, &carol, &dave]).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let _anns = ann.connect(cluster.node(2)).await;
    let carols = carol.connect(cluster.node(2)).await;
    let _other = carol.connect(cluster.node(1)).await;
    let daves = dave.connect(cluster.node(2)).await;
    // All of it has been told before Bob asks.
    carols.watch(&[&ann, &carol, &dave]).await;
    for person in [&ann, &carol, &dave] {
        carols.expect_presence(person, Online).await;
    }
    daves.appear(ChosenStatus::Invisible).await;
    carols.expect_presence(&dave, Offline).await;
    bobs.watch(&[&ann, &carol, &dave]).await;
    bobs.expect_presence(&ann, Online).await;
    bobs.expect_presence(&carol, Online).await;
    cluster.node(2).kill().await;
    carols.expect_close().await;
    let gone = bobs.expect_presence(&ann, Offline).await;
    let seen_at = gone.last_seen_at.expect("told by a survivor");
    let row = bob.at(cluster.node(1)).user(ann.id()).await.expect("ann");
    assert_eq!(row.last_seen_at, Some(seen_at));
    assert_eq!(shown(&bobs, &carol), [Online]);
    assert_eq!(shown(&bobs, &dave), [Offline]);
    for node in [0, 1] {
        // One survivor may notice a moment before the other.
        eventually("every node knows", async || {
            looks(&bob.at(cluster.node(node)), &ann).await == Offline
        })
        .await;
        assert_eq!(looks(&bob.at(cluster.node(node)), &carol).await, Online);
    }
    // Nothing of it is left in Redis.
    eventually("the dead node is buried", async || {
        let keys = cluster.redis().cli(&["KEYS", "*{node-2:*"]).await;
        keys.expect("keys")
            .lines()
            .all(|key| key.ends_with(":burial") || key.is_empty())
    })
    .await;
    cluster.node(2).restart().await;
    let _anns = ann.connect(cluster.node(2)).await;
    bobs.expect_presence(&ann, Online).await;
}

#[tokio::test]
async fn users_of_a_node_that_stops_do_not_flicker() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    is_settled(&cluster).await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    ann.group("room", &[&bob, &carol]).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let anns = ann.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(1)).await;
    are_online(&bob.at(cluster.node(0)), &[&ann, &carol]).await;
    bobs.watch(&[&ann, &carol]).await;
    bobs.expect_presence(&ann, Online).await;
    bobs.expect_presence(&carol, Online).await;
    cluster.node(1).terminate().await;
    anns.expect_close().await;
    let anns = ann.connect(cluster.node(2)).await;
    carols.expect_close().await;
    assert_eq!(cluster.node(1).exit_code().await, 0);
    // She did not come back, and nobody but the survivors can tell.
    bobs.expect_presence(&carol, Offline).await;
    assert_eq!(shown(&bobs, &carol), [Online, Offline]);
    assert_eq!(shown(&bobs, &ann), [Online]);
    anns.close().await;
    bobs.expect_presence(&ann, Offline).await;
}

#[tokio::test]
async fn a_redis_that_forgot_everything_is_told_again() {
    let cluster = TestCluster::start(ROOKERY, 3).await;
    is_settled(&cluster).await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    ann.group("room", &[&bob, &carol]).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let anns = ann.connect(cluster.node(1)).await;
    are_online(&bob.at(cluster.node(0)), &[&ann]).await;
    bobs.watch(&[&ann, &carol]).await;
    bobs.expect_presence(&ann, Online).await;
    let before = [rewrites(&cluster, 0).await, rewrites(&cluster, 1).await];
    cluster.redis().flushall().await.expect("FLUSHALL");
    for node in [0, 1] {
        eventually("the list is written again", async || {
            rewrites(&cluster, node).await > before[node]
        })
        .await;
    }
    for node in 0..3 {
        eventually("ann is online", async || {
            looks(&bob.at(cluster.node(node)), &ann).await == Online
        })
        .await;
    }
    let carols = carol.connect(cluster.node(2)).await;
    bobs.expect_presence(&carol, Online).await;
    assert_eq!(shown(&bobs, &ann), [Online], "never seen to be gone");
    for device in [anns, carols] {
        device.close().await;
    }
    bobs.expect_presence(&ann, Offline).await;
    bobs.expect_presence(&carol, Offline).await;
}

#[tokio::test]
async fn a_block_of_which_the_news_is_lost_is_found_by_the_next_look() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    ann.group("room", &[&bob]).await;
    let _anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    bobs.watch(&[&ann]).await;
    bobs.expect_presence(&ann, Online).await;

    cluster.proxy(1).lose("blocked");
    let api = ann.at(cluster.node(0));
    api.block(bob.id()).await.expect("a block");
    let hidden = bobs.expect_presence(&ann, Offline).await;
    assert_eq!((hidden.online_since, hidden.last_seen_at), (None, None));
    api.unblock(bob.id()).await.expect("no block");
    bobs.expect_presence(&ann, Online).await;
    assert_eq!(cluster.proxy(1).lost(), 2, "the bus lost what it should");
}

#[tokio::test]
async fn nobody_goes_offline_because_redis_is_away() {
    let cluster = TestCluster::start(ROOKERY, 2).await;
    is_settled(&cluster).await;
    let [ann, bob, carol] = cluster.register_all(["ann", "bob", "carol"]).await;
    ann.group("room", &[&bob, &carol]).await;
    let bobs = bob.connect(cluster.node(0)).await;
    let anns = ann.connect(cluster.node(1)).await;
    let carols = carol.connect(cluster.node(1)).await;
    are_online(&bob.at(cluster.node(0)), &[&ann, &carol]).await;
    bobs.watch(&[&ann, &carol]).await;
    bobs.expect_presence(&ann, Online).await;
    bobs.expect_presence(&carol, Online).await;
    let before = rewrites(&cluster, 1).await;
    cluster.redis().kill().await.expect("a dead Redis");
    eventually("the bus is down", async || {
        cluster.metrics(0).await.get("rookery_bus_connected") == 0.0
    })
    .await;
    // Known last, and known here; nothing waits for Redis.
    let at = [bob.at(cluster.node(0)), bob.at(cluster.node(1))];
    assert_eq!(looks(&at[0], &ann).await, Online);
    assert_eq!(looks(&at[1], &ann).await, Online);
    carols.close().await;
    let newcomer = bob.connect(cluster.node(1)).await;
    assert_eq!(newcomer.watch(&[&ann]).await[0].status, Online);
    anns.appear(ChosenStatus::Away).await;
    newcomer.expect_presence(&ann, Away).await;

    cluster.redis().restart().await.expect("an empty Redis");
    eventually("the list is written again", async || {
        rewrites(&cluster, 1).await > before
    })
    .await;
    // What was chosen, and who left, is told when it can be.
    bobs.expect_presence(&ann, Away).await;
    bobs.expect_presence(&carol, Offline).await;
    assert_eq!(shown(&bobs, &ann), [Online, Away]);
    assert_eq!(shown(&bobs, &carol), [Online, Offline]);
}
