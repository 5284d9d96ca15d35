//! Who this node is, and where it keeps its own things.

use std::fs;
use std::path::PathBuf;

use rand::Rng;
use serde_json::{Value, json};

use super::environment::Environment;
use super::key::Key;
use super::sources::{Result, Sources};

pub(super) const ID_PATH: &str = "node.id";
const ID: Key = Key::new(ID_PATH).variable_name("NODE_ID");
const DATA_DIR: Key = Key::new("node.data_dir")
    .variable_name("DATA_DIR")
    .or("./data");

pub(super) const KEYS: [Key; 2] = [ID, DATA_DIR];

/// Node ids travel in every envelope between nodes and name keys in Redis.
const ID_BYTES_MAX: usize = 64;

#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// `NODE_ID`: this node's name in the cluster, of no other node at the same time. Default: the
    /// host's name and a random ending, new at each start.
    pub id: String,
    /// `DATA_DIR`: the SQLite database and the secret a single node made. Default: `./data`; made,
    /// for this user only, when there is something to keep.
    pub data_dir: PathBuf,
}

impl NodeConfig {
    pub(super) fn read(sources: &Sources<'_>, env: &Environment) -> Result<Self> {
        Ok(Self {
            id: sources
                .optional(&ID, id)?
                .unwrap_or_else(|| made_up_id(env)),
            data_dir: sources.value(&DATA_DIR, |text| Ok(PathBuf::from(text)))?,
        })
    }

    /// In the order of [`KEYS`].
    pub(super) fn values(&self) -> [Value; 2] {
        [json!(self.id), json!(self.data_dir.display().to_string())]
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn id(text: &str) -> Result<String> {
    if text.len() <= ID_BYTES_MAX && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "\"{text}\" is not a name of at most {ID_BYTES_MAX} letters, digits, dots, dashes and \
         underscores"
    ))
}

/// The host's name and eight random digits, so that two processes on one host differ, and a
/// restarted one from what it was.
fn made_up_id(env: &Environment) -> String {
    let kernel = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = env
        .get("HOSTNAME")
        .map(str::to_owned)
        .or_else(kernel)
        .unwrap_or_default();
    let mut host: String = host
        .chars()
        .filter(|c| u8::try_from(*c).is_ok_and(is_allowed))
        .collect();
    host.truncate(ID_BYTES_MAX - 9);
    if host.is_empty() {
        host.push_str("node");
    }
    format!("{host}-{:08x}", rand::rng().random::<u32>())
}
