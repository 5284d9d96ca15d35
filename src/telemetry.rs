//! The log: set up once, before anything else runs.

use std::backtrace::Backtrace;
use std::fs;
use std::io::{self, IsTerminal};
use std::panic;
use std::path::Path;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{InitError, RollingFileAppender, Rotation};
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Days whose files are kept.
const FILES_KEPT: usize = 14;
/// Lines that wait for a slow disk or terminal; beyond that they are dropped rather than hold up a
/// message. At some 200 bytes a line this is 3 MiB.
const LINES_BUFFERED: usize = 16_384;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("LOG_FILE: {0}; set a path that can be written, or unset it")]
    File(#[from] InitError),
    #[error("LOG_FILE: its directory cannot be made: {0}; set another path, or unset it")]
    Directory(#[from] io::Error),
    #[error("RUST_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("a log was set up before")]
    Twice,
}

/// Writes the last lines when dropped; to be held until the process ends.
#[must_use]
#[derive(Debug)]
pub struct Guard(#[expect(dead_code, reason = "dropping it writes what is buffered")] WorkerGuard);

/// Sets up the log of this process and logs panics from now on.
///
/// # Errors
/// The file cannot be opened, or there is a log already.
pub fn init(config: &LogConfig) -> Result<Guard, TelemetryError> {
    let filter = EnvFilter::builder().parse(&config.filter)?;
    let (writer, guard) = match &config.file {
        Some(path) => to_background(rolling(path)?),
        None => to_background(io::stderr()),
    };
    let colours = config.file.is_none() && io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match config.format {
        LogFormat::Pretty => subscriber.with_ansi(colours).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    }
    .map_err(|_| TelemetryError::Twice)?;
    log_panics();
    Ok(Guard(guard))
}

/// A thread of its own writes, so that a full pipe or a slow disk stops no socket.
fn to_background<W: io::Write + Send + 'static>(writer: W) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_BUFFERED)
        .thread_name("log")
        .finish(writer)
}

/// A file a day: `rookery.log.2026-01-31`.
fn rolling(path: &Path) -> Result<RollingFileAppender, TelemetryError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    Ok(RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(name)
        .max_log_files(FILES_KEPT)
        .build(dir)?)
}

fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no text");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let backtrace = Backtrace::capture();
        tracing::error!(message, place, thread, %backtrace, "panic");
    }));
}
