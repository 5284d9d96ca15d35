//! Waiting for what cannot be awaited.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a test waits for what should come at once. Nothing is timed by it: only a failing test
/// ever waits this long, and a busy machine may.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Asks again and again until the answer is yes.
///
/// # Panics
/// With `what`, when the answer is still no after [`PATIENCE`].
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(LOOK_EVERY).await;
    }
}
