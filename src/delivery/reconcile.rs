//! Reconciliation: a look into the journal finds what the bus lost and no later entry would reveal.
//!
//! Every 3 s at the most, at once when the bus may have lost something, every second while the bus
//! is away and until three looks found nothing. Whatever moved and was not passed on half a second
//! later is read from the store by the conversation's worker. Ended sessions and new memberships
//! ride the journal too: a security event must not hang on Pub/Sub.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rookery_protocol::{ConversationId, Seq, SessionId, UserId};

use super::{Behind, Delivery, DeliveryParts, Path};
use crate::failpoint::{self, Failpoint};
use crate::metrics;
use crate::store::{JournalPage, JournalPosition, JournalRow, Result};

const INTERVAL: Duration = Duration::from_secs(3);
const INTERVAL_WHILE_DOWN: Duration = Duration::from_secs(1);
/// Clean looks after which a bus that came back is trusted again.
const CLEAN_LOOKS: u32 = 3;
/// How long news of a commit may be on its way before it counts as lost.
const GRACE: Duration = Duration::from_millis(500);
/// While the bus is down nothing is on its way.
const GRACE_WHILE_DOWN: Duration = Duration::from_millis(0);
/// The journal is kept for an hour, see DESIGN of the journal in `docs/ARCHITECTURE.md`.
const KEEP_MS: i64 = 60 * 60 * 1_000;
/// How often rows beyond that are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// Sockets looked at before other tasks get a turn.
const SCAN_CHUNK: usize = 512;

/// See the module.
pub(super) struct Reconciler<F> {
    parts: DeliveryParts,
    delivery: Delivery,
    bus_is_up: F,
    position: JournalPosition,
    clean_looks: u32,
    pruned_at: tokio::time::Instant,
}

/// What a look into the journal says that this node should know by now.
#[derive(Default)]
struct Changes {
    ends: HashMap<ConversationId, Seq>,
    members: Vec<(ConversationId, Vec<UserId>)>,
    revoked: Vec<(UserId, Vec<SessionId>)>,
}

impl<F: Fn() -> bool + Send + Sync + 'static> Reconciler<F> {
    pub(super) fn new(
        parts: DeliveryParts,
        delivery: Delivery,
        position: JournalPosition,
        bus_is_up: F,
    ) -> Self {
        Self {
            parts,
            delivery,
            bus_is_up,
            position,
            clean_looks: CLEAN_LOOKS,
            pruned_at: tokio::time::Instant::now(),
        }
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self) {
        loop {
            match self.look().await {
                Ok(0) => {
                    self.clean_looks = self.clean_looks.saturating_add(1);
                    metrics::reconcile_looks_total().ok.increment(1);
                }
                Ok(_) => {
                    self.clean_looks = 0;
                    metrics::reconcile_looks_total().ok.increment(1);
                }
                Err(error) => {
                    self.clean_looks = 0;
                    metrics::reconcile_looks_total().failed.increment(1);
                    tracing::warn!(%error, "the journal cannot be read; trying again");
                }
            }
            self.prune().await;
            let calm = (self.bus_is_up)() && self.clean_looks >= CLEAN_LOOKS;
            let pause = if calm { INTERVAL } else { INTERVAL_WHILE_DOWN };
            tokio::select! {
                () = self.parts.tasks.stopping().cancelled() => return,
                () = self.delivery.broken.notified() => self.clean_looks = 0,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look. Returns how many conversations and sessions had been missed.
    async fn look(&mut self) -> Result<usize> {
        if failpoint::leaves_out(Failpoint::ReconcileOff) {
            return Ok(0);
        }
        let page = self.parts.store.journal(Some(self.position)).await?;
        self.position = page.next;
        if page.rows.is_empty() {
            return Ok(0);
        }
        let changes = Changes::of(page);
        let grace = if (self.bus_is_up)() {
            GRACE
        } else {
            GRACE_WHILE_DOWN
        };
        tokio::time::sleep(grace).await;
        self.learn(&changes).await;
        let found = self.revoke(&changes) + self.catch_up(&changes).await;
        if found > 0 {
            metrics::reconcile_found_total().increment(found as u64);
        }
        Ok(found)
    }

    fn revoke(&self, changes: &Changes) -> usize {
        let mut found = 0;
        for (user, ended) in &changes.revoked {
            self.parts.auth.revocations.add(ended);
            let of_ended = |s: &&std::sync::Arc<crate::gateway::Session>| {
                ended.contains(&s.session_id) && !s.outbox.is_closing()
            };
            found += self
                .parts
                .registry
                .of(*user)
                .iter()
                .filter(of_ended)
                .count();
            self.parts.registry.revoke(*user, ended);
        }
        found
    }

    /// Tells the workers of memberships that sockets here do not know. Not counted as found: rows
    /// of memberships that ended look the same, and there is nothing to tell of those.
    async fn learn(&self, changes: &Changes) {
        for (conversation_id, user_ids) in &changes.members {
            let unaware = |user: &&UserId| {
                let sessions = self.parts.registry.of(**user);
                sessions.iter().any(|session| {
                    let positions = session.positions();
                    positions.is_based() && positions.get(*conversation_id).is_none()
                })
            };
            let users: Vec<UserId> = user_ids.iter().filter(unaware).copied().collect();
            if !users.is_empty() {
                let target = changes
                    .ends
                    .get(conversation_id)
                    .copied()
                    .unwrap_or(Seq::ZERO);
                self.behind(*conversation_id, users, target).await;
            }
        }
    }

    /// Tells the workers of sockets whose conversations have grown without them.
    async fn catch_up(&self, changes: &Changes) -> usize {
        if changes.ends.is_empty() {
            return 0;
        }
        let mut lacking: HashMap<ConversationId, HashSet<UserId>> = HashMap::new();
        for chunk in self.parts.registry.all().chunks(SCAN_CHUNK) {
            for session in chunk {
                for (id, _) in session.positions().behind(&changes.ends) {
                    lacking.entry(id).or_default().insert(session.user_id);
                }
            }
            tokio::task::yield_now().await;
        }
        let found = lacking.len();
        for (id, users) in lacking {
            let target = changes.ends.get(&id).copied().unwrap_or(Seq::ZERO);
            self.behind(id, users.into_iter().collect(), target).await;
        }
        found
    }

    async fn behind(&self, conversation_id: ConversationId, users: Vec<UserId>, target: Seq) {
        let path = Path::Reconcile;
        let key = *conversation_id.as_bytes();
        let behind = Behind {
            conversation_id,
            users,
            target,
            path,
        };
        let work = super::Work::Behind(behind);
        self.delivery.put_patiently(&key, work).await;
    }

    async fn prune(&mut self) {
        if self.pruned_at.elapsed() < PRUNE_INTERVAL {
            return;
        }
        self.pruned_at = tokio::time::Instant::now();
        let before = self.parts.clock.now().plus_millis(-KEEP_MS);
        if let Err(error) = self.parts.store.prune_journal(before).await {
            tracing::warn!(%error, "the journal could not be pruned; trying again later");
        }
    }
}

impl Changes {
    fn of(page: JournalPage) -> Self {
        let mut changes = Self::default();
        for row in page.rows {
            match row {
                JournalRow::Entries(ends) => {
                    for (id, seq) in ends {
                        let end = changes.ends.entry(id).or_default();
                        *end = seq.max(*end);
                    }
                }
                JournalRow::Members {
                    conversation_id,
                    user_ids,
                } => {
                    changes.members.push((conversation_id, user_ids));
                }
                JournalRow::Revoked {
                    user_id,
                    session_ids,
                } => {
                    changes.revoked.push((user_id, session_ids));
                }
            }
        }
        changes
    }
}
