//! What waits to be written to one socket, bounded by count and bytes. A full outbox is a verdict
//! about the reader, not a reason to wait: the socket is closed with a code that says "come back
//! and resume". No entry of a log is ever skipped; only what is worthless late may be
//! ([`Outbox::push_unless_busy`]).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rookery_protocol::CloseCode;
use tokio::sync::Notify;

use super::frame::Frame;
use crate::metrics;

/// Frames that may wait: two seconds of a busy group for a reader on a bad link.
const FRAMES_MAX: usize = 4_096;
/// Bytes that may wait: the memory one slow reader can cost.
const BYTES_MAX: usize = 1024 * 1024;
/// A paced writer (sync) goes on below this, so that live frames still find room.
const PACED_FRAMES: usize = 64;
const PACED_BYTES: usize = 256 * 1024;

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
    close: Option<CloseCode>,
}

/// See the module. Pushed from anywhere, emptied by the one task that owns the socket.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    emptied: Notify,
}

impl Outbox {
    /// Queues a frame, or closes the socket if there is no room for it.
    pub fn push(&self, frame: Frame) -> Push {
        let mut queue = self.lock();
        if queue.close.is_some() {
            return Push::Closed;
        }
        if queue.frames.len() >= FRAMES_MAX || queue.bytes + frame.len() > BYTES_MAX {
            metrics::slow_readers_total().increment(1);
            queue.frames = VecDeque::new();
            queue.bytes = 0;
            queue.close = Some(CloseCode::TooSlow);
            drop(queue);
            self.filled.notify_one();
            self.emptied.notify_waiters();
            return Push::Closed;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.filled.notify_one();
        Push::Queued
    }

    /// Queues a frame that is worth nothing late (typing) or is told again by a later one
    /// (receipts), unless the outbox is half full already: the other half is for log entries, and
    /// no reader is closed for such a frame.
    pub fn push_unless_busy(&self, frame: Frame) -> Push {
        let mut queue = self.lock();
        if queue.close.is_some() {
            return Push::Closed;
        }
        if queue.frames.len() >= FRAMES_MAX / 2 || queue.bytes + frame.len() > BYTES_MAX / 2 {
            return Push::Shed;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.filled.notify_one();
        Push::Queued
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

    /// Closes the socket with this code, after what is queued. The first code counts.
    pub fn close(&self, code: CloseCode) {
        let mut queue = self.lock();
        if queue.close.is_none() {
            queue.close = Some(code);
        }
        drop(queue);
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    /// Whether a close was asked for.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.lock().close.is_some()
    }

    /// Waits for something to do. Cancel-safe: what is returned was taken, nothing else is.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.filled.notified().await;
        }
    }

    /// Takes what is queued, for tests without a socket.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> VecDeque<Frame> {
        match self.take() {
            Some(Next::Write(frames)) => frames,
            _ => VecDeque::new(),
        }
    }

    fn take(&self) -> Option<Next> {
        let mut queue = self.lock();
        if queue.frames.is_empty() {
            return queue.close.map(Next::Close);
        }
        queue.bytes = 0;
        let frames = std::mem::take(&mut queue.frames);
        drop(queue);
        self.emptied.notify_waiters();
        Some(Next::Write(frames))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic between two assignments leaves a queue that is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::Binary(vec![0; bytes].into())
    }

    #[tokio::test]
    async fn what_was_queued_is_written_before_the_close() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(frame(1)), Push::Queued);
        outbox.close(CloseCode::ServiceRestart);
        outbox.close(CloseCode::Abuse);
        assert_eq!(outbox.push(frame(1)), Push::Closed);
        assert!(matches!(outbox.next().await, Next::Write(frames) if frames.len() == 1));
        assert!(matches!(
            outbox.next().await,
            Next::Close(CloseCode::ServiceRestart)
        ));
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_is_closed_by_bytes_and_by_count() {
        for (size, fits) in [(BYTES_MAX / 2, 2), (1, FRAMES_MAX)] {
            let outbox = Outbox::default();
            for _ in 0..fits {
                assert_eq!(outbox.push(frame(size)), Push::Queued);
            }
            assert_eq!(outbox.push(frame(size)), Push::Closed);
            assert!(matches!(
                outbox.next().await,
                Next::Close(CloseCode::TooSlow)
            ));
        }
    }

    #[tokio::test]
    async fn what_may_be_shed_is_shed_before_a_reader_is_closed() {
        for (size, fits) in [(BYTES_MAX / 4, 2), (1, FRAMES_MAX / 2)] {
            let outbox = Outbox::default();
            for _ in 0..fits {
                assert_eq!(outbox.push_unless_busy(frame(size)), Push::Queued);
            }
            assert_eq!(outbox.push_unless_busy(frame(size)), Push::Shed);
            assert_eq!(outbox.push(frame(size)), Push::Queued);
            assert!(!outbox.is_closing());
        }
    }

    #[tokio::test]
    async fn a_paced_writer_waits_for_the_reader() {
        let outbox = Outbox::default();
        outbox.push(frame(PACED_BYTES));
        let paced = outbox.push_paced(frame(1));
        tokio::pin!(paced);
        tokio::select! {
            biased;
            _ = &mut paced => panic!("there is no room yet"),
            next = outbox.next() => assert!(matches!(next, Next::Write(_))),
        }
        assert_eq!(paced.await, Push::Queued);
    }
}
