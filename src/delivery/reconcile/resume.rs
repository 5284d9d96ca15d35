//! All sockets of this node are sent away to come back and resume: what was passed on to them cannot
//! be compared with the store any more.

use std::time::Duration;

use rookery_protocol::CloseCode;

use super::super::DeliveryParts;
use crate::metrics;

/// Sockets that leave together, and the time between: 2,000 a second, as many as a node lets in.
const PORTION: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The database is another incarnation: positions may be beyond its logs' ends, and would hide
    /// what is written there next.
    SetBack,
    /// The journal was not read for so long that rows of it may be gone.
    Blind,
}

/// Closes the sockets that are here now, in portions, in a task of its own.
pub(super) fn all(parts: &DeliveryParts, reason: Reason) {
    let sessions = parts.registry.all();
    tracing::warn!(
        ?reason,
        sockets = sessions.len(),
        "all sockets have to resume"
    );
    let resumes = metrics::forced_resumes_total();
    match reason {
        Reason::SetBack => resumes.set_back.increment(1),
        Reason::Blind => resumes.blind.increment(1),
    }
    parts.tasks.spawn("forced-resume", async move {
        for portion in sessions.chunks(PORTION) {
            for session in portion {
                session.close(CloseCode::Resynchronise);
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
}
