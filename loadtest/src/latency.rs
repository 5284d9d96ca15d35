//! Latencies as histograms: three digits, from a microsecond to a minute; and one with fewer digits
//! for each second, to see how they change while a scenario runs.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Three significant digits: an error of at most 0.1 per cent.
const DIGITS: u8 = 3;
/// Of the seconds: 10 KiB each instead of 70.
const DIGITS_OF_A_SECOND: u8 = 2;
/// A minute; what takes longer counts as this.
const MOST_US: u64 = 60_000_000;
/// Seconds that are kept apart: an hour, far more than any run takes.
const MOST_SECONDS: usize = 3_600;
/// Where the distribution is read, in per cent.
const CURVE: [f64; 14] = [
    0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.99, 100.0,
];

#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    all: Histogram<u32>,
    /// When the first second began: with the first value.
    since: Option<Instant>,
    seconds: Vec<Histogram<u32>>,
}

/// What is reported of a histogram, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Pairs of per cent and milliseconds.
    #[serde(default)]
    pub curve: Vec<(f64, f64)>,
    /// By second, from the first value on.
    #[serde(default)]
    pub over_time: Vec<Second>,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    pub at_s: usize,
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

fn histogram(digits: u8) -> anyhow::Result<Histogram<u32>> {
    Histogram::new_with_bounds(1, MOST_US, digits)
        .map_err(|error| anyhow::anyhow!("no histogram: {error}"))
}

fn ms(histogram: &Histogram<u32>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

impl Latencies {
    /// # Errors
    /// None for these bounds.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            all: histogram(DIGITS)?,
            since: None,
            seconds: Vec::new(),
        })
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MOST_US);
        let micros = micros.clamp(1, MOST_US);
        self.all.saturating_record(micros);
        let now = Instant::now();
        let second = (now - *self.since.get_or_insert(now)).as_secs() as usize;
        if let Some(second) = self.second(second.min(MOST_SECONDS)) {
            second.saturating_record(micros);
        }
    }

    fn second(&mut self, index: usize) -> Option<&mut Histogram<u32>> {
        while self.seconds.len() <= index {
            self.seconds.push(histogram(DIGITS_OF_A_SECOND).ok()?);
        }
        self.seconds.get_mut(index)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Equal bounds always add up.
        let _ = self.all.add(&other.all);
        let Some(theirs) = other.since else { return };
        let mine = *self.since.get_or_insert(theirs);
        // Threads begin within the same second, or nearly.
        let shift = theirs.saturating_duration_since(mine).as_secs() as usize;
        for (index, second) in other.seconds.iter().enumerate() {
            if let Some(sum) = self.second(index + shift) {
                let _ = sum.add(second);
            }
        }
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        let second = |(at_s, second): (usize, &Histogram<u32>)| Second {
            at_s,
            count: second.len(),
            p50_ms: ms(second, 0.5),
            p99_ms: ms(second, 0.99),
            max_ms: second.max() as f64 / 1_000.0,
        };
        let curve = CURVE.map(|percent| (percent, ms(&self.all, percent / 100.0)));
        Quantiles {
            count: self.all.len(),
            p50_ms: ms(&self.all, 0.5),
            p90_ms: ms(&self.all, 0.9),
            p99_ms: ms(&self.all, 0.99),
            p999_ms: ms(&self.all, 0.999),
            max_ms: self.all.max() as f64 / 1_000.0,
            curve: curve.to_vec(),
            over_time: self.seconds.iter().enumerate().map(second).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut one = Latencies::new().unwrap();
        let mut other = Latencies::new().unwrap();
        for millis in 1..=1_000 {
            let half = if millis % 2 == 0 {
                &mut one
            } else {
                &mut other
            };
            half.record(Duration::from_millis(millis));
        }
        one.add(&other);
        let seen = one.quantiles();
        assert_eq!(seen.count, 1_000);
        for (value, wanted) in [
            (seen.p50_ms, 500.0),
            (seen.p99_ms, 990.0),
            (seen.max_ms, 1_000.0),
        ] {
            assert!(
                (value - wanted).abs() <= wanted / 1_000.0,
                "{value} is not {wanted}"
            );
        }
        let counted: u64 = seen.over_time.iter().map(|second| second.count).sum();
        assert_eq!(counted, 1_000, "each value belongs to a second");
    }
}
