//! Whether the load test itself was what held things up: then its figures are of this machine, and not
//! of the servers.

use crate::latency::Quantiles;
use crate::report::Run;

/// A generator that uses more of its threads' cores has none to spare.
const BUSY: f64 = 0.85;
/// Sends that are later than this share of the latencies are a good part of them.
const LATE: f64 = 0.5;

/// Reports how late sends went out, if they were due at times; and notes it if the generator was the
/// bottleneck: it used so many cores of those that it may use, or its sends were late.
pub(super) fn put(run: &mut Run, late: &Quantiles, cores: f64, threads: usize) {
    let may = std::thread::available_parallelism().map_or(threads, |all| threads.min(all.get()));
    let deliver = run.metrics.get("deliver_p99_ms").copied();
    if late.count > 0 {
        run.put("send_late_p99_ms", late.p99_ms);
    }
    run.notes.extend(busy(cores, may));
    run.notes.extend(tardy(late, deliver));
}

fn busy(cores: f64, may: usize) -> Option<String> {
    (cores > BUSY * may as f64).then(|| {
        format!(
            "THE GENERATOR WAS THE BOTTLENECK: it used {cores:.2} cores of {may} (see --threads)"
        )
    })
}

fn tardy(late: &Quantiles, deliver_p99_ms: Option<f64>) -> Option<String> {
    let deliver = deliver_p99_ms?;
    (late.count > 0 && late.p99_ms > LATE * deliver).then(|| {
        format!(
            "THE GENERATOR WAS THE BOTTLENECK: its sends were up to {:.2} ms late (p99), and \
             deliveries took {deliver:.2} ms (p99) with that",
            late.p99_ms
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(p99_ms: f64) -> Quantiles {
        Quantiles {
            count: 100,
            p99_ms,
            ..Quantiles::default()
        }
    }

    #[test]
    fn a_generator_that_holds_things_up_is_named() {
        assert_eq!(busy(0.84, 1), None);
        assert_eq!(busy(1.6, 2), None);
        assert!(busy(0.86, 1).unwrap().contains("0.86 cores of 1"));
        assert_eq!(tardy(&late(2.0), Some(4.0)), None);
        let note = tardy(&late(2.1), Some(4.0)).unwrap();
        assert!(note.contains("2.10 ms late"), "{note}");
        assert_eq!(tardy(&late(2.1), None), None);
        assert_eq!(
            tardy(&Quantiles::default(), Some(0.0)),
            None,
            "a closed loop"
        );

        let mut run = Run::new("rate", "direct");
        run.put("deliver_p99_ms", 4.0);
        put(&mut run, &late(3.0), 0.1, 1);
        assert_eq!(run.metrics["send_late_p99_ms"], 3.0);
        assert_eq!(run.notes.len(), 1);
        let mut run = Run::new("closed", "direct");
        put(&mut run, &Quantiles::default(), 0.1, 1);
        assert!(run.notes.is_empty() && run.metrics.is_empty());
    }
}
