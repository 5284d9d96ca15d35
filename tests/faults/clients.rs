//! The way from clients to the nodes: links that flap and go silent, and nginx.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rookery_test_support::{Mode, TestCluster, eventually};

use super::kit::{Pair, REPAIR, within};
use crate::ROOKERY;

/// What was missed is there as soon as the device is.
const RESUMED: Duration = Duration::from_secs(3);

/// Comes back through nginx with what it has, however often that takes.
async fn comes_back(fault: &str, pair: &Pair) {
    within(fault, RESUMED, async || {
        let resumed = pair.bobs.try_resume_at(&pair.cluster.url()).await;
        resumed.is_ok()
    })
    .await;
}

/// F20: a link that is reset, cut and silent again and again; what was missed comes once, in order.
#[tokio::test]
async fn a_device_on_a_link_that_flaps_misses_nothing() {
    let pair = Pair::on(TestCluster::builder(ROOKERY).proxied()).await;
    comes_back("at first", &pair).await;
    let front = pair.cluster.front();
    let stop = AtomicBool::new(false);
    let story = async {
        for round in 0..6 {
            match round % 3 {
                0 => assert!(front.reset() > 0),
                1 => front.set(Mode::Cut),
                // Half open: nobody hears of it, and the device gives up by itself.
                _ => {
                    front.set(Mode::Blackhole);
                    pair.bobs.cut().await;
                }
            }
            pair.bobs.expect_close().await;
            pair.anns.send(pair.room, &format!("away {round}")).await;
            front.heal();
            comes_back("F20", &pair).await;
            assert!(pair.bobs.has(&format!("away {round}")));
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(story, pair.ann_talks(&stop));
    pair.all_is_well().await;
}

/// F21: nginx reads its configuration again, and loses a worker; devices come back.
#[tokio::test]
async fn devices_outlive_nginx() {
    let pair = Pair::on(TestCluster::builder(ROOKERY)).await;
    comes_back("at first", &pair).await;
    let nginx = pair.cluster.nginx();
    nginx.reload().expect("it runs");
    // The old worker keeps its connections.
    pair.arrives("F21, reloaded", "while it reloads", REPAIR)
        .await;
    assert_eq!(pair.bobs.read(|record| record.close_code()), None);

    let workers = async || {
        nginx.kill_worker().await.expect("it has a worker");
        pair.bobs.read(|record| record.close_code()).is_some()
    };
    eventually("the worker of the device is killed", workers).await;
    pair.anns.send(pair.room, "without a worker").await;
    comes_back("F21, killed", &pair).await;
    assert!(pair.bobs.has("without a worker"));
    pair.all_is_well().await;
}
