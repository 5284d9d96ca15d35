//! A bus under test, and a record of what it hears.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rookery::bus::{
    BreakReason, Bus, Channel, Ingress, MemoryBus, Neighbours, RedisBus, RedisOptions, Sink,
};
use rookery::clock::Clock;
use rookery::lifecycle::Tasks;
use rookery_protocol::UserId;
use rookery_test_support::{PATIENCE, eventually, new_message_id};
use tokio::sync::Notify;
use tokio::time::timeout;

/// The channel of a user that no other test knows.
pub(crate) fn channel() -> Channel {
    Channel::User(UserId::from_uuid(*new_message_id().as_uuid()))
}

pub(crate) fn channels(count: usize) -> Vec<Channel> {
    (0..count).map(|_| channel()).collect()
}

/// Everything a bus handed to its sink, in order.
#[derive(Default)]
pub(crate) struct Heard {
    items: Mutex<VecDeque<Ingress>>,
    more: Notify,
}

impl Heard {
    pub(crate) fn sink(self: &Arc<Self>) -> Sink {
        let heard = Arc::clone(self);
        Arc::new(move |item| {
            heard.items().push_back(item);
            heard.more.notify_one();
        })
    }

    fn items(&self) -> MutexGuard<'_, VecDeque<Ingress>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item.
    pub(crate) async fn next(&self) -> Ingress {
        let next = async {
            loop {
                if let Some(item) = self.items().pop_front() {
                    return item;
                }
                self.more.notified().await;
            }
        };
        timeout(PATIENCE, next).await.expect("the bus says nothing")
    }

    /// The next message, which nothing may come before.
    pub(crate) async fn message(&self) -> (Channel, Bytes) {
        match self.next().await {
            Ingress::Message { channel, payload } => (channel, payload),
            Ingress::Break(reason) => panic!("a break instead of a message: {reason:?}"),
        }
    }

    /// Throws away what was heard so far.
    pub(crate) fn forget(&self) {
        self.items().clear();
    }

    /// Reads on to a break for this reason; what comes before is thrown away.
    pub(crate) async fn break_for(&self, reason: BreakReason) {
        while !matches!(self.next().await, Ingress::Break(other) if other == reason) {}
    }
}

/// One bus and what it hears; ends with its test.
pub(crate) struct Bench {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) tasks: Tasks,
}

impl Bench {
    pub(crate) fn memory() -> Self {
        let heard = Arc::new(Heard::default());
        let bus = Arc::new(MemoryBus::new(heard.sink()));
        Self {
            bus,
            heard,
            neighbours: Arc::default(),
            tasks: Tasks::new(),
        }
    }

    /// Connects to Redis, if it is there.
    pub(crate) fn redis(url: &str) -> Self {
        let heard = Arc::new(Heard::default());
        Self::redis_into(url, heard.sink(), heard)
    }

    /// The same with a sink of one's own.
    pub(crate) fn redis_into(url: &str, sink: Sink, heard: Arc<Heard>) -> Self {
        let (tasks, neighbours) = (Tasks::new(), Arc::new(Neighbours::default()));
        let options = RedisOptions {
            url: url.to_owned(),
            node_id: format!("node-{}", new_message_id()),
            neighbours: Arc::clone(&neighbours),
        };
        let bus = RedisBus::start(&options, sink, Clock::system(), &tasks).expect("a URL of Redis");
        Self {
            bus: Arc::new(bus),
            heard,
            neighbours,
            tasks,
        }
    }

    /// Connects to Redis and waits until it is connected.
    pub(crate) async fn redis_up(url: &str) -> Self {
        let bench = Self::redis(url);
        bench.up().await;
        bench.heard.forget();
        bench
    }

    pub(crate) async fn up(&self) {
        eventually("the bus is up", async || self.bus.is_up()).await;
    }

    pub(crate) async fn down(&self) {
        eventually("the bus is down", async || !self.bus.is_up()).await;
    }

    /// Subscribes to a channel, on a bus that is up.
    pub(crate) async fn subscribes(&self, channel: &Channel) {
        let subscribed = self.bus.subscribe(std::slice::from_ref(channel)).await;
        subscribed.expect("a bus that is up");
    }

    /// Subscribes to a channel and hears what this bus itself publishes on it.
    pub(crate) async fn hears_after_subscribing(&self, channel: &Channel) {
        self.subscribes(channel).await;
        self.hears(channel, self).await;
    }

    /// Publishes to this bus's channel until it hears it: for moments when messages may get lost.
    pub(crate) async fn hears(&self, channel: &Channel, from: &Self) {
        let heard = async {
            loop {
                from.bus
                    .publish(channel.clone(), Bytes::from_static(b"do you hear"));
                let heard = async {
                    loop {
                        match self.heard.next().await {
                            Ingress::Message { channel: from, .. } if from == *channel => return,
                            _ => {}
                        }
                    }
                };
                if timeout(Duration::from_millis(100), heard).await.is_ok() {
                    return;
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("the bus is deaf");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}
