//! Limits on guessing: token buckets per client address and per account.
//!
//! A bucket is one number, the time at which it will be full again (the "theoretical arrival time"
//! of GCRA): a request moves it on by the time that one token takes to grow back, and is refused
//! if that led further ahead than a whole burst takes. In memory, so each node counts by itself;
//! a shared one can follow behind [`RateLimits::check`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::error::AppError;
use crate::metrics;

/// One bucket's size and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_minute: u32,
    pub burst: u32,
}

impl Rate {
    #[must_use]
    pub const fn per_minute(per_minute: u32) -> Self {
        Self {
            per_minute,
            burst: per_minute,
        }
    }

    /// Time in which one token grows back, in microseconds: whole milliseconds are too coarse.
    fn interval_us(self) -> i64 {
        60_000_000 / i64::from(self.per_minute.max(1))
    }
}

/// Filled from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct RateOptions {
    /// `rates.enabled`; off for load tests.
    pub enabled: bool,
    pub login_per_account: Rate,
    pub login_per_ip: Rate,
    pub register_per_ip: Rate,
    pub refresh_per_ip: Rate,
}

impl Default for RateOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            login_per_account: Rate::per_minute(10),
            login_per_ip: Rate::per_minute(30),
            register_per_ip: Rate::per_minute(20),
            refresh_per_ip: Rate::per_minute(60),
        }
    }
}

/// What is being limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    LoginOfAccount,
    LoginFrom,
    RegisterFrom,
    RefreshFrom,
}

/// Whose bucket: a fixed size, whatever was sent as a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subject([u8; 16]);

impl Subject {
    /// A client's address. IPv6 by /64, which one subscriber commonly has as a whole.
    #[must_use]
    pub fn ip(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).octets())
            }
        }
    }

    /// An account, by the name it was asked for with: known or not makes no difference.
    #[must_use]
    pub fn account(login: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(login.to_lowercase().as_bytes()).into();
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        Self(half)
    }
}

/// Some 5 MB at most; beyond it a bucket is given up for each new one.
const BUCKETS_MAX: usize = 50_000;
/// Looking through all buckets at each request would let a flood of addresses stall the node.
const PRUNE_AT_MOST_EVERY_US: i64 = 1_000_000;

/// All buckets of this node.
pub struct RateLimits {
    options: RateOptions,
    clock: Clock,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// When each is full again, in microseconds.
    full_at: HashMap<(Limited, Subject), i64>,
    pruned_at: i64,
}

impl RateLimits {
    #[must_use]
    pub fn new(options: RateOptions, clock: Clock) -> Self {
        Self {
            options,
            clock,
            buckets: Mutex::default(),
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until there is one.
    #[expect(
        clippy::unused_async,
        reason = "buckets that nodes share are asked over the network"
    )]
    pub async fn check(&self, limited: Limited, subject: Subject) -> Result<(), AppError> {
        if !self.options.enabled {
            return Ok(());
        }
        let rate = self.rate(limited);
        let now = self.now_us();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets
            .take(limited, subject, rate, now)
            .map_err(|wait_ms| {
                let refused = metrics::rate_limited_total();
                match limited {
                    Limited::LoginOfAccount => refused.account.increment(1),
                    _ => refused.address.increment(1),
                }
                AppError::rate_limited(wait_ms)
            })
    }

    /// Drops the buckets that are full again: they say nothing.
    pub fn prune(&self) {
        let now = self.now_us();
        self.buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .prune(now);
    }

    fn rate(&self, limited: Limited) -> Rate {
        match limited {
            Limited::LoginOfAccount => self.options.login_per_account,
            Limited::LoginFrom => self.options.login_per_ip,
            Limited::RegisterFrom => self.options.register_per_ip,
            Limited::RefreshFrom => self.options.refresh_per_ip,
        }
    }

    fn now_us(&self) -> i64 {
        self.clock.now().as_millis().saturating_mul(1_000)
    }
}

impl Buckets {
    /// Takes a token, or tells the milliseconds until there is one.
    fn take(
        &mut self,
        limited: Limited,
        subject: Subject,
        rate: Rate,
        now: i64,
    ) -> Result<(), u64> {
        let interval = rate.interval_us();
        let burst = interval * i64::from(rate.burst.max(1));
        let key = (limited, subject);
        // Never further ahead than a burst: a clock that was set back locks nobody out for long.
        let full_at = self
            .full_at
            .get(&key)
            .map_or(now, |at| (*at).clamp(now, now + burst));
        let moved = full_at + interval;
        if moved - now > burst {
            let wait_us = moved - now - burst;
            return Err(u64::try_from(wait_us).unwrap_or(0).div_ceil(1_000));
        }
        if self.full_at.len() >= BUCKETS_MAX && !self.full_at.contains_key(&key) {
            self.make_room(now);
        }
        self.full_at.insert(key, moved);
        Ok(())
    }

    fn make_room(&mut self, now: i64) {
        if (now - self.pruned_at).abs() >= PRUNE_AT_MOST_EVERY_US {
            self.prune(now);
        }
        if self.full_at.len() >= BUCKETS_MAX {
            // Any one: whoever commands so many addresses is not held by their buckets anyway.
            if let Some(key) = self.full_at.keys().next().copied() {
                self.full_at.remove(&key);
            }
        }
    }

    fn prune(&mut self, now: i64) {
        self.pruned_at = now;
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() < self.full_at.capacity() / 4 {
            self.full_at.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::{ErrorCode, Timestamp};

    use super::*;

    fn limits(enabled: bool) -> (RateLimits, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_790_000_000_000));
        let options = RateOptions {
            enabled,
            ..RateOptions::default()
        };
        (RateLimits::new(options, clock.clone()), clock)
    }

    fn ip(text: &str) -> Subject {
        Subject::ip(text.parse().unwrap())
    }

    /// Requests let through out of `tries`.
    async fn passed(limits: &RateLimits, limited: Limited, subject: Subject, tries: u32) -> u32 {
        let mut passed = 0;
        for _ in 0..tries {
            passed += u32::from(limits.check(limited, subject).await.is_ok());
        }
        passed
    }

    #[tokio::test]
    async fn a_burst_passes_and_grows_back_evenly() {
        let (limits, clock) = limits(true);
        let ann = Subject::account("Ann");
        assert_eq!(passed(&limits, Limited::LoginOfAccount, ann, 12).await, 10);
        let refused = limits
            .check(Limited::LoginOfAccount, ann)
            .await
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(
            refused.retry_after_ms,
            Some(6_000),
            "10 a minute: one in 6 s"
        );
        clock.advance_millis(5_999);
        let refused = limits
            .check(Limited::LoginOfAccount, ann)
            .await
            .unwrap_err();
        assert_eq!(refused.retry_after_ms, Some(1));
        clock.advance_millis(1);
        assert_eq!(passed(&limits, Limited::LoginOfAccount, ann, 3).await, 1);
        clock.advance_millis(3_600_000);
        assert_eq!(
            passed(&limits, Limited::LoginOfAccount, ann, 30).await,
            10,
            "no more"
        );
    }

    #[tokio::test]
    async fn subjects_and_purposes_have_buckets_of_their_own() {
        let (limits, _clock) = limits(true);
        assert_eq!(
            passed(&limits, Limited::LoginFrom, ip("10.0.0.1"), 40).await,
            30
        );
        assert_eq!(
            passed(&limits, Limited::LoginFrom, ip("10.0.0.2"), 40).await,
            30
        );
        assert_eq!(
            passed(&limits, Limited::RegisterFrom, ip("10.0.0.1"), 40).await,
            20
        );
        assert_eq!(
            passed(&limits, Limited::RefreshFrom, ip("10.0.0.1"), 90).await,
            60
        );
        assert_eq!(
            ip("::ffff:10.0.0.1"),
            ip("10.0.0.1"),
            "a mapped address is the same"
        );
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:1"), "the same /64");
        assert_ne!(ip("2001:db8:0:1::1"), ip("2001:db8:0:2::1"));
        assert_eq!(Subject::account("ANN"), Subject::account("ann"));
    }

    #[tokio::test]
    async fn off_means_off() {
        let (limits, _clock) = limits(false);
        assert_eq!(
            passed(&limits, Limited::LoginFrom, ip("10.0.0.1"), 500).await,
            500
        );
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_locks_nobody_out() {
        let (limits, clock) = limits(true);
        let ann = Subject::account("ann");
        passed(&limits, Limited::LoginOfAccount, ann, 10).await;
        clock.advance_millis(-86_400_000);
        let refused = limits
            .check(Limited::LoginOfAccount, ann)
            .await
            .unwrap_err();
        assert_eq!(refused.retry_after_ms, Some(6_000));
    }

    #[tokio::test]
    async fn buckets_are_bounded_and_full_ones_dropped() {
        let (limits, clock) = limits(true);
        let count = || limits.buckets.lock().unwrap().full_at.len();
        for number in 0..BUCKETS_MAX + 100 {
            let subject = Subject::account(&number.to_string());
            limits
                .check(Limited::LoginOfAccount, subject)
                .await
                .unwrap();
        }
        assert_eq!(count(), BUCKETS_MAX);
        clock.advance_millis(6_000);
        limits.prune();
        assert_eq!(count(), 0);
    }
}
