//! A Redis with sentinels whose master is cut off.

use rookery_test_support::servers::Sentinels;
use rookery_test_support::{Mode, Role, TestCluster};

use super::kit::{Pair, REPAIR};
use crate::ROOKERY;

/// F15: the master is cut off from everybody, and later from the sentinels alone, so that nodes
/// could stay with the old one. Delivered within 5 s meanwhile, and on the new master afterwards.
#[tokio::test]
async fn a_master_that_is_cut_off_is_left_for_the_new_one() {
    let sentinels = Sentinels::start().await.expect("three sentinels");
    let pair = Pair::on(TestCluster::builder(ROOKERY).sentinels(&sentinels)).await;
    sentinels.way(0).set(Mode::Blackhole);
    pair.arrives("F15, cut off", "on no master", REPAIR).await;
    sentinels.until_master_is(1).await.expect("a new master");
    pair.by_bus().await;
    super::kit::within("F15, both nodes", REPAIR, async || {
        sentinels.way(1).connections_for(Role::Subscriber) >= 2
    })
    .await;

    sentinels.way(0).heal();
    sentinels.are_ready().await.expect("the old master follows");
    sentinels.way(1).set_for(Role::Sentinel, Mode::Blackhole);
    sentinels
        .until_master_is(0)
        .await
        .expect("the old master again");
    pair.arrives("F15, on an island", "to the island", REPAIR)
        .await;
    super::kit::within("F15, off the island", REPAIR, async || {
        sentinels.way(0).connections_for(Role::Subscriber) >= 2
    })
    .await;
    pair.by_bus().await;
    pair.all_is_well().await;
}
