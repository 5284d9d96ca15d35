//! Token buckets, so many a second on average, so many at once; and those of one socket.

use std::time::{Duration, Instant};

use crate::error::AppError;
use crate::metrics;

/// See the module. One owner; 32 bytes.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second: f64::from(per_second.max(1)),
            burst,
            tokens: burst,
            filled_at: now,
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// There is none: how long to wait for it.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        self.tokens = (self.tokens + since * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - self.tokens) / self.per_second,
        ))
    }
}

/// What one socket may ask for, each with a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Sends, edits, deletions, reactions.
    Messages,
    Typing,
    /// Delivered and read marks.
    Marks,
    /// Watching and setting of presence, watching of conversations.
    Presence,
}

/// Typing is repeated every few seconds, in one conversation at a time.
const TYPING: (u32, u32) = (5, 20);
/// A client that returns marks all its conversations; marks are merged before they cost anything.
const MARKS: (u32, u32) = (200, 2_000);
/// Scrolling through a list of people.
const PRESENCE: (u32, u32) = (10, 50);

/// The buckets of one socket. Those beside messages are made when they are first needed: most
/// sockets idle.
#[derive(Debug)]
pub struct Rates {
    messages: Option<TokenBucket>,
    others: Option<Box<[TokenBucket; 3]>>,
}

impl Rates {
    /// Full buckets: of messages so many a second and at once, the others as they are here; `None`
    /// limits nothing.
    #[must_use]
    pub fn new(messages: Option<(u32, u32)>, now: Instant) -> Self {
        let bucket = |(per_second, burst)| TokenBucket::new(per_second, burst, now);
        Self {
            messages: messages.map(bucket),
            others: None,
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with how long to wait.
    pub fn take(&mut self, bucket: Bucket) -> Result<(), AppError> {
        let now = Instant::now();
        let Some(messages) = &mut self.messages else {
            return Ok(());
        };
        let limited = metrics::rate_limited_total();
        let others = || {
            let new = |(per_second, burst)| TokenBucket::new(per_second, burst, now);
            Box::new([new(TYPING), new(MARKS), new(PRESENCE)])
        };
        let (bucket, counter) = match bucket {
            Bucket::Messages => (messages, &limited.messages),
            Bucket::Typing => (
                &mut self.others.get_or_insert_with(others)[0],
                &limited.typing,
            ),
            Bucket::Marks => (
                &mut self.others.get_or_insert_with(others)[1],
                &limited.marks,
            ),
            Bucket::Presence => (
                &mut self.others.get_or_insert_with(others)[2],
                &limited.presence,
            ),
        };
        bucket.take(now).map_err(|wait| {
            counter.increment(1);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            AppError::rate_limited(wait_ms)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3, start);
        assert!((0..3).all(|_| bucket.take(start).is_ok()));
        let wait = bucket.take(start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(bucket.take(start + wait).is_ok());
        assert!(bucket.take(start + wait).is_err());
    }
}
