//! Writes a history while it happens: cheap enough to stand beside every frame.
//!
//! A line is put together outside the lock and written through a buffer of 1 MiB, so that devices of
//! one process hold each other up for no longer than a copy. What was written is safe on
//! [`Recorder::finish`], or when the last clone is dropped; a process that is killed loses the
//! buffer, and its devices count as cut short.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rookery_protocol::UserId;

use crate::event::{Event, FORMAT, Line, PROCESS, View};

/// Some 8,000 lines: a write to the file every few milliseconds even under full load.
const BUFFER_BYTES: usize = 1 << 20;

/// The history of one process. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    out: Mutex<Out>,
    devices: AtomicU32,
    faults: AtomicU64,
}

struct Out {
    writer: Box<dyn Write + Send>,
    /// The first failure; what came after it was not written.
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins a history in a new file. `name` is the process as reports call it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, name: &str) -> io::Result<Self> {
        Ok(Self::to(Box::new(File::create(path)?), name))
    }

    /// Begins a history that goes anywhere.
    #[must_use]
    pub fn to(out: Box<dyn Write + Send>, name: &str) -> Self {
        let began = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |since| since.as_millis());
        let writer = Box::new(BufWriter::with_capacity(BUFFER_BYTES, out));
        let recorder = Self {
            shared: Arc::new(Shared {
                began,
                out: Mutex::new(Out {
                    writer,
                    failed: None,
                }),
                devices: AtomicU32::new(PROCESS),
                faults: AtomicU64::new(0),
            }),
        };
        recorder.write(
            PROCESS,
            Event::Process {
                format: FORMAT,
                name: name.to_owned(),
                wall_ms: i64::try_from(wall_ms).unwrap_or(i64::MAX),
            },
        );
        recorder
    }

    /// A device of this process. Names are for people, and best unique within a run.
    #[must_use]
    pub fn device(&self, name: &str, user: UserId, view: View) -> DeviceRecorder {
        let number = self.shared.devices.fetch_add(1, Ordering::Relaxed) + 1;
        let device = DeviceRecorder {
            recorder: self.clone(),
            number,
            user,
        };
        device.note(Event::Device {
            name: name.to_owned(),
            user,
            view,
        });
        device
    }

    /// A fault begins; ends with [`Recorder::fault_ended`].
    #[must_use]
    pub fn fault_began(&self, kind: &str, what: &str) -> u64 {
        let id = self.shared.faults.fetch_add(1, Ordering::Relaxed) + 1;
        self.write(
            PROCESS,
            Event::FaultBegan {
                id,
                kind: kind.to_owned(),
                what: what.to_owned(),
            },
        );
        id
    }

    pub fn fault_ended(&self, id: u64) {
        self.write(PROCESS, Event::FaultEnded { id });
    }

    /// Something worth seeing beside the events of devices, such as the beginning of a phase.
    pub fn mark(&self, text: &str) {
        let text = text.to_owned();
        self.write(PROCESS, Event::Mark { text });
    }

    /// Writes what is still in the buffer.
    ///
    /// # Errors
    /// The first failure of all writes so far: the file is not whole.
    pub fn finish(&self) -> io::Result<()> {
        let mut out = self.shared.lock();
        match out.failed.take() {
            Some(error) => Err(error),
            None => out.writer.flush(),
        }
    }

    fn write(&self, device: u32, event: Event) {
        let elapsed = self.shared.began.elapsed().as_millis();
        let t = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let line = Line { t, device, event };
        // A line has no maps but those with string keys: it can always be written.
        let Ok(mut text) = serde_json::to_vec(&line) else {
            return;
        };
        text.push(b'\n');
        let mut out = self.shared.lock();
        if out.failed.is_none()
            && let Err(error) = out.writer.write_all(&text)
        {
            out.failed = Some(error);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The history of one device. Cheap to clone; lines of one device are written by one task at a time,
/// or their order means nothing.
#[derive(Clone)]
pub struct DeviceRecorder {
    recorder: Recorder,
    number: u32,
    user: UserId,
}

impl DeviceRecorder {
    pub fn note(&self, event: Event) {
        self.recorder.write(self.number, event);
    }

    /// Whose device it is.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.user
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_protocol::UserId;
    use uuid::Uuid;

    fn lines(path: &Path) -> Vec<Line> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn what_threads_note_is_whole_and_in_each_ones_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.jsonl");
        let recorder = Recorder::create(&path, "one").unwrap();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let user = UserId::from_uuid(Uuid::from_u128(number));
                let device = recorder.device(&format!("device {number}"), user, View::Wire);
                scope.spawn(move || {
                    (0..1_000).for_each(|code| device.note(Event::Disconnected { code }));
                });
            }
        });
        drop(recorder);
        let lines = lines(&path);
        assert_eq!(lines.len(), 1 + 4 * 1_001);
        assert!(matches!(lines[0].event, Event::Process { format: 1, .. }));
        for device in 1..=4 {
            let own = lines.iter().filter(|line| line.device == device);
            let codes: Vec<u16> = own
                .filter_map(|line| match line.event {
                    Event::Disconnected { code } => Some(code),
                    _ => None,
                })
                .collect();
            assert_eq!(codes, (0..1_000).collect::<Vec<u16>>());
        }
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let recorder = Recorder::to(Box::new(Full), "full");
        recorder.mark("a mark");
        let error = recorder.finish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
