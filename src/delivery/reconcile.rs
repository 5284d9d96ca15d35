//! Reconciliation: a look into the journal finds what the bus lost and no later entry would reveal.
//!
//! Every 3 s at the most, at once when the bus may have lost something, every second while the bus
//! is away and until three looks found nothing. Whatever moved and was not passed on half a second
//! later (at once, where nothing can be on its way) is read from the store by the conversation's
//! worker. Ended sessions and new memberships ride the journal too: a security event must not hang on
//! Pub/Sub.
//!
//! A look also asks which incarnation of the database it is. When that changed, or the journal
//! cannot tell any more what was missed, no position is to be trusted: all sockets are sent to
//! resume (`resume.rs`).

mod changes;
mod resume;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Delivery, DeliveryParts, Epoch};
use crate::failpoint::{self, Failpoint};
use crate::metrics;
use crate::store::{JournalPosition, Result};
use changes::Changes;
use resume::Reason;

const INTERVAL: Duration = Duration::from_secs(3);
const INTERVAL_WHILE_DOWN: Duration = Duration::from_secs(1);
/// Clean looks after which a bus that came back is trusted again.
const CLEAN_LOOKS: u32 = 3;
/// How long news of a commit may be on its way before it counts as lost. Only saves the store reads
/// of what comes by itself: whatever is told twice is passed on once, by its position.
const GRACE: Duration = Duration::from_millis(500);
/// While the bus is down nothing is on its way. Nor is, once every channel is confirmed on a new
/// connection, what the journal then has: all but the last of it was published before.
const NO_GRACE: Duration = Duration::ZERO;
/// How long a look may take, and how long after looks that took longer: a database that is slow must
/// be able to tell something.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
const LOOK_WITHIN_MAX: Duration = Duration::from_secs(12);
/// Rows of the journal are kept for an hour; a look that is older does not rely on them.
const KEEP: Duration = Duration::from_secs(60 * 60);
/// How often rows beyond that are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// What a reconciler begins with.
pub struct Outset<F, G> {
    /// Of the journal, taken before the first socket.
    pub position: JournalPosition,
    /// The incarnation that the position is of; told to sockets as it changes.
    pub epoch: Arc<Epoch>,
    /// Tells how often it has to look.
    pub bus_is_up: F,
    /// Called when the database was set back: drops what is known of it.
    pub set_back: G,
}

/// See the module.
pub(super) struct Reconciler<F, G> {
    parts: DeliveryParts,
    delivery: Delivery,
    outset: Outset<F, G>,
    clean_looks: u32,
    patience: Duration,
    /// When all was known that had been committed.
    current_at: Instant,
    /// Breaks whose losses no look has told yet.
    breaks: u64,
    /// One of them was of a connection: what was missed meanwhile does not come late.
    lost: bool,
    pruned_at: Instant,
}

/// What a look came to.
enum Looked {
    /// So many conversations and sessions had been missed.
    Found(usize),
    /// There is more to be told at once.
    More,
}

impl<F, G> Reconciler<F, G>
where
    F: Fn() -> bool + Send + Sync + 'static,
    G: Fn() + Send + Sync + 'static,
{
    pub(super) fn new(parts: DeliveryParts, delivery: Delivery, outset: Outset<F, G>) -> Self {
        let now = Instant::now();
        Self {
            parts,
            delivery,
            outset,
            clean_looks: CLEAN_LOOKS,
            patience: LOOK_WITHIN,
            current_at: now,
            breaks: 0,
            lost: false,
            pruned_at: now,
        }
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self) {
        loop {
            let pause = self.step().await;
            metrics::journal_lag_seconds().set(self.current_at.elapsed().as_secs_f64());
            self.prune().await;
            tokio::select! {
                () = self.parts.tasks.stopping().cancelled() => return,
                () = self.delivery.broken.rung() => self.clean_looks = 0,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once, and says how long to wait for the next look.
    async fn step(&mut self) -> Duration {
        let began = Instant::now();
        // What breaks while it looks is for the next look: this one may have read too early.
        let rung = self.delivery.broken.take();
        self.breaks += rung.times;
        self.lost |= rung.lost;
        let looked = self.look().await;
        if looked.is_ok() {
            metrics::reconcile_look_seconds().record(began.elapsed());
        }
        let looks = metrics::reconcile_looks_total();
        match looked {
            Ok(Looked::Found(found)) => {
                looks.ok.increment(1);
                self.patience = LOOK_WITHIN;
                self.current_at = began;
                metrics::breaks_repaired_total().increment(std::mem::take(&mut self.breaks));
                self.lost = false;
                self.clean_looks = match found {
                    0 => self.clean_looks.saturating_add(1),
                    _ => 0,
                };
            }
            Ok(Looked::More) => {
                looks.ok.increment(1);
                self.clean_looks = 0;
                return Duration::ZERO;
            }
            Err(error) => {
                looks.failed.increment(1);
                tracing::warn!(%error, "the journal cannot be read; trying again");
                self.clean_looks = 0;
                if began.elapsed() >= self.patience {
                    self.patience = (self.patience * 2).min(LOOK_WITHIN_MAX);
                }
            }
        }
        let calm = (self.outset.bus_is_up)() && self.clean_looks >= CLEAN_LOOKS;
        if calm { INTERVAL } else { INTERVAL_WHILE_DOWN }
    }

    async fn look(&mut self) -> Result<Looked> {
        if failpoint::leaves_out(Failpoint::ReconcileOff) {
            return Ok(Looked::Found(0));
        }
        // As it is before the journal is read: what comes back meanwhile is for the next look.
        let grace = grace((self.outset.bus_is_up)(), self.lost);
        let store = &self.parts.store;
        let epoch = store.epoch().await?;
        if self.outset.epoch.is_other(&epoch) {
            return self.begin_anew(Reason::SetBack, epoch).await;
        }
        let page = store
            .journal(Some(&self.outset.position), self.patience)
            .await?;
        if page.lost {
            return self.begin_anew(Reason::Blind, epoch).await;
        }
        self.outset.position = page.next;
        let mut found = 0;
        if !page.rows.is_empty() {
            let changes = Changes::of(page.rows);
            tokio::time::sleep(grace).await;
            found = changes.tell(&self.parts, &self.delivery).await;
            metrics::reconcile_found_total().increment(found as u64);
        }
        Ok(if page.more {
            Looked::More
        } else {
            Looked::Found(found)
        })
    }

    /// Nothing that was known about the logs is to be relied on: begins where the journal is now.
    async fn begin_anew(&mut self, reason: Reason, epoch: String) -> Result<Looked> {
        let page = self.parts.store.journal(None, self.patience).await?;
        // What is revoked is in the store, however long ago its row went.
        self.parts.auth.load_revocations().await?;
        self.outset.position = page.next;
        // Before the sockets that are here are looked at: later ones are told the new one.
        self.outset.epoch.set(epoch);
        if reason == Reason::SetBack {
            (self.outset.set_back)();
        }
        resume::all(&self.parts, reason);
        Ok(Looked::Found(0))
    }

    async fn prune(&mut self) {
        if self.pruned_at.elapsed() < PRUNE_INTERVAL {
            return;
        }
        self.pruned_at = Instant::now();
        if let Err(error) = self.parts.store.prune_journal(KEEP).await {
            tracing::warn!(%error, "the journal could not be pruned; trying again later");
        }
    }
}

/// How long to wait for what the journal tells; `lost`: what was missed does not come late.
fn grace(bus_is_up: bool, lost: bool) -> Duration {
    let may_come = bus_is_up && !lost;
    if may_come { GRACE } else { NO_GRACE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_on_its_way_is_waited_for() {
        assert_eq!(grace(true, false), GRACE);
        assert_eq!(grace(true, true), Duration::ZERO, "subscribed anew");
        assert_eq!(grace(false, false), Duration::ZERO, "the bus is away");
    }
}
