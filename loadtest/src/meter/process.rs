//! A process as Linux tells of it in `/proc`.

use std::fs;
use std::time::Duration;

/// Ticks a second in `/proc/<pid>/stat`: 100 on every Linux that ordinary distributions ship.
const TICKS_PER_SECOND: u64 = 100;
/// Page size of `/proc/<pid>/statm`, which is asked only where `smaps_rollup` may not be read.
const PAGE_BYTES: u64 = 4_096;

/// Which process: an id alone may be given to another one later.
pub(super) type Key = (u32, u64);

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub pid: u32,
    pub parent: u32,
    /// When it began, in ticks since the machine did.
    pub started: u64,
    /// CPU time of all its threads, those that ended included, in whole ticks and at most two less
    /// than it was.
    pub cpu: Duration,
    /// Of children that ended and were waited for.
    pub waited: Duration,
}

impl Process {
    pub(super) fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The fields after the name, which may itself have spaces and parentheses (proc(5)).
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let time = |ticks: u64| Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND);
        Some(Self {
            pid,
            parent: u32::try_from(number(1)?).ok()?,
            started: number(19)?,
            cpu: time(number(11)? + number(12)?),
            waited: time(number(13)? + number(14)?),
        })
    }

    pub(super) fn key(&self) -> Key {
        (self.pid, self.started)
    }
}

/// CPU time of the threads that a process has at the moment, in nanoseconds. Nothing where the kernel
/// does not tell.
pub(super) fn threads(pid: u32) -> Vec<(u32, Duration)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let schedstat = fs::read_to_string(path.join("schedstat")).ok()?;
        let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
        let thread = path.file_name()?.to_str()?.parse().ok()?;
        Some((thread, Duration::from_nanos(nanos)))
    };
    entries.filter_map(of).collect()
}

pub(super) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// A field of `/proc/<pid>/smaps_rollup`, in bytes.
pub(super) fn memory(pid: u32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1_024)
        .or_else(|| shares(pid).map(|(resident, _)| resident))
        .unwrap_or(0)
}

/// Resident bytes of a process, and those among them that it may share.
pub(super) fn shares(pid: u32) -> Option<(u64, u64)> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = statm.split_whitespace().skip(1);
    let mut next = || Some(fields.next()?.parse::<u64>().ok()? * PAGE_BYTES);
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_no_obstacle() {
        let stat = "42 (a (b) c) S 7 42 42 0 -1 4194304 1 2 0 0 11 12 13 14 20 0 1 0 99 0 0";
        let process = Process::parse(42, stat).unwrap();
        let times = (process.cpu.as_millis(), process.waited.as_millis());
        assert_eq!((process.parent, times), (7, (230, 270)));
        assert_eq!(process.key(), (42, 99));
    }
}
