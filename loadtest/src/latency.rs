//! Latencies as histograms: three digits, from a microsecond to minutes.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Three significant digits: an error of at most 0.1 per cent.
const DIGITS: u8 = 3;
/// A minute; what takes longer counts as this.
const MOST_US: u64 = 60_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u32>);

/// What is reported of a histogram, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Quantiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Latencies {
    /// # Errors
    /// None for these bounds.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let bounds = Histogram::new_with_bounds(1, MOST_US, DIGITS);
        bounds
            .map(Self)
            .map_err(|error| anyhow::anyhow!("no histogram: {error}"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MOST_US);
        self.0.saturating_record(micros.clamp(1, MOST_US));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Equal bounds always add up.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        let ms = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1_000.0;
        Quantiles {
            count: self.0.len(),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: self.0.max() as f64 / 1_000.0,
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
    }
}
