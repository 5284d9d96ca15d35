//! The keys that sign tokens, in files that nodes read again when they are told to.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use rookery_test_support::{Node, PATIENCE, eventually_within};
use tempfile::TempDir;

use crate::measure::lock;
use crate::world::World;

const SIGNING: &str = "signing";
const ACCEPTED: &str = "accepted";
const CHANGED: &str = "rookery_reloads_total{result=\"changed\"}";

/// The files of all nodes.
pub(crate) struct Keys {
    folder: TempDir,
    /// The number of the key that signs.
    number: Mutex<u32>,
    change: Mutex<Option<Change>>,
}

/// What is known of a change whose old key is still accepted.
#[derive(Clone)]
pub(crate) struct Change {
    /// A token of the old key that nobody uses.
    pub(crate) old_token: String,
    pub(crate) new_head: String,
}

impl Keys {
    /// One key signs, and no other is accepted.
    pub(crate) fn new() -> Result<Self> {
        let keys = Self {
            folder: tempfile::Builder::new().prefix("rookery-keys-").tempdir()?,
            number: Mutex::new(0),
            change: Mutex::new(None),
        };
        keys.write(SIGNING, &key(0))?;
        keys.write(ACCEPTED, "")?;
        Ok(keys)
    }

    /// For the environment of every node.
    pub(crate) fn settings(&self) -> [(&'static str, String); 3] {
        let path = |name| self.path(name).display().to_string();
        [
            ("JWT_SECRET", String::new()),
            ("JWT_SECRET_FILE", path(SIGNING)),
            ("JWT_SECRETS_PREVIOUS_FILE", path(ACCEPTED)),
        ]
    }

    /// The one that comes next is accepted, too.
    pub(crate) fn accept_next(&self) -> Result<()> {
        let number = *lock(&self.number);
        self.write(ACCEPTED, &key(number + 1))
    }

    /// The next one signs, and the one that did is accepted. Between the two writes the new key is
    /// in both files, and the old one in none; nodes that look by themselves take only what two
    /// looks find the same.
    pub(crate) fn sign_with_next(&self) -> Result<()> {
        let mut number = lock(&self.number);
        let old = key(*number);
        *number += 1;
        self.write(SIGNING, &key(*number))?;
        self.write(ACCEPTED, &old)
    }

    pub(crate) fn forget_old(&self) -> Result<()> {
        self.write(ACCEPTED, "")
    }

    pub(crate) fn set_change(&self, change: Change) {
        *lock(&self.change) = Some(change);
    }

    /// The change that is under way, which is nobody's any more.
    pub(crate) fn take_change(&self) -> Option<Change> {
        lock(&self.change).take()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// At once: a node never reads half a key.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let new = self.path("new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, self.path(name))?;
        Ok(())
    }
}

/// Changes the files, and returns when every node has read what changed.
///
/// # Errors
/// The files cannot be written, or a node does not answer or reads nothing for [`PATIENCE`].
pub(crate) async fn tell(world: &World, change: impl FnOnce(&Keys) -> Result<()>) -> Result<()> {
    let nodes = world.cluster.nodes();
    let mut before = Vec::new();
    for node in nodes {
        before.push(times_changed(node).await?);
    }
    change(&world.keys)?;
    for (node, before) in nodes.iter().zip(before) {
        node.hang_up().await;
        let has_read = async || {
            let metrics = node.look().await;
            metrics.is_some_and(|metrics| metrics.get(CHANGED) > before)
        };
        if !eventually_within(PATIENCE, has_read).await {
            bail!("{} has not read its keys", node.name());
        }
    }
    Ok(())
}

/// How often a node has found its keys changed.
async fn times_changed(node: &Node) -> Result<f64> {
    let mut metrics = None;
    let answers = async || {
        metrics = node.look().await;
        metrics.is_some()
    };
    eventually_within(PATIENCE, answers).await;
    let metrics = metrics.with_context(|| format!("{} has no metrics", node.name()))?;
    Ok(metrics.get(CHANGED))
}

/// What tokens of the same key have in common.
pub(crate) fn head(token: &str) -> &str {
    token.split('.').next().unwrap_or_default()
}

fn key(number: u32) -> String {
    format!("the key of chaos with the number {number}")
}
