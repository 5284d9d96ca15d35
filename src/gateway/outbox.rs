//! What waits to be written to one socket, bounded by count and bytes. A full outbox is a verdict
//! about the reader, not a reason to wait: the socket is closed with a code that says "come back
//! and resume". Only what is read from the store waits for room, since there it can. No entry of a
//! log is ever skipped; only what is worthless late, or told again by a later frame, may be
//! ([`Lane`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use rookery_protocol::CloseCode;
use tokio::sync::Notify;

use super::backlog::{Backlog, Share};
use super::frame::Frame;
use crate::failpoint::{self, Failpoint};
use crate::metrics;

/// Frames that may wait: two seconds of a busy group for a reader on a bad link.
const FRAMES_MAX: usize = 4_096;
/// Bytes that may wait: the memory one slow reader can cost.
const BYTES_MAX: usize = 1024 * 1024;
/// Bytes handed to the socket's task at once. What it has taken is copied and no longer shared with
/// other sockets, so a slow reader is given little at a time.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// A paced writer (a sync, or a fill that found no room) goes on below this, so that live frames still
/// find room.
const PACED_FRAMES: usize = 64;
const PACED_BYTES: usize = 256 * 1024;

/// Frames that may be left out when a reader has too much to read already. Everything else is never
/// skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Worth nothing late: typing. Given up first.
    Ephemeral,
    /// Told again by a later frame, or by what is fetched later: receipts, presence.
    Latest,
}

impl Lane {
    /// How much of an outbox may be filled, as a divisor, for such a frame still to find room.
    fn part(self) -> usize {
        match self {
            Self::Ephemeral => 4,
            Self::Latest => 2,
        }
    }

    fn count_shed(self) {
        let shed = metrics::outbox_shed_total();
        match self {
            Self::Ephemeral => shed.ephemeral.increment(1),
            Self::Latest => shed.latest.increment(1),
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    Queued,
    /// Dropped, since the reader has too much to read already for this to matter.
    Shed,
    /// The reader is too slow, or the socket is closing already.
    Closed,
}

/// What the socket's task has to do next.
#[derive(Debug)]
pub enum Next {
    Write(VecDeque<Frame>),
    Close(CloseCode),
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    share: Share,
    close: Option<CloseCode>,
    /// Of the socket's task, while it waits for something to do.
    waiting: Option<Waker>,
}

/// See the module. Pushed from anywhere, emptied by the one task that owns the socket.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    emptied: Notify,
    node: Arc<Backlog>,
}

impl Outbox {
    /// An empty one of a node with this backlog.
    #[must_use]
    pub fn new(node: Arc<Backlog>) -> Self {
        Self {
            queue: Mutex::default(),
            emptied: Notify::new(),
            node,
        }
    }

    /// Queues a frame, or closes the socket if there is no room for it.
    pub fn push(&self, frame: Frame) -> Push {
        let mut queue = self.lock();
        if queue.close.is_some() {
            return Push::Closed;
        }
        if self.is_too_slow(&mut queue, frame.len()) {
            self.give_up(&mut queue);
            queue.close = Some(CloseCode::TooSlow);
            wake(queue);
            self.emptied.notify_waiters();
            return Push::Closed;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        wake(queue);
        Push::Queued
    }

    /// Whether a reader lacks the room for so many bytes more, and why.
    fn is_too_slow(&self, queue: &mut Queue, bytes: usize) -> bool {
        let all = queue.bytes + bytes;
        let slow = metrics::slow_readers_total();
        let cause = if queue.frames.len() >= FRAMES_MAX {
            &slow.frames
        } else if all > BYTES_MAX {
            &slow.bytes
        } else if !self.node.grow(&mut queue.share, all) {
            &slow.node
        } else {
            return false;
        };
        if failpoint::leaves_out(Failpoint::OutboxUnbounded) {
            return false;
        }
        cause.increment(1);
        true
    }

    /// Queues a frame that may be left out, unless the outbox is filled too far for its lane: the
    /// rest is for log entries, and no reader is closed for such a frame.
    pub fn offer(&self, lane: Lane, frame: Frame) -> Push {
        let mut queue = self.lock();
        if queue.close.is_some() {
            return Push::Closed;
        }
        let all = queue.bytes + frame.len();
        if queue.frames.len() >= FRAMES_MAX / lane.part() || all > BYTES_MAX / lane.part() {
            drop(queue);
            lane.count_shed();
            return Push::Shed;
        }
        queue.bytes = all;
        queue.frames.push_back(frame);
        wake(queue);
        Push::Queued
    }

    /// Whether a fill, which could push a whole step of entries at once, may push one more: the other
    /// half is for what comes live. True of a socket that is closing, which needs no room.
    pub fn has_room(&self) -> bool {
        let queue = self.lock();
        let fits = queue.frames.len() < FRAMES_MAX / 2 && queue.bytes < BYTES_MAX / 2;
        fits || queue.close.is_some()
    }

    /// Queues a frame once the reader has taken most of what is there.
    pub async fn push_paced(&self, frame: Frame) -> Push {
        match self.room().await {
            Push::Closed => Push::Closed,
            Push::Queued | Push::Shed => self.push(frame),
        }
    }

    /// Waits until the reader has taken most of what is there; `Closed` if it never will.
    pub async fn room(&self) -> Push {
        loop {
            let emptied = self.emptied.notified();
            {
                let queue = self.lock();
                if queue.close.is_some() {
                    return Push::Closed;
                }
                if queue.frames.len() < PACED_FRAMES && queue.bytes < PACED_BYTES {
                    return Push::Queued;
                }
            }
            emptied.await;
        }
    }

    /// Closes the socket with this code, after what is queued; at once if the code tells the client
    /// to stop, since it must not be told anything more. The first code counts.
    pub fn close(&self, code: CloseCode) {
        let mut queue = self.lock();
        if queue.close.is_none() {
            queue.close = Some(code);
            if is_sudden(code) {
                self.give_up(&mut queue);
            }
        }
        wake(queue);
        self.emptied.notify_waiters();
    }

    /// Whether a close was asked for.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.lock().close.is_some()
    }

    /// Waits for something to do. While the socket's task is `busy` writing that is only a close
    /// that does not wait for it. Cancel-safe: what is returned was taken, nothing else is.
    pub async fn next(&self, busy: bool) -> Next {
        poll_fn(|cx| match self.take(busy) {
            Ok(next) => Poll::Ready(next),
            Err(mut queue) => {
                match &mut queue.waiting {
                    Some(waiting) => waiting.clone_from(cx.waker()),
                    waiting => *waiting = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        })
        .await
    }

    /// What there is to do at once, as for [`Self::next`].
    pub fn now(&self, busy: bool) -> Option<Next> {
        self.take(busy).ok()
    }

    /// Takes what is queued, for tests without a socket.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> VecDeque<Frame> {
        match self.now(false) {
            Some(Next::Write(frames)) => frames,
            _ => VecDeque::new(),
        }
    }

    /// What there is to do, or the queue, to wait at.
    fn take(&self, busy: bool) -> Result<Next, MutexGuard<'_, Queue>> {
        let mut queue = self.lock();
        if busy || queue.frames.is_empty() {
            let code = queue.close.filter(|code| !busy || is_sudden(*code));
            return code.map(Next::Close).ok_or(queue);
        }
        let frames = if queue.bytes <= CHUNK_BYTES {
            queue.bytes = 0;
            std::mem::take(&mut queue.frames)
        } else {
            chunk(&mut queue)
        };
        let left = queue.bytes;
        self.node.shrink(&mut queue.share, left);
        drop(queue);
        self.emptied.notify_waiters();
        Ok(Next::Write(frames))
    }

    /// Drops what is queued.
    fn give_up(&self, queue: &mut Queue) {
        queue.frames = VecDeque::new();
        queue.bytes = 0;
        self.node.shrink(&mut queue.share, 0);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic between two assignments leaves a queue that is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let node = Arc::clone(&self.node);
        node.shrink(&mut self.lock().share, 0);
    }
}

/// Lets go of the queue and wakes the socket's task, if it waits.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let waiting = queue.waiting.take();
    drop(queue);
    if let Some(waiting) = waiting {
        waiting.wake();
    }
}

/// Takes as many frames as are written at once, at least one.
fn chunk(queue: &mut Queue) -> VecDeque<Frame> {
    let mut taken = VecDeque::new();
    let mut bytes = 0;
    while let Some(frame) = queue.frames.front()
        && (taken.is_empty() || bytes + frame.len() <= CHUNK_BYTES)
    {
        bytes += frame.len();
        taken.extend(queue.frames.pop_front());
    }
    queue.bytes -= bytes;
    taken
}

/// Whether a close with this code overtakes what is queued: the client is to stop, or does not read.
fn is_sudden(code: CloseCode) -> bool {
    matches!(
        code,
        CloseCode::Unauthenticated | CloseCode::Forbidden | CloseCode::TooSlow
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(Arc::default())
    }

    fn frame(bytes: usize) -> Frame {
        Frame::Binary(vec![0; bytes].into())
    }

    async fn written(outbox: &Outbox) -> usize {
        match outbox.next(false).await {
            Next::Write(frames) => frames.iter().map(Frame::len).sum(),
            Next::Close(code) => panic!("closed with {code:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken() {
        type Happens = fn(&Outbox);
        let happens: [(bool, Happens); 5] = [
            (false, |outbox| {
                assert_eq!(outbox.push(frame(1)), Push::Queued)
            }),
            (false, |outbox| {
                assert_eq!(outbox.offer(Lane::Latest, frame(1)), Push::Queued)
            }),
            (false, |outbox| outbox.close(CloseCode::ServiceRestart)),
            (true, |outbox| outbox.close(CloseCode::Forbidden)),
            (true, |outbox| {
                while outbox.push(frame(BYTES_MAX / 2)) != Push::Closed {}
            }),
        ];
        for (number, (busy, happens)) in happens.into_iter().enumerate() {
            let outbox = Arc::new(outbox());
            let waiting = Arc::clone(&outbox);
            let mut task = tokio::task::JoinSet::new();
            task.spawn(async move { waiting.next(busy).await });
            tokio::task::yield_now().await;
            happens(&outbox);
            let second = std::time::Duration::from_secs(1);
            let woken = tokio::time::timeout(second, task.join_next()).await;
            assert!(woken.is_ok(), "{number}");
        }
    }

    #[tokio::test]
    async fn what_was_queued_is_written_before_the_close() {
        let outbox = outbox();
        assert_eq!(outbox.push(frame(1)), Push::Queued);
        outbox.close(CloseCode::ServiceRestart);
        outbox.close(CloseCode::Abuse);
        assert_eq!(outbox.push(frame(1)), Push::Closed);
        assert_eq!(written(&outbox).await, 1);
        assert!(matches!(
            outbox.next(false).await,
            Next::Close(CloseCode::ServiceRestart)
        ));
    }

    #[tokio::test]
    async fn one_whose_session_has_ended_is_told_nothing_more() {
        let outbox = outbox();
        outbox.push(frame(1));
        outbox.close(CloseCode::Unauthenticated);
        for busy in [true, false] {
            assert!(matches!(
                outbox.next(busy).await,
                Next::Close(CloseCode::Unauthenticated)
            ));
        }
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_is_closed_by_bytes_and_by_count() {
        for (size, fits) in [(BYTES_MAX / 2, 2), (1, FRAMES_MAX)] {
            let outbox = outbox();
            for _ in 0..fits {
                assert_eq!(outbox.push(frame(size)), Push::Queued);
            }
            assert_eq!(outbox.push(frame(size)), Push::Closed);
            assert!(matches!(
                outbox.next(true).await,
                Next::Close(CloseCode::TooSlow)
            ));
        }
    }

    #[tokio::test]
    async fn what_may_be_shed_is_shed_in_order_before_a_reader_is_closed() {
        for size in [BYTES_MAX / 64, 1] {
            let outbox = outbox();
            let fill = |lane| {
                let mut count = 0;
                while outbox.offer(lane, frame(size)) == Push::Queued {
                    count += 1;
                }
                count
            };
            let quarter = fill(Lane::Ephemeral);
            assert_eq!(fill(Lane::Latest), quarter, "as many again");
            assert_eq!(fill(Lane::Ephemeral), 0);
            assert_eq!(outbox.push(frame(size)), Push::Queued);
            assert!(!outbox.is_closing());
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_given_little_at_a_time() {
        let outbox = outbox();
        for _ in 0..10 {
            outbox.push(frame(CHUNK_BYTES / 4));
        }
        outbox.push(frame(3 * CHUNK_BYTES));
        outbox.push(frame(1));
        assert_eq!(written(&outbox).await, CHUNK_BYTES);
        assert_eq!(written(&outbox).await, CHUNK_BYTES);
        assert_eq!(written(&outbox).await, CHUNK_BYTES / 2);
        assert_eq!(written(&outbox).await, 3 * CHUNK_BYTES, "one at least");
        assert_eq!(written(&outbox).await, 1);
    }

    #[tokio::test]
    async fn a_paced_writer_waits_for_the_reader() {
        let outbox = outbox();
        outbox.push(frame(PACED_BYTES));
        let paced = outbox.push_paced(frame(1));
        tokio::pin!(paced);
        tokio::select! {
            biased;
            _ = &mut paced => panic!("there is no room yet"),
            next = outbox.next(false) => assert!(matches!(next, Next::Write(_))),
        }
        assert_eq!(paced.await, Push::Queued);
    }
}
