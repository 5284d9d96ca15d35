//! All sockets of this node are sent away to come back and resume: what was passed on to them cannot
//! be compared with the store any more.

use std::sync::Arc;

use super::super::DeliveryParts;
use crate::metrics;

/// Sockets that leave in a second: as many as a node lets in.
const PER_SECOND: usize = 2_000;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The database is another incarnation: positions may be beyond its logs' ends, and would hide
    /// what is written there next.
    SetBack,
    /// The journal was not read for so long that rows of it may be gone.
    Blind,
}

/// Closes the sockets that are here now, in a task of its own.
pub(super) fn all(parts: &DeliveryParts, reason: Reason) {
    let registry = Arc::clone(&parts.registry);
    let sockets = registry.socket_count();
    tracing::warn!(?reason, sockets, "all sockets have to resume");
    let resumes = metrics::forced_resumes_total();
    match reason {
        Reason::SetBack => resumes.set_back.increment(1),
        Reason::Blind => resumes.blind.increment(1),
    }
    parts.tasks.spawn("forced-resume", async move {
        registry.resume_all(PER_SECOND).await;
    });
}
