//! What waits to be published, bounded by count and by bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::bus::Channel;
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

/// One of them.
pub(super) type Publication = (Channel, Bytes);

/// What waits to be published. Cloning shares it.
#[derive(Clone)]
pub(in crate::bus::redis) struct Queue {
    sender: mpsc::Sender<Publication>,
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
pub(super) fn is_news(channel: &Channel) -> bool {
    !matches!(channel, Channel::Node(_))
}

/// The other end of a queue.
pub(in crate::bus::redis) struct Waiting {
    receiver: mpsc::Receiver<Publication>,
    load: Arc<Load>,
}

/// An empty queue.
pub(in crate::bus::redis) fn queue() -> (Queue, Waiting) {
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
    pub(in crate::bus::redis) fn push(&self, channel: Channel, payload: Bytes) {
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

    /// News that never came to be published.
    pub(in crate::bus::redis) fn note_unpublished(&self, count: usize) {
        let failed = &metrics::bus_publish_dropped_total().failed;
        self.load.note_dropped(count as u64, failed);
    }

    /// Whether so much waits that what may be left out should be.
    pub(in crate::bus::redis) fn is_busy(&self) -> bool {
        self.count() > COUNT_MAX / 2 || self.bytes() > BYTES_MAX / 2
    }

    /// Of publications and of their bytes.
    pub(in crate::bus::redis) fn levels(&self) -> (Level, Level) {
        let level = |used, capacity| Level { used, capacity };
        (
            level(self.count(), COUNT_MAX),
            level(self.bytes(), BYTES_MAX),
        )
    }

    pub(in crate::bus::redis) fn count(&self) -> usize {
        COUNT_MAX + CANARY_ROOM - self.sender.capacity()
    }

    pub(in crate::bus::redis) fn bytes(&self) -> usize {
        self.load.bytes.load(Ordering::Relaxed)
    }

    /// Whether publications were dropped, here or by the publisher, since the last call.
    pub(in crate::bus::redis) fn take_dropped(&self) -> bool {
        self.load.dropped.swap(false, Ordering::Relaxed)
    }
}

impl Waiting {
    /// Adds what waits to the batch, up to so many; waits while there is nothing, and adds nothing
    /// when all who publish are gone. Nothing is lost if it is not awaited to its end.
    pub(super) async fn take(&mut self, batch: &mut Vec<Publication>, at_most: usize) -> usize {
        self.receiver.recv_many(batch, at_most).await
    }

    /// These are published, or given up: all but so many pieces of news, for this reason.
    pub(super) fn settle(&self, publications: &[Publication], confirmed: u64, lost: Lost) {
        let size: usize = publications.iter().map(|(_, payload)| payload.len()).sum();
        self.load.bytes.fetch_sub(size, Ordering::Relaxed);
        metrics::bus_published_total().increment(confirmed);
        let dropped = metrics::bus_publish_dropped_total();
        let counter = match lost {
            Lost::Down => &dropped.down,
            Lost::Failed => &dropped.failed,
        };
        let news = publications.iter().filter(|(channel, _)| is_news(channel));
        let lost = (news.count() as u64).saturating_sub(confirmed);
        self.load.note_dropped(lost, counter);
    }
}

/// Why publications are given up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lost {
    /// There is no connection.
    Down,
    /// Redis refused them, or did not confirm them in time.
    Failed,
}

#[cfg(test)]
mod tests {
    use rookery_protocol::UserId;
    use uuid::Uuid;

    use super::*;

    fn channel() -> Channel {
        Channel::User(UserId::from_uuid(Uuid::from_u128(1)))
    }

    #[tokio::test]
    async fn what_is_settled_makes_room_and_what_was_lost_is_told() {
        let (queue, mut waiting) = queue();
        for _ in 0..3 {
            queue.push(channel(), Bytes::from_static(b"news"));
        }
        queue.push(Channel::Node("n1".into()), Bytes::from_static(b"canary"));
        let mut batch = Vec::new();
        assert_eq!(waiting.take(&mut batch, 2).await, 2);
        assert_eq!((queue.count(), queue.bytes()), (2, 18));
        waiting.settle(&batch, 2, Lost::Failed);
        assert!(!queue.take_dropped());
        assert_eq!(queue.bytes(), 10);
        batch.clear();
        waiting.take(&mut batch, 1).await;
        waiting.settle(&batch, 0, Lost::Down);
        assert!(queue.take_dropped());
        batch.clear();
        waiting.take(&mut batch, 1).await;
        waiting.settle(&batch, 0, Lost::Down);
        assert!(!queue.take_dropped(), "a canary is no news");
        assert_eq!((queue.count(), queue.bytes()), (0, 0));
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
