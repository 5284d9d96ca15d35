//! What is logged, and where it goes.

use std::path::PathBuf;

use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use super::key::Key;
use super::sources::{Result, Sources};

const FORMAT: Key = Key::new("log.format")
    .variable_name("LOG_FORMAT")
    .or("pretty");
const FILE: Key = Key::new("log.file").variable_name("LOG_FILE");
const FILTER: Key = Key::new("log.filter").variable_name("RUST_LOG").or("info");

pub(super) const KEYS: [Key; 3] = [FORMAT, FILE, FILTER];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people at a terminal.
    Pretty,
    /// One JSON object a line, for collectors.
    Json,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `LOG_FORMAT`: `pretty` or `json`. Default: `pretty`.
    pub format: LogFormat,
    /// `LOG_FILE`: a new file each day, its date appended to this name, two weeks kept. Default:
    /// none, the log goes to standard error.
    pub file: Option<PathBuf>,
    /// `RUST_LOG`: a level, or levels by module (`info,rookery=debug`). Default: `info`.
    pub filter: String,
}

impl LogConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        Ok(Self {
            format: sources.value(&FORMAT, format)?,
            file: sources.optional(&FILE, file)?,
            filter: sources.value(&FILTER, filter)?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 3] {
        let format = match self.format {
            LogFormat::Pretty => "pretty",
            LogFormat::Json => "json",
        };
        [
            json!(format),
            json!(self.file.as_ref().map(|path| path.display().to_string())),
            json!(self.filter),
        ]
    }
}

fn format(text: &str) -> Result<LogFormat> {
    match text {
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("\"{text}\" is neither pretty nor json")),
    }
}

fn file(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if text.ends_with('/') || path.file_name().is_none() || path.is_dir() {
        return Err(format!("{text} is a directory; add the name of a file"));
    }
    Ok(path)
}

fn filter(text: &str) -> Result<String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(format!(
            "{e}; set a level, or levels by module: info,rookery=debug"
        )),
    }
}
