//! What is counted and timed while the run goes on. The verdict is the oracle's; these are the
//! figures beside it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rookery_protocol::{CloseCode, MessageId};

use crate::faults::clocks;

/// An arrival later than this after its ack is looked at closely: which fault held it up.
const LATE: Duration = Duration::from_millis(100);
/// How long the ack of a message is remembered: beyond any repair, and at 500 messages a second
/// some megabytes.
const REMEMBERED: Duration = Duration::from_secs(180);
/// An access token that is younger has not run out: it lives for 15 min.
const YOUNG: Duration = Duration::from_secs(600);

/// Shared by all devices and the nemesis.
#[derive(Default)]
pub(crate) struct Measure {
    pub(crate) count: Counts,
    acked: Mutex<HashMap<MessageId, Instant>>,
    spans: Mutex<Vec<Span>>,
    worst: Mutex<Worst>,
    /// Refusals for good, by code; connections that were ended for good, by close code.
    pub(crate) refused: Mutex<BTreeMap<String, u64>>,
    stopped: Mutex<BTreeMap<u16, u64>>,
}

#[derive(Default)]
pub(crate) struct Counts {
    /// Sends that were due.
    pub(crate) offered: AtomicU64,
    /// Due, and left out since a device had too many of them waiting.
    pub(crate) skipped: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) edits: AtomicU64,
    pub(crate) reactions: AtomicU64,
    pub(crate) marks: AtomicU64,
    pub(crate) memberships: AtomicU64,
    pub(crate) arrivals: AtomicU64,
    pub(crate) changes: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) resets: AtomicU64,
    /// Access tokens that were refused before they had run out, with their sessions still there.
    pub(crate) refused_tokens: AtomicU64,
    /// The same, of tokens in whose life a node's clock was wrong.
    pub(crate) clock_tokens: AtomicU64,
    /// Connections that were ended since such a token, and the one got for it, were refused.
    pub(crate) clock_ends: AtomicU64,
}

/// The longest times, and during which faults.
#[derive(Clone, Default)]
pub(crate) struct Worst {
    /// From the first attempt of a send to its ack.
    pub(crate) unacked: Duration,
    /// From the ack to the arrival at a device that was connected all the time.
    pub(crate) lag: Duration,
    /// The same, counted from the end of the last fault when that came later than the ack.
    pub(crate) repair: Duration,
    /// From `ready` to having everything that was missed.
    pub(crate) resume: Duration,
    /// From the answer that a session is over to the end of its connection.
    pub(crate) revocation: Duration,
    /// Lag and repair by the kinds of faults that were under way between ack and arrival.
    pub(crate) by_kind: BTreeMap<&'static str, (Duration, Duration)>,
    /// The worst lag of messages that met no fault.
    pub(crate) in_peace: Duration,
}

/// A fault, from its begin to the end of its healing.
struct Span {
    kind: &'static str,
    began: Instant,
    ended: Option<Instant>,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Measure {
    pub(crate) fn fault_began(&self, kind: &'static str) -> usize {
        let mut spans = lock(&self.spans);
        spans.push(Span {
            kind,
            began: Instant::now(),
            ended: None,
        });
        spans.len() - 1
    }

    pub(crate) fn fault_ended(&self, number: usize) {
        if let Some(span) = lock(&self.spans).get_mut(number) {
            span.ended = Some(Instant::now());
        }
    }

    /// A send was acknowledged, so long after it was first tried.
    pub(crate) fn acked(&self, message: MessageId, waited: Duration) {
        add(&self.count.acked);
        lock(&self.acked).insert(message, Instant::now());
        let mut worst = lock(&self.worst);
        worst.unacked = worst.unacked.max(waited);
    }

    /// A message reached a device that has been in step since then.
    pub(crate) fn arrived(&self, message: MessageId, in_step_since: Option<Instant>) {
        add(&self.count.arrivals);
        let now = Instant::now();
        let Some(acked) = lock(&self.acked).get(&message).copied() else {
            return;
        };
        if in_step_since.is_some_and(|since| since < acked) {
            self.lagged(acked, now);
        }
    }

    fn lagged(&self, acked: Instant, now: Instant) {
        let lag = now.saturating_duration_since(acked);
        if lag < LATE {
            return;
        }
        let spans = lock(&self.spans);
        let met: Vec<&Span> = spans
            .iter()
            .rev()
            .filter(|span| span.began < now && span.ended.is_none_or(|ended| ended > acked))
            .collect();
        let healed = met
            .iter()
            .map(|span| span.ended)
            .collect::<Option<Vec<_>>>();
        let repair = healed.map_or(Duration::ZERO, |ends| {
            let last = ends.into_iter().fold(acked, Instant::max);
            now.saturating_duration_since(last)
        });
        let mut worst = lock(&self.worst);
        worst.lag = worst.lag.max(lag);
        if met.is_empty() {
            worst.in_peace = worst.in_peace.max(lag);
        } else {
            worst.repair = worst.repair.max(repair);
        }
        for span in met {
            let (most, after) = worst.by_kind.entry(span.kind).or_default();
            *most = (*most).max(lag);
            *after = (*after).max(repair);
        }
    }

    /// Grows for as long as anything is acknowledged or arrives.
    pub(crate) fn progress(&self) -> u64 {
        let count = &self.count;
        [&count.acked, &count.arrivals, &count.changes]
            .map(|counter| counter.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    /// An access token of this age was refused, and its session is still there.
    pub(crate) fn token_was_refused(&self, age: Duration) {
        if age >= YOUNG {
            return;
        }
        if self.met_wrong_clock(age) {
            add(&self.count.clock_tokens);
        } else {
            add(&self.count.refused_tokens);
        }
    }

    /// A connection with a token of this age was ended for good.
    pub(crate) fn stopped(&self, code: u16, age: Duration) {
        if code == CloseCode::Unauthenticated.code() && self.met_wrong_clock(age) {
            add(&self.count.clock_ends);
        } else {
            *lock(&self.stopped).entry(code).or_default() += 1;
        }
    }

    /// Whether a node's clock was wrong at some time since so long ago: a token from then may be one
    /// of its, or may have been shown to it.
    fn met_wrong_clock(&self, age: Duration) -> bool {
        let since = Instant::now().checked_sub(age);
        let meets = |span: &Span| {
            span.ended
                .is_none_or(|ended| since.is_none_or(|at| ended >= at))
        };
        let spans = lock(&self.spans);
        let mut wrong = spans.iter().filter(|span| span.kind == clocks::NAME);
        wrong.any(meets)
    }

    pub(crate) fn resumed(&self, took: Duration) {
        let mut worst = lock(&self.worst);
        worst.resume = worst.resume.max(took);
    }

    pub(crate) fn revoked(&self, took: Duration) {
        let mut worst = lock(&self.worst);
        worst.revocation = worst.revocation.max(took);
    }

    /// Connections that were ended for good, by close code; without those that a clock explains.
    pub(crate) fn all_stopped(&self) -> BTreeMap<u16, u64> {
        lock(&self.stopped).clone()
    }

    pub(crate) fn worst(&self) -> Worst {
        lock(&self.worst).clone()
    }

    /// Forgets acks from long ago; to be called now and then.
    pub(crate) fn prune(&self) {
        lock(&self.acked).retain(|_, at| at.elapsed() < REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn message() -> MessageId {
        MessageId::from_uuid(Uuid::now_v7())
    }

    #[test]
    fn what_came_late_is_laid_to_the_fault_it_met() {
        let measure = Measure::default();
        let (connected, one) = (Instant::now(), message());
        let fault = measure.fault_began("node-kill");
        measure.acked(one, Duration::from_millis(7));
        std::thread::sleep(LATE);
        measure.fault_ended(fault);
        measure.arrived(one, Some(connected));
        let worst = measure.worst();
        assert!(worst.lag >= LATE && worst.in_peace == Duration::ZERO);
        assert!(worst.repair < LATE, "counted from the healing");
        assert_eq!(worst.by_kind["node-kill"].0, worst.lag);
        assert_eq!(worst.unacked, Duration::from_millis(7));
    }

    #[test]
    fn only_a_token_that_met_a_wrong_clock_is_forgiven() {
        let (measure, young) = (Measure::default(), Duration::from_millis(20));
        let refused = || {
            measure.token_was_refused(young);
            measure.stopped(4001, young);
            measure.stopped(4003, young);
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let count = &measure.count;
            (
                [
                    &count.refused_tokens,
                    &count.clock_tokens,
                    &count.clock_ends,
                ]
                .map(get),
                measure.all_stopped(),
            )
        };
        measure.fault_began("node-kill");
        assert_eq!(refused(), ([1, 0, 0], [(4001, 1), (4003, 1)].into()));
        let skew = measure.fault_began(clocks::NAME);
        assert_eq!(refused(), ([1, 1, 1], [(4001, 1), (4003, 2)].into()));
        measure.fault_ended(skew);
        std::thread::sleep(2 * young);
        assert_eq!(refused(), ([2, 1, 1], [(4001, 2), (4003, 3)].into()));
    }

    #[test]
    fn a_device_that_was_away_is_no_lag() {
        let (measure, one) = (Measure::default(), message());
        measure.acked(one, Duration::ZERO);
        std::thread::sleep(LATE);
        measure.arrived(one, None);
        measure.arrived(one, Some(Instant::now()));
        assert_eq!(measure.worst().lag, Duration::ZERO);
        assert_eq!(measure.count.arrivals.load(Ordering::Relaxed), 2);
    }
}
