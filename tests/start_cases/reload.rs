//! Configuration that changes under a running node. Keys under load: `faults::keys`.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::process::Process;

/// A node with a configuration file, and what is in it.
struct Configured {
    node: Process,
    file: PathBuf,
    _folder: TempDir,
}

impl Configured {
    async fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("rookery.toml");
        fs::write(&file, text).expect("a configuration");
        let arguments = ["serve", "--config", path(&file)];
        let node = Process::start(&arguments, &[]);
        node.is_ready().await;
        Self {
            node,
            file,
            _folder: folder,
        }
    }

    /// Writes the file anew, and has the node read it.
    async fn reload(&self, text: &str) {
        fs::write(&self.file, text).expect("a configuration");
        self.node.signal("HUP").await;
    }
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a name in UTF-8")
}

#[tokio::test]
async fn levels_change_on_sighup_and_what_cannot_work_changes_nothing() {
    let configured = Configured::start("[log]\nfilter = 'error'").await;
    let node = &configured.node;
    assert!(!node.log().contains("listening"), "only errors are logged");

    configured.reload("[log]\nfilter = 'info'").await;
    node.says("what is logged has changed").await;

    configured.reload("[log]\nfilter = 'rookery=loud'").await;
    node.says("not reloaded, all stays as it was").await;
    node.says("RUST_LOG: ").await;

    // At `info` still: this line is one.
    configured.reload("[log]\nfilter = 'info'").await;
    node.says("the configuration was read again; nothing changes")
        .await;

    configured
        .reload("[log]\nfilter = 'info'\n[limits]\nsockets = 7")
        .await;
    node.says("changed, but only at the next start: ROOKERY_LIMITS_SOCKETS")
        .await;
    assert_eq!(configured.node.stopped().await.0, 0);
}

#[tokio::test]
async fn a_changed_file_is_noticed_without_a_signal() {
    let configured = Configured::start("[log]\nfilter = 'info'").await;
    let key = "a key of thirty-two bytes or more";
    let text = format!("[log]\nfilter = 'info'\n[auth]\njwt_secret = '{key}'");
    fs::write(&configured.file, text).expect("a configuration");
    let node = &configured.node;
    node.says("the keys of tokens have changed").await;
    assert!(!node.log().contains(key), "{}", node.log());

    fs::write(&configured.file, "[log]\nfilter = 'info'\n[auth").expect("half of it");
    node.says("not reloaded, all stays as it was").await;
    assert_eq!(configured.node.stopped().await.0, 0);
}

#[tokio::test]
async fn a_signal_while_a_node_starts_does_not_end_it() {
    let nobody = rookery_test_support::servers::ports::reserve().expect("a port");
    let database = format!("postgres://rookery@{}/rookery", nobody.address());
    let node = Process::start(&["serve"], &[("DATABASE_URL", &database)]);
    node.says("attempt=1").await;
    node.signal("HUP").await;
    node.says("attempt=2").await;
    let (code, log) = node.stopped().await;
    assert_eq!(code, 0, "{log}");
}
