//! Memory that has settled: what a burst of connects or a hashed password leaves with a process for
//! some seconds is not what its connections need.

use std::time::{Duration, Instant};

use crate::meter::{GATEWAY, Meter};
use crate::progress;
use crate::report::Run;

/// Memory that stayed as it is for so long counts as settled. Longer than a thread lives that hashed
/// a password and has nothing to do any more: ten seconds, and its 19 MiB with it.
const FLAT: Duration = Duration::from_secs(12);
/// Memory that never settles is reported all the same, with a note.
const PATIENCE: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_secs(1);
/// What may change meanwhile: the least, and for each connection that is measured.
const LEAST_BYTES: u64 = 64 * 1_024;
const BYTES_PER_CONNECTION: u64 = 256;

/// The nodes' memory, looked at every second.
#[derive(Debug)]
pub(crate) struct Steady<'a> {
    meter: &'a Meter,
    tolerance: u64,
    patience: Duration,
    begun: Instant,
    /// When, since it began, and resident bytes.
    seen: Vec<(Duration, u64)>,
}

impl<'a> Steady<'a> {
    /// As steady as the memory of so many connections has to be.
    pub(crate) fn new(meter: &'a Meter, connections: usize) -> Self {
        Self {
            meter,
            tolerance: (connections as u64 * BYTES_PER_CONNECTION).max(LEAST_BYTES),
            patience: PATIENCE,
            begun: Instant::now(),
            seen: vec![(Duration::ZERO, meter.resident(GATEWAY))],
        }
    }

    /// Looks on for so long.
    pub(crate) async fn watch(&mut self, time: Duration, what: &str) {
        let end = Instant::now() + time;
        while let left = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            self.look(left).await;
            let mib = self.seen.last().map_or(0, |(_, bytes)| *bytes) as f64 / 1_048_576.0;
            progress::show(&format!(
                "{what}: nodes have {mib:.1} MiB, {:.0} s left",
                end.saturating_duration_since(Instant::now()).as_secs_f64()
            ));
        }
        progress::end_line();
    }

    /// Resident bytes, once they have been flat for a while. If they never are, the run says so.
    pub(crate) async fn settled(&mut self, notes: &mut Vec<String>) -> u64 {
        let end = Instant::now() + self.patience;
        if !self.is_flat() {
            progress::say(&format!(
                "waiting until memory is flat: {} s at most",
                self.patience.as_secs()
            ));
        }
        while !self.is_flat() && Instant::now() < end {
            self.look(LOOK).await;
        }
        if !self.is_flat() {
            let note = format!(
                "the nodes' memory was not flat for {} s: its figures are of a moment",
                FLAT.as_secs()
            );
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        self.seen.last().map_or(0, |(_, bytes)| *bytes)
    }

    async fn look(&mut self, left: Duration) {
        tokio::time::sleep(LOOK.min(left)).await;
        let bytes = self.meter.resident(GATEWAY);
        self.seen.push((self.begun.elapsed(), bytes));
    }

    fn is_flat(&self) -> bool {
        is_flat(&self.seen, self.tolerance)
    }
}

/// Whether the last looks, over [`FLAT`], differ by no more than that.
fn is_flat(seen: &[(Duration, u64)], tolerance: u64) -> bool {
    let Some((now, _)) = seen.last() else {
        return false;
    };
    // The last look that is so long ago, and all after it.
    let old = |(at, _): &(Duration, u64)| *now - *at >= FLAT;
    let Some(first) = seen.iter().rposition(old) else {
        return false;
    };
    let bytes = || seen[first..].iter().map(|(_, bytes)| *bytes);
    let (least, most) = (bytes().min(), bytes().max());
    most.zip(least)
        .is_some_and(|(most, least)| most - least <= tolerance)
}

/// What each of so many connections added to memory. Memory that shrank meanwhile says nothing of
/// them: then there is no such metric, and a note.
pub(crate) fn put_growth(run: &mut Run, [before, after]: [u64; 2], connections: f64) {
    match after.checked_sub(before) {
        Some(grown) => run.put("kib_per_connection", grown as f64 / connections / 1_024.0),
        None => run.notes.push(format!(
            "kib_per_connection was not measured: with these connections the nodes had {} KiB less \
             than before",
            (before - after) / 1_024
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look a second.
    fn seen(bytes: impl IntoIterator<Item = u64>) -> Vec<(Duration, u64)> {
        let at = |(second, bytes)| (Duration::from_secs(second), bytes);
        (0..).zip(bytes).map(at).collect()
    }

    #[test]
    fn memory_is_flat_when_nothing_has_changed_for_longer_than_a_hash_is_kept() {
        let mib = 1 << 20;
        let hash = [51 * mib; 12].into_iter().chain([32 * mib; 12]);
        let hash: Vec<u64> = hash.collect();
        for (bytes, flat) in [
            (&hash[..12], false),
            (&hash[..13], false),
            (&hash[..], false),
            (&[hash.clone(), vec![32 * mib]].concat()[..], true),
            (&[], false),
            (&[32 * mib; 12], false),
            (&[32 * mib; 13], true),
        ] {
            assert_eq!(
                is_flat(&seen(bytes.to_vec()), 64 * 1_024),
                flat,
                "{bytes:?}"
            );
        }
        let grows = || seen((0..20).map(|second| second * 1_000));
        assert!(is_flat(&grows(), 12_000));
        assert!(!is_flat(&grows(), 11_999), "a slope is not flat");
    }

    #[tokio::test]
    async fn memory_that_never_was_flat_is_noted_once() {
        let meter = Meter::new(Vec::new()).unwrap();
        let mut memory = Steady::new(&meter, 1);
        memory.patience = Duration::ZERO;
        let mut notes = Vec::new();
        memory.settled(&mut notes).await;
        memory.settled(&mut notes).await;
        let [note] = &notes[..] else {
            panic!("{notes:?}")
        };
        assert!(note.contains("was not flat for 12 s"), "{note}");
        memory.seen.push((FLAT, 0));
        notes.clear();
        memory.settled(&mut notes).await;
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn memory_that_shrank_is_no_metric_and_keeps_no_threshold() {
        let mut run = Run::new("idle", "idle");
        put_growth(&mut run, [1_024, 9 * 1_024], 4.0);
        assert_eq!(run.metrics["kib_per_connection"], 2.0);
        let mut run = Run::new("idle", "idle");
        put_growth(&mut run, [51 << 20, 36 << 20], 800.0);
        assert!(run.notes[0].contains("15360 KiB less"), "{:?}", run.notes);
        let bound = "idle.kib_per_connection<=7".parse::<crate::threshold::Threshold>();
        let check = bound.unwrap().check(&[run]);
        assert_eq!((check.value, check.kept), (None, false));
    }
}
