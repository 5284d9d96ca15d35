//! Sends publications in pipelines: as many at once as waited while the last were under way.

use bytes::Bytes;
use fred::prelude::*;
use tokio::sync::mpsc;

use crate::bus::Channel;
use crate::lifecycle::Tasks;
use crate::metrics;

/// Publications in one pipeline; beyond it the first of them would wait for the last.
const PIPELINE_MAX: usize = 512;

/// Runs until all that publish have stopped and the queue is empty.
pub(super) async fn run(
    client: Client,
    mut waiting: mpsc::Receiver<(Channel, Bytes)>,
    tasks: Tasks,
) {
    let mut batch = Vec::with_capacity(PIPELINE_MAX);
    loop {
        let received = tokio::select! {
            biased;
            received = waiting.recv_many(&mut batch, PIPELINE_MAX) => received,
            () = tasks.stopping_late().cancelled() => return,
        };
        if received == 0 {
            return;
        }
        publish(&client, &mut batch).await;
    }
}

async fn publish(client: &Client, batch: &mut Vec<(Channel, Bytes)>) {
    let count = batch.len() as u64;
    if !client.is_connected() {
        batch.clear();
        metrics::bus_publish_dropped_total().increment(count);
        return;
    }
    let pipeline = client.pipeline();
    for (channel, payload) in batch.drain(..) {
        // Queues only; the pipeline is sent below.
        let queued: Result<(), Error> = pipeline.publish(channel.name(), payload).await;
        if let Err(error) = queued {
            tracing::debug!(%error, "a publication could not be queued");
        }
    }
    match pipeline.all::<Value>().await {
        Ok(_) => metrics::bus_published_total().increment(count),
        Err(error) => {
            metrics::bus_publish_dropped_total().increment(count);
            tracing::debug!(%error, count, "publishing failed; the store repairs it");
        }
    }
}
