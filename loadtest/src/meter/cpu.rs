//! CPU time by role, whatever happens to its processes meanwhile: what one used counts on when it
//! has ended.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Role;
use super::process::{Key, Process};

/// CPU time of each role since it has been watched.
#[derive(Clone, Debug)]
pub(crate) struct CpuTimes(BTreeMap<String, Duration>);

impl CpuTimes {
    /// Microseconds that each role used since `earlier` for each of so many parts.
    pub(crate) fn micros_per(&self, earlier: &Self, parts: f64) -> BTreeMap<String, f64> {
        let share = |(name, now): (&String, &Duration)| {
            let before = earlier.0.get(name).copied().unwrap_or_default();
            let used = now.saturating_sub(before).as_secs_f64();
            (name.clone(), used * 1_000_000.0 / parts)
        };
        self.0.iter().map(share).collect()
    }

    /// Cores that each role used since `earlier`.
    pub(crate) fn cores(&self, earlier: &Self, seconds: f64) -> BTreeMap<String, f64> {
        self.micros_per(earlier, seconds * 1_000_000.0)
    }
}

/// CPU time of a process in nanoseconds. The kernel forgets a thread's with the thread; that of the
/// process is known in ticks of 10 ms, so no more than two of them are ever missing.
#[derive(Clone, Debug, Default)]
struct Clock {
    running: HashMap<u32, Duration>,
    /// Of threads that ended.
    ended: Duration,
}

impl Clock {
    /// What the process has used, from that of its threads and the ticks of all, ended ones included.
    fn read(&mut self, ticks: Duration, threads: Vec<(u32, Duration)>) -> Duration {
        let mut gone = std::mem::take(&mut self.running);
        for (thread, used) in &threads {
            // Who has used less than before is another one with the same id.
            if gone.get(thread).is_some_and(|before| before <= used) {
                gone.remove(thread);
            }
        }
        self.ended += gone.into_values().sum::<Duration>();
        self.running = threads.into_iter().collect();
        let running: Duration = self.running.values().sum();
        self.ended = self.ended.max(ticks.saturating_sub(running));
        self.ended + running
    }
}

/// A role's process as it was when it was last looked at.
#[derive(Clone, Debug)]
struct Known {
    parent: u32,
    clock: Clock,
    cpu: Duration,
    waited: Duration,
    is_root: bool,
}

/// Adds up what a role's processes use, from look to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    used: Duration,
    known: HashMap<Key, Known>,
    /// Roots that have ended, and not been told of.
    ended: Vec<u32>,
    has_looked: bool,
}

impl Ledger {
    /// Counts what its processes have used since the last look. The first one only sees where they
    /// stand; a process that comes later counts from its begin. `threads` tells of those of a process.
    pub(super) fn look(
        &mut self,
        role: &Role,
        all: &[Process],
        threads: impl Fn(u32) -> Vec<(u32, Duration)>,
    ) {
        let members = role.members(all, |process| self.knows(process));
        let mut known = HashMap::new();
        // Time that parents have of children that they waited for.
        let mut inherited: HashMap<u32, Duration> = HashMap::new();
        for process in members {
            let before = self.known.remove(&process.key());
            let mut clock = before
                .as_ref()
                .map(|known| known.clock.clone())
                .unwrap_or_default();
            let cpu_now = clock.read(process.cpu, threads(process.pid));
            let (cpu, waited) = match before {
                Some(before) => (before.cpu, before.waited),
                None if self.has_looked => Default::default(),
                None => (cpu_now, process.waited),
            };
            self.used += cpu_now.saturating_sub(cpu);
            // This process's children are other roles.
            if process.pid != std::process::id() {
                let more = process.waited.saturating_sub(waited);
                inherited.insert(process.pid, more);
            }
            let now = Known {
                parent: process.parent,
                clock,
                cpu: cpu_now,
                waited: process.waited.max(waited),
                is_root: role.pids.contains(&process.pid),
            };
            known.insert(process.key(), now);
        }
        // Those that are left have ended. What was counted of them is not counted again.
        let gone: HashMap<u32, Known> =
            self.known.drain().map(|((pid, _), it)| (pid, it)).collect();
        for (pid, one) in &gone {
            let heir = (0..gone.len()).fold(one.parent, |heir, _| {
                gone.get(&heir).map_or(heir, |ancestor| ancestor.parent)
            });
            if let Some(more) = inherited.get_mut(&heir) {
                *more = more.saturating_sub(one.cpu + one.waited);
            }
            if one.is_root {
                self.ended.push(*pid);
            }
        }
        self.used += inherited.into_values().sum::<Duration>();
        self.known = known;
        self.has_looked = true;
    }

    /// Whether it is one of the role's, as of the last look.
    pub(super) fn knows(&self, process: &Process) -> bool {
        self.known.contains_key(&process.key())
    }

    /// Roots that have ended since this was asked last.
    pub(super) fn ended(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.ended)
    }
}

/// What all roles have used so far.
pub(super) fn times(roles: &[Role], ledgers: &[Ledger]) -> CpuTimes {
    let of = |(role, ledger): (&Role, &Ledger)| (role.name.clone(), ledger.used);
    CpuTimes(roles.iter().zip(ledgers).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process with its parent, and milliseconds that it and its dead children used.
    fn process(pid: u32, parent: u32, cpu: u64, waited: u64) -> Process {
        Process {
            pid,
            parent,
            started: u64::from(pid),
            cpu: Duration::from_millis(cpu),
            waited: Duration::from_millis(waited),
        }
    }

    fn role(pids: &[u32]) -> Role {
        Role {
            name: "gateway".into(),
            pids: pids.to_vec(),
        }
    }

    /// Milliseconds used after each of these looks.
    fn looks(role: &Role, looks: &[Vec<Process>]) -> (Vec<u128>, Ledger) {
        let mut ledger = Ledger::default();
        let mut used = Vec::new();
        for all in looks {
            ledger.look(role, all, |_| Vec::new());
            used.push(ledger.used.as_millis());
        }
        (used, ledger)
    }

    #[test]
    fn what_a_process_used_counts_on_when_it_has_ended() {
        let (first, other) = (2_000_010, 2_000_020);
        let (used, mut ledger) = looks(
            &role(&[first, other]),
            &[
                vec![process(first, 1, 5_000, 0), process(other, 1, 4_000, 0)],
                vec![process(first, 1, 5_300, 0), process(other, 1, 4_100, 0)],
                vec![process(other, 1, 4_150, 0)],
                vec![process(other, 1, 4_200, 0)],
            ],
        );
        assert_eq!(used, [0, 400, 450, 500]);
        assert_eq!(ledger.ended(), [first]);
        assert!(ledger.ended().is_empty(), "it is told once");
    }

    #[test]
    fn what_dead_children_used_counts_once_whoever_waited_for_them() {
        let (root, child, grandchild) = (2_000_010, 2_000_020, 2_000_030);
        let (used, mut ledger) = looks(
            &role(&[root]),
            &[
                vec![process(root, 1, 100, 1_000), process(child, root, 50, 0)],
                vec![
                    process(root, 1, 100, 1_000),
                    process(child, root, 50, 0),
                    process(grandchild, child, 70, 0),
                ],
                // It used 10 more before it ended.
                vec![process(root, 1, 100, 1_000), process(child, root, 50, 80)],
                // One came and went unseen; the child has ended too, and used 5 before.
                vec![process(root, 1, 100, 1_000 + 55 + 80 + 7)],
            ],
        );
        assert_eq!(used, [0, 70, 80, 92]);
        assert!(ledger.ended().is_empty(), "only roots are told of");
    }

    #[test]
    fn children_of_a_dead_root_and_a_new_root_still_belong_to_the_role() {
        let (root, child, new) = (2_000_010, 2_000_020, 2_000_030);
        let mut ledger = Ledger::default();
        let mut role = role(&[root]);
        let none = |_| Vec::new();
        ledger.look(
            &role,
            &[process(root, 1, 9, 0), process(child, root, 9, 0)],
            none,
        );
        ledger.look(&role, &[process(child, 1, 19, 0)], none);
        assert_eq!(ledger.used.as_millis(), 10);
        role.pids.push(new);
        ledger.look(
            &role,
            &[process(child, 1, 19, 0), process(new, 1, 30, 0)],
            none,
        );
        assert_eq!(ledger.used.as_millis(), 40);
        // Another process with the old one's id is another process.
        let stranger = Process {
            started: 1,
            ..process(child, 1, 1_000, 0)
        };
        ledger.look(&role, &[stranger, process(new, 1, 30, 0)], none);
        assert_eq!(ledger.used.as_millis(), 40);
    }

    #[test]
    fn a_family_that_ends_at_once_counts_once() {
        let (root, child, grandchild) = (2_000_010, 2_000_020, 2_000_030);
        let (used, _) = looks(
            &role(&[root]),
            &[
                vec![process(root, 1, 0, 0)],
                vec![
                    process(root, 1, 0, 0),
                    process(child, root, 8, 0),
                    process(grandchild, child, 5, 0),
                ],
                vec![process(root, 1, 0, 14)],
            ],
        );
        assert_eq!(used, [0, 13, 14]);
    }

    #[test]
    fn threads_count_in_nanoseconds_and_what_an_ended_one_used_is_not_lost() {
        let (ms, ns) = (Duration::from_millis, Duration::from_nanos);
        let mut clock = Clock::default();
        // One ended before anybody looked.
        let begun = clock.read(ms(500), vec![(1, ms(100)), (2, ms(200))]);
        assert_eq!(begun, ms(500));
        let used = |now: Duration| now - begun;
        let now = clock.read(ms(500), vec![(1, ms(100)), (2, ms(200) + ns(7))]);
        assert_eq!(used(now), ns(7));
        // The second one used much more before it ended, as the ticks say.
        let now = clock.read(ms(700), vec![(1, ms(101))]);
        assert_eq!(used(now), ms(200));
        // A new one with its id.
        let now = clock.read(ms(700), vec![(1, ms(101)), (2, ns(9))]);
        assert_eq!(used(now), ms(200) + ns(9));
        let now = clock.read(ms(700), vec![(1, ms(101)), (2, ns(3))]);
        assert_eq!(used(now), ms(200) + ns(12));
        // Where only ticks are known.
        assert_eq!(Clock::default().read(ms(30), Vec::new()), ms(30));
    }
}
