//! What processes cost, by role: CPU time and memory as Linux counts them.
//!
//! A role is a set of processes with all their descendants, since PostgreSQL is a family.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::sampler::Gauges;

/// Ticks a second in `/proc/<pid>/stat`: 100 on every Linux that ordinary distributions ship.
const TICKS_PER_SECOND: u64 = 100;
/// Page size of `/proc/<pid>/statm`, which is asked only where `smaps_rollup` may not be read.
const PAGE_BYTES: u64 = 4_096;

/// The role of this process.
pub(crate) const GENERATOR: &str = "generator";
/// The role of the nodes.
pub(crate) const GATEWAY: &str = "gateway";

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

#[derive(Clone, Debug)]
pub(crate) struct Meter {
    roles: Vec<Role>,
    /// What the scenario counts, for whoever samples.
    pub gauges: Gauges,
}

/// CPU time of each role since its processes began.
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
        Ok(Self {
            roles,
            gauges: Gauges::default(),
        })
    }

    pub(crate) fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|known| known.name == role)
    }

    /// CPU time so far. A process that ended counts no more, unless its parent counts for it.
    pub(crate) fn cpu(&self) -> CpuTimes {
        let all = processes();
        let ticks = |role: &Role| -> u64 {
            let members = members(role, &all);
            let mine = all.iter().filter(|process| members.contains(&process.pid));
            // What a root waited for is nobody else's; this process's children are other roles.
            let waited = |process: &Process| match role.pids.contains(&process.pid) {
                true if process.pid != std::process::id() => process.waited_ticks,
                _ => 0,
            };
            mine.map(|process| process.ticks + waited(process)).sum()
        };
        let time = |role: &Role| Duration::from_millis(ticks(role) * 1_000 / TICKS_PER_SECOND);
        CpuTimes(
            self.roles
                .iter()
                .map(|role| (role.name.clone(), time(role)))
                .collect(),
        )
    }

    /// Memory in bytes by role, cheap enough for every second: what is each process's own, and once
    /// what the one that shares most shares.
    pub(crate) fn memory_at_a_glance(&self) -> BTreeMap<String, u64> {
        let all = processes();
        let of = |role: &Role| {
            let pages = members(role, &all).into_iter().filter_map(pages);
            let sum = pages.fold((0, 0), |(own, shared), (resident, theirs)| {
                (own + resident.saturating_sub(theirs), theirs.max(shared))
            });
            (sum.0 + sum.1) * PAGE_BYTES
        };
        let roles = self.roles.iter();
        roles.map(|role| (role.name.clone(), of(role))).collect()
    }

    /// Resident memory in bytes, of the role's own processes; shared pages count in each.
    pub(crate) fn resident(&self, role: &str) -> u64 {
        let role = self.roles.iter().find(|known| known.name == role);
        role.map_or(0, |role| {
            role.pids.iter().map(|pid| memory(*pid, "Rss:")).sum()
        })
    }

    /// Memory in bytes by role, descendants included, shared pages divided among their users.
    pub(crate) fn memory(&self) -> BTreeMap<String, u64> {
        let all = processes();
        let of = |role: &Role| {
            members(role, &all)
                .into_iter()
                .map(|pid| memory(pid, "Pss:"))
                .sum()
        };
        self.roles
            .iter()
            .map(|role| (role.name.clone(), of(role)))
            .collect()
    }
}

#[derive(Debug)]
struct Process {
    pid: u32,
    parent: u32,
    ticks: u64,
    /// Of children that ended and were waited for.
    waited_ticks: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The fields after the name, which may itself have spaces and parentheses (proc(5)).
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            pid,
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
            waited_ticks: number(13)? + number(14)?,
        })
    }
}

fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// The role's processes and their descendants; of this process only itself, since it may have
/// started all the others.
fn members(role: &Role, all: &[Process]) -> HashSet<u32> {
    let mut members = HashSet::new();
    let mut next = role.pids.clone();
    while let Some(pid) = next.pop() {
        if members.insert(pid) && pid != std::process::id() {
            next.extend(
                all.iter()
                    .filter(|process| process.parent == pid)
                    .map(|p| p.pid),
            );
        }
    }
    members
}

fn memory(pid: u32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1_024)
        .or_else(|| resident_pages(pid))
        .unwrap_or(0)
}

fn resident_pages(pid: u32) -> Option<u64> {
    pages(pid).map(|(resident, _)| resident * PAGE_BYTES)
}

/// Resident pages of a process, and those among them that it may share.
fn pages(pid: u32) -> Option<(u64, u64)> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = statm.split_whitespace().skip(1);
    let mut next = || fields.next()?.parse().ok();
    Some((next()?, next()?))
}

/// How many files this process may have open, if Linux says so.
pub(crate) fn open_files_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
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
    fn a_name_with_parentheses_is_no_obstacle() {
        let stat = "42 (a (b) c) S 7 42 42 0 -1 4194304 1 2 0 0 11 12 13 14 20 0 1 0 99 0 0";
        let process = Process::parse(42, stat).unwrap();
        assert_eq!(
            (process.parent, process.ticks, process.waited_ticks),
            (7, 23, 27)
        );
    }

    #[test]
    fn this_process_costs_something_and_a_missing_one_is_an_error() {
        let meter = Meter::new(Vec::new()).unwrap();
        assert!(meter.resident(GENERATOR) > 100_000);
        let before = meter.cpu();
        let started = std::time::Instant::now();
        while meter.cpu().micros_per(&before, 1.0)[GENERATOR] < 30_000.0 {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "work that costs nothing"
            );
        }
        assert!(Meter::new(vec!["gateway=4194305".parse().unwrap()]).is_err());
    }
}
