//! What people do: sends at fixed times, whether or not the server keeps up, and some of everything
//! else beside them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::device::{Job, What};
use crate::measure::add;
use crate::world::World;

const TICK: Duration = Duration::from_millis(5);
/// Beside each hundred sends.
const BESIDE: [(What, u32); 4] = [
    (What::Edit, 3),
    (What::React, 4),
    (What::Read, 6),
    (What::Delivered, 3),
];
/// Between two changes of a group's members.
const CHURN: Duration = Duration::from_millis(700);
/// The same while they come and go as fast as they can.
const FAST_CHURN: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(crate) struct Workload {
    fast: AtomicBool,
}

impl Workload {
    pub(crate) fn churn_fast(&self, fast: bool) {
        self.fast.store(fast, Ordering::SeqCst);
    }
}

/// Sends at this rate until stopped.
pub(crate) async fn write(world: &World, seed: u64, rate: f64, stop: &CancellationToken) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut ticks = interval(TICK);
    // What was due while this task was held up is due at once, not never.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (began, mut offered) = (Instant::now(), 0_u64);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        while offered < due {
            offered += 1;
            add(&world.measure.count.offered);
            if !offer(world, &mut dice, What::Send) {
                add(&world.measure.count.skipped);
            }
            for (what, of_hundred) in BESIDE {
                if dice.random_range(0..100) < of_hundred {
                    offer(world, &mut dice, what);
                }
            }
        }
    }
}

fn offer(world: &World, dice: &mut StdRng, what: What) -> bool {
    let device = &world.devices[dice.random_range(0..world.devices.len())];
    let pick = dice.random();
    device.offer(Job { what, pick })
}

/// Changes the members of groups until stopped.
pub(crate) async fn churn(world: &World, seed: u64, stop: &CancellationToken) {
    let mut dice = StdRng::seed_from_u64(seed);
    loop {
        let fast = world.workload.fast.load(Ordering::SeqCst);
        let wait = if fast { FAST_CHURN } else { CHURN };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        match world.rooms.change(dice.random()).await {
            Ok(()) => add(&world.measure.count.memberships),
            Err(error) => world
                .recorder
                .mark(&format!("no change of members: {error:#}")),
        }
    }
}
