//! What the runtime knows of its threads, read when somebody asks.

use tokio::runtime::Handle;

use super::declare::{Kind, Metric};
use super::process::{append, metric};

const WORKERS: Metric = metric(
    "rookery_runtime_workers",
    Kind::Gauge,
    &["Threads that run tasks."],
);
const TASKS: Metric = metric(
    "rookery_runtime_tasks",
    Kind::Gauge,
    &["Tasks that live: one for each socket and connection, and those of the node."],
);
const QUEUED: Metric = metric(
    "rookery_runtime_queue",
    Kind::Gauge,
    &["Tasks that wait for a thread in the queue that all threads share."],
);
const BUSY: Metric = metric(
    "rookery_runtime_busy_seconds_total",
    Kind::Counter,
    &["Time in which threads ran tasks, all threads together."],
);

pub(super) const DECLARED: &[Metric] = &[WORKERS, TASKS, QUEUED, BUSY];

/// Appends the numbers of the runtime that this is called on, in Prometheus' text format.
pub(super) fn render_into(text: &mut String) {
    let Ok(handle) = Handle::try_current() else {
        return;
    };
    let runtime = handle.metrics();
    let workers = runtime.num_workers();
    let busy = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64());
    append(text, &WORKERS, Some(workers as f64));
    append(text, &TASKS, Some(runtime.num_alive_tasks() as f64));
    append(text, &QUEUED, Some(runtime.global_queue_depth() as f64));
    append(text, &BUSY, Some(busy.sum()));
}
