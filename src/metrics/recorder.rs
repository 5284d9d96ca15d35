//! The process's one recorder.

use std::sync::LazyLock;
use std::time::Duration;

use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::lifecycle::Tasks;

/// Seconds, from half a millisecond (below it the network's noise begins) to the longest time-out.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];
/// Messages in a batch, of which 128 is the cap, or members' marks, of which 1,000 is.
const BATCH: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_000.0,
];

/// Histograms keep their samples until they are sorted into buckets. A second of a busy node is
/// some 100,000 samples, a megabyte.
const UPKEEP: Duration = Duration::from_secs(1);

/// Made at the first use, by whoever comes first, so that no handle is ever got too early; nodes
/// that share a process share it.
pub(super) fn recorder() -> &'static PrometheusRecorder {
    static RECORDER: LazyLock<PrometheusRecorder> = LazyLock::new(|| {
        let builder = PrometheusBuilder::new();
        // Setting buckets fails only for an empty list.
        let builder = match builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_size".into()), &BATCH))
        {
            Ok(builder) => builder,
            Err(error) => {
                tracing::error!(%error, "histograms have no buckets");
                PrometheusBuilder::new()
            }
        };
        builder.build_recorder()
    });
    &RECORDER
}

/// Sorts samples into buckets until the node stops.
pub fn spawn_upkeep(tasks: &Tasks, handle: PrometheusHandle) {
    let stopping = tasks.stopping().clone();
    tasks.spawn("metrics upkeep", async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => handle.run_upkeep(),
                () = stopping.cancelled() => return,
            }
        }
    });
}
