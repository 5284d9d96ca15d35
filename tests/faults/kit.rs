//! Two people on two nodes, and a clock on what is promised.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rookery_oracle::state::rows::{MEMBERSHIPS, MESSAGES};
use rookery_oracle::{Event, FinalState, History, Line, Options, Report, check, event};
use rookery_protocol::{ConversationId, Seq};
use rookery_test_support::{
    Builder, Device, Person, Role, TestCluster, eventually, eventually_within,
};
use tokio::time::Instant;

/// What Redis loses without a word comes within this, and so does what was written while it was
/// away.
pub(super) const REPAIR: Duration = Duration::from_secs(5);

/// A machine that is busy takes this much longer than is promised.
pub(super) const LENIENCE: u32 = 6;

/// Ann is on node 0, Bob on node 1, and both are in a room.
pub(super) struct Pair {
    pub cluster: TestCluster,
    pub ann: Person,
    pub bob: Person,
    pub room: ConversationId,
    pub anns: Device,
    pub bobs: Device,
    began: std::time::Instant,
}

impl Pair {
    /// In a cluster of two nodes; returns when messages take the bus.
    pub(super) async fn on(builder: Builder) -> Self {
        let began = std::time::Instant::now();
        let cluster = builder.nodes(2).start().await;
        let [ann, bob] = cluster.register_all(["ann", "bob"]).await;
        let room = ann.group("room", &[&bob]).await;
        let anns = ann.connect(cluster.node(0)).await;
        let bobs = bob.connect(cluster.node(1)).await;
        let pair = Self {
            cluster,
            ann,
            bob,
            room,
            anns,
            bobs,
            began,
        };
        pair.by_bus().await;
        pair
    }

    /// Waits until a message takes the bus, as many as that needs.
    pub(super) async fn by_bus(&self) {
        let count = async || {
            self.metric(1, r#"rookery_delivered_total{path="bus"}"#)
                .await
        };
        let before = count().await;
        let mut number = 0;
        eventually("messages take the bus", async || {
            number += 1;
            let text = format!("by bus? {number}");
            self.anns.send(self.room, &text).await;
            self.bobs.expect_message(&text).await;
            count().await > before
        })
        .await;
    }

    pub(super) async fn metric(&self, node: usize, series: &str) -> f64 {
        self.cluster.metrics(node).await.get(series)
    }

    /// Ann says something, and Bob hears it within the time that is promised.
    pub(super) async fn arrives(&self, fault: &str, text: &str, bound: Duration) {
        self.anns.send(self.room, text).await;
        self.is_heard(fault, text, bound).await;
    }

    /// Bob hears what was said within the time that is promised.
    pub(super) async fn is_heard(&self, fault: &str, text: &str, bound: Duration) {
        within(fault, bound, async || self.bobs.has(text)).await;
    }

    /// Waits until this node is subscribed to Redis on its link.
    pub(super) async fn is_subscribed(&self, node: usize) {
        let link = self.cluster.links(node).redis();
        eventually("the node has a subscriber", async || {
            link.connections_for(Role::Subscriber) > 0
        })
        .await;
    }

    /// Ann talks until told to stop.
    pub(super) async fn ann_talks(&self, stop: &AtomicBool) {
        talks(&self.anns, self.room, "ann", stop).await;
    }

    /// Everybody has the whole log, in its order and once, and the oracle finds nothing wrong with
    /// what the devices did and saw.
    pub(super) async fn all_is_well(&self) {
        let room = self.ann.conversation(self.room).await;
        let last = room.expect("the room").last_seq;
        for device in [&self.anns, &self.bobs] {
            device.expect_all(self.room, Seq(2), last).await;
            device.seen_once_in_order(self.room);
        }
        let report = self.verdict().await;
        assert!(report.is_clean(), "{}", report.to_markdown("a story"));
    }

    async fn verdict(&self) -> Report {
        let messages = self.cluster.sql(MESSAGES).await;
        let memberships = self.cluster.sql(MEMBERSHIPS).await;
        let state = FinalState::of_rows(&messages, &memberships).expect("rows of the two tables");
        let process = Event::Process {
            format: event::FORMAT,
            name: "story".to_owned(),
            wall_ms: 0,
        };
        let mut lines = vec![Line {
            t: 0,
            device: event::PROCESS,
            event: process,
        }];
        for (number, device) in (1..).zip([&self.anns, &self.bobs]) {
            let person = device.person();
            let who = (number, person.name());
            lines.extend(device.read(|record| record.history(who, person.id(), self.began)));
        }
        let history = History::of_lines("story", lines);
        check(&[history], &state, &Options::default()).expect("lines in memory can be read")
    }
}

/// Somebody talks until told to stop.
pub(super) async fn talks(device: &Device, room: ConversationId, name: &str, stop: &AtomicBool) {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        device.send(room, &format!("{name} {number}")).await;
        // A pace, not a wait: more than this would only fill the log.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until something is so, says how long that took, and fails when it takes far longer than
/// promised.
pub(super) async fn within(fault: &str, bound: Duration, is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    let became_so = eventually_within(bound * LENIENCE, is_so).await;
    let took = begun.elapsed();
    println!("{fault}: {took:.2?}, promised {bound:?}");
    assert!(
        became_so,
        "{fault}: promised within {bound:?}, and not so after {took:.2?}"
    );
}
