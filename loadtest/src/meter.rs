//! What processes cost, by role: CPU time and memory as Linux counts them.
//!
//! A role is a set of processes with all their descendants, since PostgreSQL is a family.

mod cpu;
mod process;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, ensure};

use crate::sampler::Gauges;
pub(crate) use cpu::CpuTimes;
use cpu::Ledger;
use process::Process;

/// The role of this process.
pub(crate) const GENERATOR: &str = "generator";
/// The role of the nodes.
pub(crate) const GATEWAY: &str = "gateway";
/// The role of a Redis of one's own.
pub(crate) const REDIS: &str = "redis";

/// A set of processes under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub name: String,
    pub pids: Vec<u32>,
}

impl std::str::FromStr for Role {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wanted = "wanted: NAME=PID[,PID…], for instance gateway=123,124";
        let (name, pids) = text.split_once('=').context(wanted)?;
        let pids: Result<Vec<u32>, _> = pids.split(',').map(str::parse).collect();
        let pids = pids.context(wanted)?;
        ensure!(!name.is_empty() && !pids.is_empty(), wanted);
        Ok(Self {
            name: name.to_owned(),
            pids,
        })
    }
}

impl Role {
    /// Its processes and their descendants, and those that are its own for another reason; of this
    /// process only itself, since it may have started all the others.
    fn members<'a>(
        &self,
        all: &'a [Process],
        is_known: impl Fn(&Process) -> bool,
    ) -> Vec<&'a Process> {
        let mut pids = HashSet::new();
        let known = all.iter().filter(|process| is_known(process));
        let mut next: Vec<u32> = known.map(|process| process.pid).collect();
        next.extend(&self.pids);
        while let Some(pid) = next.pop() {
            if pids.insert(pid) && pid != std::process::id() {
                let children = all.iter().filter(|process| process.parent == pid);
                next.extend(children.map(|process| process.pid));
            }
        }
        let of_role = |process: &&Process| pids.contains(&process.pid);
        all.iter().filter(of_role).collect()
    }
}

/// Watches roles. Clones watch the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    watched: Arc<Mutex<Watched>>,
    /// What the scenario counts, for whoever samples.
    pub gauges: Gauges,
}

#[derive(Debug)]
struct Watched {
    roles: Vec<Role>,
    /// What each role has used, in the order of the roles.
    ledgers: Vec<Ledger>,
    /// Processes that ended, in words.
    ended: Vec<String>,
}

impl Watched {
    fn look(&mut self) -> Vec<Process> {
        let all = process::all();
        for (role, ledger) in self.roles.iter_mut().zip(&mut self.ledgers) {
            ledger.look(role, &all, process::threads);
            for pid in ledger.ended() {
                // Whoever gets its id is somebody else.
                role.pids.retain(|known| *known != pid);
                self.ended
                    .push(format!("a process of {} ended meanwhile: {pid}", role.name));
            }
        }
        all
    }
}

impl Meter {
    /// Watches these roles and this process.
    ///
    /// # Errors
    /// A process that does not exist.
    pub(crate) fn new(mut roles: Vec<Role>) -> anyhow::Result<Self> {
        for role in &roles {
            for pid in &role.pids {
                ensure!(
                    Process::read(*pid).is_some(),
                    "{}: there is no process {pid}",
                    role.name
                );
            }
        }
        roles.push(Role {
            name: GENERATOR.to_owned(),
            pids: vec![std::process::id()],
        });
        let mut watched = Watched {
            ledgers: vec![Ledger::default(); roles.len()],
            roles,
            ended: Vec::new(),
        };
        watched.look();
        Ok(Self {
            watched: Arc::new(Mutex::new(watched)),
            gauges: Gauges::default(),
        })
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, role: &str) -> bool {
        self.watched().roles.iter().any(|known| known.name == role)
    }

    /// These processes are the role's from now on, beside those that it has.
    pub(crate) fn adopt(&self, role: &str, pids: &[u32]) {
        let mut watched = self.watched();
        for known in watched.roles.iter_mut().filter(|known| known.name == role) {
            known.pids.extend(pids);
        }
    }

    /// Processes of roles, not their descendants, that have ended since this was asked last, in words.
    pub(crate) fn ended(&self) -> Vec<String> {
        let mut watched = self.watched();
        watched.look();
        std::mem::take(&mut watched.ended)
    }

    /// CPU time since the roles are watched. What a process used counts on when it has ended, up to
    /// the last look at it; whoever samples looks every second.
    pub(crate) fn cpu(&self) -> CpuTimes {
        let mut watched = self.watched();
        watched.look();
        cpu::times(&watched.roles, &watched.ledgers)
    }

    /// The processes of each role.
    fn members(&self) -> BTreeMap<String, Vec<u32>> {
        let all = process::all();
        let watched = self.watched();
        let of = |(role, ledger): (&Role, &Ledger)| {
            let members = role.members(&all, |process| ledger.knows(process));
            let pids = members.into_iter().map(|process| process.pid);
            (role.name.clone(), pids.collect())
        };
        watched.roles.iter().zip(&watched.ledgers).map(of).collect()
    }

    /// Memory in bytes by role, cheap enough for every second: what is each process's own, and once
    /// what the one that shares most shares.
    pub(crate) fn memory_at_a_glance(&self) -> BTreeMap<String, u64> {
        let of = |pids: Vec<u32>| {
            let shares = pids.into_iter().filter_map(process::shares);
            let sum = shares.fold((0, 0), |(own, shared), (resident, theirs)| {
                (own + resident.saturating_sub(theirs), theirs.max(shared))
            });
            sum.0 + sum.1
        };
        let roles = self.members().into_iter();
        roles.map(|(role, pids)| (role, of(pids))).collect()
    }

    /// Resident memory in bytes, descendants included; shared pages count in each.
    pub(crate) fn resident(&self, role: &str) -> u64 {
        let pids = self.members().remove(role).unwrap_or_default();
        pids.into_iter()
            .map(|pid| process::memory(pid, "Rss:"))
            .sum()
    }

    /// Memory in bytes by role, descendants included, shared pages divided among their users.
    pub(crate) fn memory(&self) -> BTreeMap<String, u64> {
        let of = |pids: Vec<u32>| {
            pids.into_iter()
                .map(|pid| process::memory(pid, "Pss:"))
                .sum()
        };
        let roles = self.members().into_iter();
        roles.map(|(role, pids)| (role, of(pids))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn roles_are_read_from_the_command_line() {
        let role: Role = "gateway=12,13".parse().unwrap();
        assert_eq!(
            role,
            Role {
                name: "gateway".into(),
                pids: vec![12, 13]
            }
        );
        for bad in ["gateway", "gateway=", "=1", "gateway=x"] {
            assert!(bad.parse::<Role>().is_err(), "{bad}");
        }
    }

    #[test]
    fn this_process_costs_something_and_a_missing_one_is_an_error() {
        let meter = Meter::new(Vec::new()).unwrap();
        assert!(meter.resident(GENERATOR) > 100_000);
        let before = meter.cpu();
        let started = Instant::now();
        while meter.cpu().micros_per(&before, 1.0)[GENERATOR] < 30_000.0 {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "work that costs nothing"
            );
        }
        assert!(Meter::new(vec!["gateway=4194305".parse().unwrap()]).is_err());
    }

    #[test]
    fn cpu_time_is_known_to_less_than_a_tick() {
        let meter = Meter::new(Vec::new()).unwrap();
        let before = meter.cpu();
        let started = Instant::now();
        loop {
            let used = meter.cpu().micros_per(&before, 1.0)[GENERATOR];
            if used.round() % 10_000.0 != 0.0 {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{used} us");
        }
    }

    /// A shell, which does not outlive its test.
    struct Shell(Child);

    impl Shell {
        fn kill(&mut self) {
            // Fails only when it has ended.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            self.kill();
        }
    }

    /// A shell that runs this, and a meter that watches it under this name.
    fn watched(role: &str, script: &str) -> (Shell, Meter) {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", script]).stdin(Stdio::piped());
        let shell = Shell(shell.spawn().unwrap());
        let pids = vec![shell.0.id()];
        let name = role.to_owned();
        (shell, Meter::new(vec![Role { name, pids }]).unwrap())
    }

    fn wait_until(mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < Duration::from_secs(60), "it never is");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_role_keeps_what_a_killed_process_used_and_tells_of_its_end() {
        let (mut busy, meter) = watched(GATEWAY, "while :; do :; done");
        let before = meter.cpu();
        let used = || meter.cpu().micros_per(&before, 1.0)[GATEWAY];
        wait_until(|| used() > 100_000.0);
        assert!(meter.ended().is_empty());
        let last = used();
        busy.kill();
        assert!(used() >= last);
        let ended = format!("a process of gateway ended meanwhile: {}", busy.0.id());
        assert_eq!(meter.ended(), [ended]);
        assert_eq!(meter.resident(GATEWAY), 0);

        let (new, _) = watched("other", "while :; do :; done");
        meter.adopt(GATEWAY, &[new.0.id()]);
        wait_until(|| used() > last + 100_000.0);
        assert!(meter.resident(GATEWAY) > 0);
    }

    #[test]
    fn memory_and_cpu_of_descendants_are_the_roles() {
        let script =
            "sh -c 'while kill -0 $PPID; do :; done' 2>/dev/null & read -r never; kill $!; wait";
        let (mut shell, meter) = watched(GATEWAY, script);
        let before = meter.cpu();
        let used = || meter.cpu().micros_per(&before, 1.0)[GATEWAY];
        wait_until(|| used() > 50_000.0);
        let alone = process::memory(shell.0.id(), "Rss:");
        assert!(meter.resident(GATEWAY) > alone, "its child has some too");
        let last = used();
        drop(shell.0.stdin.take());
        wait_until(|| shell.0.try_wait().unwrap().is_some());
        assert!(used() >= last);
    }
}
