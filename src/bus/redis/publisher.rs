//! Sends publications in pipelines: as many at once as waited while the last were under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use fred::clients::Pipeline;
use fred::prelude::*;
use tokio::sync::mpsc;

use crate::bus::Channel;
use crate::lifecycle::Tasks;
use crate::metrics::{self, Level};

/// Publications that may wait: two seconds of a node's best rate. Beyond it they are dropped and
/// repaired from the store.
const COUNT_MAX: usize = 65_536;
/// Room beyond that for this node's own canary: neighbours that do not hear it rebuild their
/// subscribers, which helps nobody against a queue that is full here. It is sent every second; the
/// rest is for pushes that happen at the same time and see the same room.
const CANARY_ROOM: usize = 256;
/// Bytes that may wait, for the same time of somewhat long messages. A payload counts once for each
/// channel it is published on, though they share it.
const BYTES_MAX: usize = 32 << 20;
/// Publications in one pipeline; beyond it the first of them would wait for the last. fred holds
/// one pipeline at a time, and on a link that does not answer one more for each time-out until the
/// link is replaced.
const PIPELINE_MAX: usize = 512;
/// Bytes of one pipeline, likewise: what fred holds counts as much as what waits here.
const PIPELINE_BYTES_MAX: usize = 1 << 20;

/// What waits to be published. Cloning shares it.
#[derive(Clone)]
pub(super) struct Queue {
    sender: mpsc::Sender<(Channel, Bytes)>,
    load: Arc<Load>,
}

/// How full the queue is.
#[derive(Default)]
struct Load {
    bytes: AtomicUsize,
    /// News was dropped since the last look.
    dropped: AtomicBool,
}

impl Load {
    /// So many publications were dropped.
    fn note_dropped(&self, count: u64, counter: &::metrics::Counter) {
        if count > 0 {
            self.dropped.store(true, Ordering::Relaxed);
            counter.increment(count);
        }
    }
}

/// Whether a publication on this channel is news that somebody would lack; a canary is not.
fn is_news(channel: &Channel) -> bool {
    !matches!(channel, Channel::Node(_))
}

/// The other end of a queue.
pub(super) struct Waiting {
    receiver: mpsc::Receiver<(Channel, Bytes)>,
    load: Arc<Load>,
}

/// An empty queue.
pub(super) fn queue() -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(COUNT_MAX + CANARY_ROOM);
    let load = Arc::new(Load::default());
    let waiting = Waiting {
        receiver,
        load: Arc::clone(&load),
    };
    (Queue { sender, load }, waiting)
}

impl Queue {
    /// Never waits; what does not fit is dropped and counted. A canary fits however much news waits.
    pub(super) fn push(&self, channel: Channel, payload: Bytes) {
        let (size, news) = (payload.len(), u64::from(is_news(&channel)));
        let before = self.load.bytes.fetch_add(size, Ordering::Relaxed);
        let has_room = before + size <= BYTES_MAX && self.sender.capacity() > CANARY_ROOM;
        let fits = has_room || news == 0;
        if !fits || self.sender.try_send((channel, payload)).is_err() {
            self.load.bytes.fetch_sub(size, Ordering::Relaxed);
            self.load
                .note_dropped(news, &metrics::bus_publish_dropped_total().full);
        }
    }

    /// Whether so much waits that what may be left out should be.
    pub(super) fn is_busy(&self) -> bool {
        self.count() > COUNT_MAX / 2 || self.bytes() > BYTES_MAX / 2
    }

    /// Of publications and of their bytes.
    pub(super) fn levels(&self) -> (Level, Level) {
        let level = |used, capacity| Level { used, capacity };
        (
            level(self.count(), COUNT_MAX),
            level(self.bytes(), BYTES_MAX),
        )
    }

    pub(super) fn count(&self) -> usize {
        COUNT_MAX + CANARY_ROOM - self.sender.capacity()
    }

    pub(super) fn bytes(&self) -> usize {
        self.load.bytes.load(Ordering::Relaxed)
    }

    /// Whether publications were dropped, here or by the publisher, since the last call.
    pub(super) fn take_dropped(&self) -> bool {
        self.load.dropped.swap(false, Ordering::Relaxed)
    }
}

/// Runs until all that publish have stopped and the queue is empty.
pub(super) async fn run(client: Client, mut waiting: Waiting, tasks: Tasks) {
    let mut batch = Vec::with_capacity(PIPELINE_MAX);
    loop {
        let received = tokio::select! {
            biased;
            received = waiting.receiver.recv_many(&mut batch, PIPELINE_MAX) => received,
            () = tasks.stopping_late().cancelled() => return,
        };
        if received == 0 {
            return;
        }
        waiting.publish(&client, &mut batch).await;
    }
}

impl Waiting {
    async fn publish(&self, client: &Client, batch: &mut Vec<(Channel, Bytes)>) {
        let mut batch = batch.drain(..).peekable();
        while batch.peek().is_some() {
            let (mut size, mut count, mut news) = (0, 0, 0);
            let pipeline = client.pipeline();
            while size < PIPELINE_BYTES_MAX
                && let Some((channel, payload)) = batch.next()
            {
                size += payload.len();
                count += 1;
                news += u64::from(is_news(&channel));
                // Queues only; the pipeline is sent below.
                let queued: Result<(), Error> = pipeline.publish(channel.name(), payload).await;
                if let Err(error) = queued {
                    tracing::debug!(%error, "a publication could not be queued");
                }
            }
            if client.is_connected() {
                let began = Instant::now();
                let sent = send(client, pipeline, count).await;
                if sent.is_ok() {
                    metrics::bus_publish_seconds().record(began.elapsed());
                }
                self.note(sent, news);
            } else {
                let down = &metrics::bus_publish_dropped_total().down;
                self.load.note_dropped(news, down);
            }
            self.load.bytes.fetch_sub(size, Ordering::Relaxed);
        }
    }

    fn note(&self, sent: Result<(), Error>, news: u64) {
        match sent {
            Ok(()) => metrics::bus_published_total().increment(news),
            Err(error) => {
                let failed = &metrics::bus_publish_dropped_total().failed;
                self.load.note_dropped(news, failed);
                tracing::debug!(%error, news, "publishing failed; the store repairs it");
            }
        }
    }
}

/// Sends a pipeline of `count` publications and waits for its answers.
async fn send(client: &Client, pipeline: Pipeline<Client>, count: usize) -> Result<(), Error> {
    // fred writes each command by itself behind which none waits, within a pipeline too: a system
    // call for each publication. While one waits it fills its buffer first.
    let waiting = async {
        if count > 1 {
            client.ping::<Value>(None).await.ok();
        }
    };
    let (sent, ()) = tokio::join!(pipeline.all::<Value>(), waiting);
    sent.map(drop)
}

#[cfg(test)]
mod tests {
    use rookery_protocol::UserId;
    use uuid::Uuid;

    use super::*;

    fn channel() -> Channel {
        Channel::User(UserId::from_uuid(Uuid::from_u128(1)))
    }

    #[test]
    fn the_queue_is_bounded_by_count_and_by_bytes() {
        let (queue, waiting) = queue();
        for _ in 0..COUNT_MAX {
            queue.push(channel(), Bytes::from_static(b"x"));
        }
        assert!(!queue.take_dropped());
        queue.push(channel(), Bytes::from_static(b"x"));
        assert!(queue.take_dropped());
        assert_eq!((queue.count(), queue.bytes()), (COUNT_MAX, COUNT_MAX));
        queue.push(Channel::Node("n1".into()), Bytes::from_static(b"x"));
        assert_eq!(queue.count(), COUNT_MAX + 1, "a canary gets in");
        drop(waiting);

        let (queue, _waiting) = super::queue();
        let large = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..40 {
            queue.push(channel(), large.clone());
        }
        assert!(queue.take_dropped());
        assert_eq!((queue.count(), queue.bytes()), (32, BYTES_MAX));
        queue.push(Channel::Node("n1".into()), Bytes::from_static(b"x"));
        assert_eq!(queue.count(), 33, "a canary gets in");
        assert!(queue.is_busy());
    }
}
