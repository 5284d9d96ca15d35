//! Carries the plan out: each fault begins, holds and is healed.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::measure::lock;
use crate::plan::{Plan, Planned};
use crate::world::World;

/// How far it has come.
#[derive(Default)]
pub(crate) struct Nemesis {
    state: Mutex<State>,
}

#[derive(Clone, Default)]
pub(crate) struct State {
    /// Begun and healed, by kind.
    pub(crate) survived: BTreeMap<&'static str, u64>,
    pub(crate) present: Vec<&'static str>,
    /// Faults that could not be carried out as planned, and what went wrong.
    pub(crate) failed: Vec<String>,
}

impl Nemesis {
    pub(crate) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Begins rounds until `end`, or until stopped; returns when the last one is healed.
    pub(crate) async fn run(
        &self,
        world: &World,
        plan: Plan,
        end: Instant,
        stop: &CancellationToken,
    ) {
        for round in plan {
            if stop.is_cancelled() || Instant::now() >= end {
                return;
            }
            let faults = round.faults.iter();
            join_all(faults.map(|fault| self.strike(world, fault, stop))).await;
            pause(round.rest, stop).await;
        }
    }

    async fn strike(&self, world: &World, fault: &Planned, stop: &CancellationToken) {
        pause(fault.delay, stop).await;
        let name = fault.kind.name;
        let what = format!("victim {}, for {:?}", fault.victim.0, fault.hold);
        let id = world.recorder.fault_began(name, &what);
        let measure = world.measure_of(fault.kind);
        let span = measure.fault_began(name);
        lock(&self.state).present.push(name);
        let begun = guarded((fault.kind.begin)(world, fault.victim)).await;
        pause(fault.hold, stop).await;
        // Healed whatever became of the begin: half of it may have happened.
        let healed = guarded((fault.kind.heal)(world, fault.victim)).await;
        measure.fault_ended(span);
        world.recorder.fault_ended(id);
        let mut state = lock(&self.state);
        if let Some(place) = state.present.iter().position(|present| *present == name) {
            state.present.remove(place);
        }
        match begun.and(healed) {
            Ok(()) => *state.survived.entry(name).or_default() += 1,
            Err(error) => state.failed.push(format!("{name}: {error:#}")),
        }
    }
}

/// Waits, but not for longer than the run.
async fn pause(time: std::time::Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(time) => {}
    }
}

/// What a test would panic about is here one fault that did not go as planned.
async fn guarded(act: LocalBoxFuture<'_, Result<()>>) -> Result<()> {
    let outcome = AssertUnwindSafe(act).catch_unwind().await;
    outcome.unwrap_or_else(|panic| Err(anyhow!("{}", words_of(&*panic))))
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}
