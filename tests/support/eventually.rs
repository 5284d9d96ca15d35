//! Waiting for what cannot be awaited.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a test waits for what should come at once. Nothing is timed by it: only a failing test
/// ever waits this long, and a busy machine may.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Asks again and again until the answer is yes.
///
/// # Panics
/// With `what`, when the answer is still no after [`PATIENCE`].
pub async fn eventually(what: &str, is_so: impl AsyncFnMut() -> bool) {
    assert!(
        eventually_within(PATIENCE, is_so).await,
        "never happened: {what}"
    );
}

/// Waits until something is so, for as long; whether it became so.
pub async fn eventually_within(patience: Duration, mut is_so: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so().await {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}
