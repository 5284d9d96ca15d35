//! What people do: sends at fixed times, whether or not the server keeps up, and some of everything
//! else beside them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::device::{Device, Job, What};
use crate::measure::{Measure, add};
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
    resting: AtomicBool,
}

impl Workload {
    pub(crate) fn churn_fast(&self, fast: bool) {
        self.fast.store(fast, Ordering::SeqCst);
    }

    /// Nobody writes any more, or everybody does again.
    pub(crate) fn rest(&self, resting: bool) {
        self.resting.store(resting, Ordering::SeqCst);
    }
}

/// Who writes, and where that is counted.
#[derive(Clone, Copy)]
pub(crate) struct Writers<'a> {
    pub(crate) devices: &'a [Device],
    pub(crate) measure: &'a Measure,
    pub(crate) workload: &'a Workload,
}

/// Sends at this rate until stopped.
pub(crate) async fn write(who: Writers<'_>, seed: u64, rate: f64, stop: &CancellationToken) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut ticks = interval(TICK);
    // What was due while this task was held up is due at once, not never.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (began, mut offered) = (Instant::now(), 0_u64);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        if who.workload.resting.load(Ordering::SeqCst) {
            offered = due;
        }
        while offered < due {
            offered += 1;
            add(&who.measure.count.offered);
            if !offer(who.devices, &mut dice, What::Send) {
                add(&who.measure.count.skipped);
            }
            for (what, of_hundred) in BESIDE {
                if dice.random_range(0..100) < of_hundred {
                    offer(who.devices, &mut dice, what);
                }
            }
        }
    }
}

fn offer(devices: &[Device], dice: &mut StdRng, what: What) -> bool {
    let device = &devices[dice.random_range(0..devices.len())];
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
