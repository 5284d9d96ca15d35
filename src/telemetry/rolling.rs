//! The log as a file: when it is as large as it may be it is put aside under the same name with `.1`
//! at the end, what was there before becomes `.2`, and so on; what is one too many goes.
//!
//! The newest lines are always in the file of the name that was asked for, and nothing else that
//! lies beside it is touched.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// See the module.
#[derive(Debug)]
pub(super) struct Rolling {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// `None`: never put aside.
    bytes_max: Option<u64>,
    kept: u32,
}

impl Rolling {
    /// Goes on with the file if there is one. `kept`: how many are kept beside it. What is no plain
    /// file, such as `/dev/stdout`, is never put aside.
    ///
    /// # Errors
    /// Its directory cannot be made, or it cannot be opened, or it is a pipe that nobody reads.
    pub(super) fn open(path: &Path, bytes_max: Option<u64>, kept: u32) -> io::Result<Self> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir)?;
        }
        if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
            // Opening it would wait for a reader; this fails without one.
            let flags = OFlags::WRONLY | OFlags::NONBLOCK;
            rustix::fs::open(path, flags, Mode::empty())?;
        }
        let file = append_to(path)?;
        let found = file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes: found.len(),
            bytes_max: bytes_max.filter(|_| found.is_file()),
            kept,
        })
    }

    fn put_aside(&mut self) -> io::Result<()> {
        for number in (1..self.kept).rev() {
            let older = numbered(&self.path, number + 1);
            match fs::rename(numbered(&self.path, number), older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Write for Rolling {
    /// `bytes`: whole lines.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let after = self.bytes + bytes.len() as u64;
        if self.bytes > 0 && self.bytes_max.is_some_and(|max| after > max) {
            // A file that cannot be put aside grows on: better than no log. Tried again after as
            // much again.
            if self.put_aside().is_err() {
                self.bytes = 0;
            }
        }
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap_or_default()
    }

    #[test]
    fn the_newest_lines_keep_the_name_and_only_so_many_older_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::write(dir.join("rookery.log.other"), "not a log").unwrap();
        fs::write(dir.join("rookery.log"), "0\n").unwrap();
        let path = dir.join("rookery.log");
        let mut log = Rolling::open(&path, Some(4), 2).unwrap();
        for line in ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(content(dir, "rookery.log"), "6\n");
        assert_eq!(content(dir, "rookery.log.1"), "4\n5\n");
        assert_eq!(content(dir, "rookery.log.2"), "2\n3\n");
        assert!(!dir.join("rookery.log.3").exists());
        assert_eq!(content(dir, "rookery.log.other"), "not a log");
        log.write_all(b"a line that is longer than a file\n")
            .unwrap();
        assert_eq!(content(dir, "rookery.log.1"), "6\n");
        assert_eq!(content(dir, "rookery.log").len(), 34);
    }

    #[test]
    fn a_pipe_is_waited_for_by_nobody_and_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(Rolling::open(&pipe, Some(4), 1).is_err(), "nobody reads it");

        let reader = OpenOptions::new().read(true).write(true).open(&pipe);
        let _reader = reader.unwrap();
        let mut log = Rolling::open(&pipe, Some(4), 1).unwrap();
        log.write_all(b"0123456789\n").unwrap();
        log.write_all(b"0123456789\n").unwrap();
        assert!(!dir.path().join("pipe.1").exists());
    }

    #[test]
    fn a_file_that_may_grow_is_never_put_aside_and_one_that_cannot_be_is_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut log = Rolling::open(&dir.join("new/a.log"), None, 1).unwrap();
        for _ in 0..100 {
            log.write_all(b"0123456789\n").unwrap();
        }
        assert_eq!(content(dir, "new/a.log").len(), 1_100);
        // A directory that is not empty stands where the older one should go.
        fs::create_dir_all(dir.join("b.log.1/full")).unwrap();
        let mut log = Rolling::open(&dir.join("b.log"), Some(20), 1).unwrap();
        for _ in 0..5 {
            log.write_all(b"0123456789\n").unwrap();
        }
        assert_eq!(content(dir, "b.log").len(), 55);
    }
}
