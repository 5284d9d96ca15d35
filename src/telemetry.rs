//! The log: set up once, before anything else runs.
//!
//! Never logged, at whatever level: passwords, tokens, what people write. Code of ours does not
//! write them; libraries may, of what passes through them, so theirs is heard from `info` on only
//! (`LIBRARIES`).

mod collector;
mod rolling;
mod traces;

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal};
use std::panic;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use self::rolling::Rolling;
pub use self::traces::{SPANS, of_message};
use crate::config::{Config, LogConfig, LogFormat};

/// The target of the lines that follow a message on its way, at `debug`: each names it (`message`),
/// and those about a socket name that (`connection`). Apart from the modules', so that a node can be
/// asked for these lines and no others: `RUST_LOG=info,rookery::message=debug`.
pub const MESSAGE: &str = "rookery::message";

/// The most that libraries may log. Below that they may write what they send and receive.
const LIBRARIES: LevelFilter = LevelFilter::INFO;
/// What the targets of our own code begin with.
const OURS: &str = "rookery";
/// How long the last traces may take when the process ends.
const LAST_TRACES: Duration = Duration::from_secs(3);
/// Lines that wait for a slow disk or terminal; beyond that they are dropped rather than hold up a
/// message. At some 200 bytes a line this is 3 MiB.
const LINES_BUFFERED: usize = 16_384;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("LOG_FILE: {} cannot be written: {error}; set a path that can, or unset it", .path.display())]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("RUST_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the levels cannot be changed: {0}")]
    Levels(#[from] reload::Error),
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Traces(String),
    #[error("a log was set up before")]
    Twice,
}

/// Writes the last lines, and sends the last traces, when dropped; to be held until the process
/// ends.
#[must_use]
pub struct Guard {
    levels: Levels,
    traces: Option<SdkTracerProvider>,
    _writes_the_rest: WorkerGuard,
}

impl Guard {
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let traces = self.traces.as_ref();
        let sent = traces.map(|traces| traces.shutdown_with_timeout(LAST_TRACES));
        if let Some(Err(error)) = sent {
            tracing::warn!(%error, "the last traces are lost");
        }
    }
}

/// Changes what is logged. Cloning shares it.
#[derive(Clone)]
pub struct Levels(Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Levels {
    /// Logs according to this filter from now on, as in [`LogConfig::filter`].
    ///
    /// # Errors
    /// The filter cannot be read; then all stays as it was.
    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        let filter = EnvFilter::builder().parse(filter)?;
        Ok((self.0)(filter)?)
    }
}

/// Sets up the log of this process, and its traces, and logs panics from now on.
///
/// # Errors
/// The file cannot be opened, or there is a log already.
pub fn init(config: &Config) -> Result<Guard, TelemetryError> {
    let log = &config.log;
    let (writer, guard) = match &log.file {
        Some(path) => {
            let file = Rolling::open(path, log.file_bytes, log.files_kept);
            let path = path.clone();
            to_background(file.map_err(|error| TelemetryError::File { path, error })?)
        }
        None => to_background(io::stderr()),
    };
    let (lines, levels) = lines(log, writer)?;
    let mut layers = vec![lines];
    let mut provider = None;
    if let Some((sends, layer)) = traces::start(&config.traces, &config.node.id)? {
        layers.push(layer.boxed());
        provider = Some(sends);
    }
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    log_panics();
    Ok(Guard {
        levels,
        traces: provider,
        _writes_the_rest: guard,
    })
}

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// Writes events as lines; those that the levels let through.
fn lines(config: &LogConfig, writer: NonBlocking) -> Result<(Lines, Levels), TelemetryError> {
    let asked = EnvFilter::builder().parse(&config.filter)?;
    let (asked, handle) = reload::Layer::new(asked);
    let levels = Levels(Arc::new(move |filter| handle.reload(filter)));
    let allowed = filter_fn(|of| of.target().starts_with(OURS) || *of.level() <= LIBRARIES);
    let filter = asked.and(allowed);
    let colours = config.file.is_none() && io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Pretty => lines.with_ansi(colours).with_filter(filter).boxed(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            lines.with_filter(filter).boxed()
        }
    };
    Ok((lines, levels))
}

/// A thread of its own writes, so that a full pipe or a slow disk stops no socket.
fn to_background<W: io::Write + Send + 'static>(writer: W) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_BUFFERED)
        .thread_name("log")
        .finish(writer)
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
        tracing::error!(why = message, place, thread, %backtrace, "panic");
    }));
}
