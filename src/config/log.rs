//! What is logged, and where it goes.

use std::path::PathBuf;

use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use super::key::Key;
use super::sources::{Result, Sources, whole};

const FORMAT: Key = Key::new("log.format")
    .variable_name("LOG_FORMAT")
    .or("pretty");
const FILE: Key = Key::new("log.file").variable_name("LOG_FILE");
const FILE_MIB: Key = Key::new("log.file_mib").or("100");
const FILES_KEPT: Key = Key::new("log.files_kept").or("10");
const FILTER: Key = Key::new("log.filter")
    .variable_name("RUST_LOG")
    .or("info")
    .live();

pub(super) const KEYS: [Key; 5] = [FORMAT, FILE, FILE_MIB, FILES_KEPT, FILTER];

/// A terabyte: larger is a slip of the pen.
const FILE_MIB_MAX: u32 = 1_024 * 1_024;
/// More would take long to be renamed one after the other.
const FILES_KEPT_MAX: u32 = 1_000;

const MIB: u64 = 1_024 * 1_024;

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
    /// `LOG_FILE`: the newest lines are always in this file. Default: none, the log goes to standard
    /// error.
    pub file: Option<PathBuf>,
    /// `ROOKERY_LOG_FILE_MIB`: at this size the file is put aside, as `LOG_FILE.1`; `None` (0): never.
    /// Default: 100.
    pub file_bytes: Option<u64>,
    /// `ROOKERY_LOG_FILES_KEPT`: of those put aside. Default: 10.
    pub files_kept: u32,
    /// `RUST_LOG`: a level, or levels by module (`info,rookery=debug`). Default: `info`.
    pub filter: String,
}

impl LogConfig {
    pub(super) fn read(sources: &Sources<'_>) -> Result<Self> {
        Ok(Self {
            format: sources.value(&FORMAT, format)?,
            file: sources.optional(&FILE, file)?,
            file_bytes: match sources.value(&FILE_MIB, whole(0..=FILE_MIB_MAX))? {
                0 => None,
                mib => Some(u64::from(mib) * MIB),
            },
            files_kept: sources.value(&FILES_KEPT, whole(1..=FILES_KEPT_MAX))?,
            filter: sources.value(&FILTER, filter)?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 5] {
        let format = match self.format {
            LogFormat::Pretty => "pretty",
            LogFormat::Json => "json",
        };
        [
            json!(format),
            json!(self.file.as_ref().map(|path| path.display().to_string())),
            json!(self.file_bytes.unwrap_or(0) / MIB),
            json!(self.files_kept),
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
