//! The disk of a database: what an fsync costs there is most of what a message's durability costs.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What PostgreSQL writes at once, and how often is measured.
const PAGE: [u8; 8_192] = [7; 8_192];
const WRITES: u64 = 51;
/// File systems that nothing survives in: there an fsync does nothing.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub file_system: String,
    /// The median of writes of 8 KiB, each with an `fdatasync`.
    pub fsync_ms: f64,
}

impl Disk {
    /// The disk of this folder. Takes as long as 51 writes.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(crate) fn of(folder: &Path) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let folder = folder.canonicalize()?;
        Ok(Self {
            file_system: file_system(&folder, &mounts)
                .unwrap_or("unknown")
                .to_owned(),
            fsync_ms: fsync(&folder)?.as_secs_f64() * 1_000.0,
        })
    }

    pub(crate) fn is_memory(&self) -> bool {
        IN_MEMORY.contains(&self.file_system.as_str())
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file_system,
            fsync_ms,
        } = self;
        write!(f, "data on {file_system}, an fsync takes {fsync_ms:.3} ms")?;
        match self.is_memory() {
            true => write!(f, ": NOTHING IS WRITTEN TO A DISK, fsync is free there"),
            false => Ok(()),
        }
    }
}

/// The type of the file system that is mounted nearest above a folder (proc(5), mountinfo). A later
/// mount at the same place covers an earlier one.
fn file_system<'a>(folder: &Path, mounts: &'a str) -> Option<&'a str> {
    let mount = |line: &'a str| {
        let (before, after) = line.split_once(" - ")?;
        let point = Path::new(before.split(' ').nth(4)?);
        let depth = folder
            .starts_with(point)
            .then(|| point.components().count())?;
        Some((depth, after.split(' ').next()?))
    };
    let mounts = mounts.lines().filter_map(mount);
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

/// As PostgreSQL does with its write-ahead log: pages of a file that has its size already.
fn fsync(folder: &Path) -> anyhow::Result<Duration> {
    let file = tempfile::tempfile_in(folder).with_context(|| folder.display().to_string())?;
    let write = |file: &File, page: u64| file.write_all_at(&PAGE, page * PAGE.len() as u64);
    for page in 0..WRITES {
        write(&file, page)?;
    }
    file.sync_all()?;
    let mut times = Vec::new();
    for page in 0..WRITES {
        let begun = Instant::now();
        write(&file, page)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts_and_memory_is_no_disk() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                      30 22 0:27 / /tmp rw,nosuid shared:7 - overlay over rw\n\
                      31 22 0:28 / /tmp rw,nosuid shared:7 - tmpfs tmpfs rw\n\
                      32 22 0:29 / /tmpfile rw - xfs /dev/vdb rw\n";
        for (folder, wanted) in [
            ("/tmp/rookery/postgres", "tmpfs"),
            ("/tmpfile/x", "xfs"),
            ("/var/tmp", "ext4"),
        ] {
            assert_eq!(file_system(Path::new(folder), mounts), Some(wanted));
        }
        let disk = |kind: &str| Disk {
            file_system: kind.to_owned(),
            fsync_ms: 0.5,
        };
        assert_eq!(
            disk("ext4").to_string(),
            "data on ext4, an fsync takes 0.500 ms"
        );
        assert!(disk("tmpfs").to_string().contains("fsync is free"));
    }

    #[test]
    fn an_fsync_takes_time() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::of(folder.path()).unwrap();
        assert!(disk.fsync_ms > 0.0, "{disk}");
        assert_ne!(disk.file_system, "unknown");
    }
}
