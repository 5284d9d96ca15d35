//! Edits, deletions, reactions, mentions and blocks, on three nodes.

use rookery_protocol::Seq;
use rookery_test_support::TestCluster;

use crate::{ROOKERY, change_stories as changes, rule_stories as rules};

/// Tells each story on three nodes.
macro_rules! on_three_nodes {
    ($($stories:ident::$name:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            $stories::$name(TestCluster::start(ROOKERY, 3).await).await;
        }
    )+};
}

on_three_nodes![
    changes::changes_reach_every_device_in_their_place,
    changes::a_change_tells_its_author_how_far_the_message_got,
    changes::a_device_that_was_away_gets_what_changed_as_it_is_now,
    changes::who_joined_later_is_not_shown_an_old_message_by_its_change,
    rules::what_one_may_not_change_is_refused,
    changes::the_same_reaction_from_many_devices_is_one,
    changes::all_agree_after_many_changes_at_once,
    rules::mentions_are_told_and_counted,
    rules::who_is_blocked_is_heard_no_more,
];

/// The same in groups that are told on a channel of their own.
#[tokio::test]
async fn large_groups_hear_of_changes_too() {
    let builder = TestCluster::builder(ROOKERY).nodes(3);
    let cluster = builder.set("ROOKERY_FANOUT_DIRECT_MAX", "2").start().await;
    changes::changes_reach_every_device_in_their_place(cluster).await;
    let builder = TestCluster::builder(ROOKERY).nodes(3);
    let cluster = builder.set("ROOKERY_FANOUT_DIRECT_MAX", "2").start().await;
    changes::who_joined_later_is_not_shown_an_old_message_by_its_change(cluster).await;
}

/// What the bus loses of changes is found like lost messages: by the next entry, or by the journal.
#[tokio::test]
async fn a_lost_change_is_found() {
    let builder = TestCluster::builder(ROOKERY).nodes(2).lossy(1);
    let cluster = builder.start().await;
    let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
    let anns = ann.connect(cluster.node(0)).await;
    let bobs = bob.connect(cluster.node(1)).await;
    let ack = anns.send(&bob, "helo").await;
    let room = ack.conversation_id;
    bobs.expect_message("helo").await;
    cluster.proxy(1).lose("the lost one");
    anns.edit(room, ack.seq, "the lost one")
        .await
        .expect("edited");
    anns.send(room, "next").await;
    bobs.expect_message("next").await;
    let edited = bobs.expect_change(room, Seq(2)).await;
    assert_eq!(edited.message.content, "the lost one");
    cluster.proxy(1).lose("the last one");
    anns.edit(room, Seq(3), "the last one")
        .await
        .expect("edited");
    let edited = bobs.expect_change(room, Seq(4)).await;
    assert_eq!(edited.message.content, "the last one");
    assert!(cluster.proxy(1).lost() > 0, "the bus lost what it should");
    bobs.seen_once_in_order(room);
}
