//! Sends publications in pipelines: as many at once as waited while the last were under way.

use std::time::Duration;

use bytes::Bytes;
use fred::prelude::*;
use tokio::sync::mpsc;

use crate::bus::Channel;
use crate::lifecycle::Tasks;
use crate::metrics;

/// Publications in one pipeline; beyond it the first of them would wait for the last.
const PIPELINE_MAX: usize = 512;

/// How long a stopping node's publisher waits for something more to tell.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Runs until the node stops and the queue is empty.
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
            () = last_word(&tasks) => return,
        };
        if received == 0 {
            return;
        }
        publish(&client, &mut batch).await;
    }
}

/// The last commits of a stopping node are still to be told.
async fn last_word(tasks: &Tasks) {
    tasks.stopping().cancelled().await;
    tokio::time::sleep(LAST_WORD).await;
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
