//! Reading histories, from files or from memory, a line at a time: a run of half an hour is larger
//! than memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::event::{Event, FORMAT, Line};

/// The history of one process.
#[derive(Clone, Debug)]
pub struct History {
    name: String,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Lines(Vec<Line>),
}

/// A history that cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("{name}: {error}")]
    Io { name: String, error: io::Error },
    #[error("{name}:{line}: not a line of a history: {error}")]
    Line {
        name: String,
        line: usize,
        error: serde_json::Error,
    },
    #[error("{name}: the first line names no process in format {FORMAT}")]
    Format { name: String },
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The history, by its number.
    pub(crate) history: usize,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) device: u32,
    /// Wall time in milliseconds, as the history's own process measured it.
    pub(crate) at: i64,
}

/// How a history ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Whole,
    /// In the middle of a line: its process was killed.
    Torn,
}

impl History {
    /// A file of JSON lines, to be read when it is checked.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            name: name.to_string_lossy().into_owned(),
            source: Source::File(path.to_owned()),
        }
    }

    /// Lines in memory; the first one is [`Event::Process`].
    #[must_use]
    pub fn of_lines(name: &str, lines: Vec<Line>) -> Self {
        Self {
            name: name.to_owned(),
            source: Source::Lines(lines),
        }
    }

    /// All `*.jsonl` files of a folder, by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn folder(path: &Path) -> io::Result<Vec<Self>> {
        let mut paths = Vec::new();
        for entry in path.read_dir()? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "jsonl")
            {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths.iter().map(|path| Self::file(path)).collect())
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands out all lines in order with their places; `number` is the history's own.
    pub(crate) fn each(
        &self,
        number: usize,
        mut see: impl FnMut(Place, &Line),
    ) -> Result<Ending, HistoryError> {
        let mut wall = None;
        let mut see = |index: usize, line: &Line| {
            if index == 0 {
                wall = match &line.event {
                    Event::Process {
                        format: FORMAT,
                        wall_ms,
                        ..
                    } => Some(*wall_ms),
                    _ => None,
                };
            }
            let Some(wall) = wall else {
                let name = self.name.clone();
                return Err(HistoryError::Format { name });
            };
            let passed = i64::try_from(line.t).unwrap_or(i64::MAX);
            let place = Place {
                history: number,
                line: index + 1,
                device: line.device,
                at: wall.saturating_add(passed),
            };
            see(place, line);
            Ok(())
        };
        match &self.source {
            Source::Lines(lines) => {
                for (index, line) in lines.iter().enumerate() {
                    see(index, line)?;
                }
                Ok(Ending::Whole)
            }
            Source::File(path) => self.read(path, &mut see),
        }
    }

    fn read(
        &self,
        path: &Path,
        see: &mut dyn FnMut(usize, &Line) -> Result<(), HistoryError>,
    ) -> Result<Ending, HistoryError> {
        let io = |error| HistoryError::Io {
            name: self.name.clone(),
            error,
        };
        let mut reader = BufReader::new(File::open(path).map_err(io)?);
        let mut text = Vec::new();
        for index in 0.. {
            text.clear();
            if reader.read_until(b'\n', &mut text).map_err(io)? == 0 {
                break;
            }
            match serde_json::from_slice(&text) {
                Ok(line) => see(index, &line)?,
                // Only the last line can lack its end.
                Err(_) if !text.ends_with(b"\n") => return Ok(Ending::Torn),
                Err(error) => {
                    return Err(HistoryError::Line {
                        name: self.name.clone(),
                        line: index + 1,
                        error,
                    });
                }
            }
        }
        Ok(Ending::Whole)
    }
}
