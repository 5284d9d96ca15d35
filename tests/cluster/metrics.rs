//! What an operator sees of it: the numbers of a node that works, and of one that lacks something.

use rookery_test_support::{Metrics, TestCluster, eventually};

use crate::ROOKERY;

fn resource(metrics: &Metrics, name: &str) -> (f64, f64) {
    let of = |metric| metrics.get(&format!("{metric}{{resource=\"{name}\"}}"));
    (of("rookery_used"), of("rookery_capacity"))
}

#[tokio::test]
async fn the_way_of_a_message_is_timed_and_what_is_used_stands_beside_what_there_is() {
    let cluster = TestCluster::builder(ROOKERY)
        .nodes(2)
        .lossy(1)
        .set("ROOKERY_LIMITS_SOCKETS", "40")
        .start()
        .await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let room = ann.group("room", &[&bob]).await;
    let phone = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let before = cluster.metrics(1).await;
    phone.send(room, "by the bus").await;
    bobs.expect_message("by the bus").await;
    cluster.proxy(1).lose("found in the journal");
    phone.send(room, "found in the journal").await;
    bobs.expect_message("found in the journal").await;

    let after = cluster.metrics(1).await;
    let grown = |series: &str| after.get(series) - before.get(series);
    for path in ["bus", "reconcile"] {
        let count = format!("rookery_delivery_seconds_count{{path=\"{path}\"}}");
        assert!(grown(&count) >= 1.0, "{path}");
    }
    // What the journal brought was late by the grace that news is given, at least; unless the node
    // lost its subscription meanwhile, when nothing is waited for.
    let late = grown("rookery_delivery_seconds_sum{path=\"reconcile\"}");
    let broke = |reason| {
        grown(&format!(
            "rookery_ingress_breaks_total{{reason=\"{reason}\"}}"
        ))
    };
    let is_down = after.get("rookery_bus_connected") < 1.0;
    let was_down = broke("reconnect") + broke("cut_off") > 0.0;
    assert!(late >= 0.5 || is_down || was_down, "{late} s late");
    assert!(grown("rookery_fill_seconds_count") >= 1.0);
    assert!(grown("rookery_reconcile_look_seconds_count") >= 1.0);
    assert!(after.get("rookery_open_seconds_count") >= 1.0);
    assert!(after.get("rookery_store_wait_seconds_count") >= 1.0);
    assert!(after.get("rookery_runtime_busy_seconds_total") > 0.0);
    let sender = cluster.metrics(0).await;
    assert!(sender.get("rookery_bus_publish_seconds_count") >= 1.0);

    eventually("the socket is counted beside the limit", async || {
        resource(&cluster.metrics(1).await, "sockets") == (1.0, 40.0)
    })
    .await;
    let now = cluster.metrics(1).await;
    assert_eq!(resource(&now, "database").1, 6.0, "DATABASE_POOL_MAX");
    let connections = |state| now.get(&format!("rookery_store_connections{{state=\"{state}\"}}"));
    let open = connections("used") + connections("idle");
    assert!((1.0..=6.0).contains(&open), "{open} connections");
    for name in ["connections", "opening", "strangers", "sends", "detours"]
        .into_iter()
        .chain(["publish", "publish_bytes", "delivery", "held_bytes"])
        .chain(["outbox_bytes", "passwords"])
    {
        let (used, capacity) = resource(&now, name);
        assert!(used < capacity, "{name}: {used} of {capacity}");
    }
}

#[tokio::test]
async fn which_service_is_away_is_told() {
    let cluster = TestCluster::builder(ROOKERY).own_postgres().start().await;
    let away = async |service: &str| {
        let metrics = cluster.metrics(0).await;
        metrics.get(&format!("rookery_away{{service=\"{service}\"}}"))
    };
    eventually("nothing is away", async || {
        away("redis").await + away("database").await == 0.0
    })
    .await;
    cluster.redis().kill().await.unwrap();
    eventually("Redis is", async || away("redis").await == 1.0).await;
    assert_eq!(away("database").await, 0.0);
    cluster.redis().restart().await.unwrap();
    eventually("Redis is back", async || away("redis").await == 0.0).await;
    cluster.postgres().stop_immediate().await.unwrap();
    eventually("the database is", async || away("database").await == 1.0).await;
    assert_eq!(away("redis").await, 0.0);
}
