//! One `rookery serve` process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use rookery_client::Api;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::metrics::Metrics;
use crate::servers::ports::{self, Port};
use crate::servers::{Supervised, clock_off_by};

/// Lines of a node's log that are shown when its test fails.
const LAST_LINES: usize = 60;

/// A node of a cluster, or a node alone. Its ports and its data folder are its own for as long as
/// this lives, also while its process is down.
pub struct Node {
    process: Mutex<Supervised>,
    name: String,
    /// Locked after `process` where both are.
    command: Mutex<Vec<OsString>>,
    public: Port,
    ops: Port,
    http: reqwest::Client,
    folder: TempDir,
}

impl Node {
    /// Starts `binary` with these settings and nothing else from the environment, and waits until it
    /// is ready.
    pub(crate) async fn start(
        binary: &Path,
        name: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rookery-node-").tempdir()?;
        let (public, ops) = (ports::reserve()?, ports::reserve()?);
        let own = [
            ("NODE_ID", name.to_owned()),
            ("LISTEN_ADDR", public.address().to_string()),
            ("OPS_ADDR", ops.address().to_string()),
            ("DATA_DIR", folder.path().join("data").display().to_string()),
            ("PATH", std::env::var("PATH").unwrap_or_default()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let all = own
            .iter()
            .map(|(name, value)| (name, value))
            .chain(settings);
        let mut command: Vec<OsString> = vec!["env".into(), "-i".into()];
        command.extend(all.map(|(name, value)| format!("{name}={value}").into()));
        command.extend([PathBuf::from(binary).into(), "serve".into()]);
        let http = crate::plain_http();
        let process = Mutex::new(launch(&command, &folder, &ops, &http).await?);
        let name = name.to_owned();
        Ok(Self {
            process,
            name,
            command: Mutex::new(command),
            public,
            ops,
            http,
            folder,
        })
    }

    /// The name it tells in `ready`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `http://127.0.0.1:<port>`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.public.address())
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.public.address()
    }

    /// Its REST interface, as nobody.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::with_http(self.http.clone(), &self.url())
    }

    /// SIGKILL; returns when the process is gone.
    ///
    /// # Panics
    /// It was not running.
    pub async fn kill(&self) {
        let process = self.process.lock().await;
        let killed = async {
            process.signal("KILL")?;
            process.ended().await
        };
        killed
            .await
            .unwrap_or_else(|error| panic!("{} cannot be killed: {error:#}", self.name));
    }

    /// SIGSTOP: connections stay open and nothing answers, as on a machine that hangs.
    ///
    /// # Panics
    /// It was not running.
    pub async fn pause(&self) {
        let sent = self.process.lock().await.signal("STOP");
        sent.unwrap_or_else(|error| panic!("{} cannot be paused: {error:#}", self.name));
    }

    /// SIGCONT: ends [`Node::pause`].
    ///
    /// # Panics
    /// It was not running.
    pub async fn resume(&self) {
        let sent = self.process.lock().await.signal("CONT");
        sent.unwrap_or_else(|error| panic!("{} cannot be resumed: {error:#}", self.name));
    }

    /// SIGHUP: it reads its configuration again.
    ///
    /// # Panics
    /// It was not running.
    pub async fn hang_up(&self) {
        let sent = self.process.lock().await.signal("HUP");
        sent.unwrap_or_else(|error| panic!("{} cannot be told: {error:#}", self.name));
    }

    /// SIGTERM; returns the exit code when the process is gone.
    ///
    /// # Panics
    /// It was not running, or does not end.
    pub async fn stop(&self) -> i32 {
        self.terminate().await;
        self.exit_code().await
    }

    /// SIGTERM, without waiting.
    ///
    /// # Panics
    /// It was not running.
    pub async fn terminate(&self) {
        let sent = self.process.lock().await.signal("TERM");
        sent.unwrap_or_else(|error| panic!("{} cannot be stopped: {error:#}", self.name));
    }

    /// Waits until the process is gone; its exit code, or 128 and the signal that ended it.
    ///
    /// # Panics
    /// It does not end.
    pub async fn exit_code(&self) -> i32 {
        let process = self.process.lock().await;
        let ended = async {
            process.ended().await?;
            process.exit_code()
        };
        ended
            .await
            .unwrap_or_else(|error| panic!("{} does not stop: {error:#}", self.name))
    }

    /// Starts it again with the same settings, ports and data; kills it first when it still runs.
    ///
    /// # Panics
    /// It does not get ready.
    pub async fn restart(&self) {
        let restarted = self.try_restart().await;
        restarted.unwrap_or_else(|error| panic!("{} does not restart: {error:#}", self.name));
    }

    /// As [`Self::restart`], with these settings beside those it has, from now on.
    ///
    /// # Panics
    /// As there.
    pub async fn restart_with(&self, settings: &[(&str, &str)]) {
        self.set(settings.iter().copied()).await;
        self.restart().await;
    }

    /// From its next start on its clock is so many seconds ahead, or behind if that is negative.
    ///
    /// # Errors
    /// libfaketime is not installed.
    pub async fn set_clock(&self, seconds: i64) -> Result<()> {
        let variables = clock_off_by(seconds)?;
        let variables = variables.iter();
        self.set(variables.map(|(name, value)| (name.as_str(), value.as_str())))
            .await;
        Ok(())
    }

    /// From its next start on these settings count beside those it has.
    async fn set(&self, settings: impl Iterator<Item = (&str, &str)>) {
        let mut command = self.command.lock().await;
        // What is set last counts; the program and its subcommand end the command.
        let program = command.len() - 2;
        let settings = settings.map(|(name, value)| format!("{name}={value}").into());
        command.splice(program..program, settings);
    }

    /// As [`Self::restart`].
    ///
    /// # Errors
    /// It does not get ready: what it depends on may be away.
    pub async fn try_restart(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        if process.is_running()? {
            process.signal("KILL")?;
            process.ended().await?;
        }
        let command = self.command.lock().await;
        *process = launch(&command, &self.folder, &self.ops, &self.http).await?;
        Ok(())
    }

    /// Has every write fail that is beyond so many bytes of a file, as on a full disk; with none, no
    /// more. Ends with the process.
    ///
    /// # Errors
    /// It is not running, or `prlimit` is not installed.
    pub async fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        self.process.lock().await.limit_files(bytes).await
    }

    /// Whether the process is there, ready or not.
    ///
    /// # Errors
    /// The system does not tell.
    pub async fn is_running(&self) -> Result<bool> {
        self.process.lock().await.is_running()
    }

    /// Its SQLite file, where it has no other database.
    #[must_use]
    pub fn sqlite_file(&self) -> PathBuf {
        self.folder.path().join("data/rookery.db")
    }

    /// What its operations port tells in numbers.
    ///
    /// # Panics
    /// It does not answer.
    pub async fn metrics(&self) -> Metrics {
        let text = ask(&self.http, &self.ops, "metrics").await;
        let text = text.unwrap_or_else(|error| panic!("{} has no metrics: {error:#}", self.name));
        Metrics::parse(&text)
    }

    /// As [`Self::metrics`], of a node that may be down: then none.
    pub async fn look(&self) -> Option<Metrics> {
        let text = ask(&self.http, &self.ops, "metrics").await.ok()?;
        Some(Metrics::parse(&text))
    }

    /// Sets a fault in its code from now on, until it is restarted: a name and an action of the
    /// server's `src/failpoint.rs`.
    ///
    /// # Panics
    /// There is no such point, or no such action.
    pub async fn set_failpoint(&self, name: &str, action: &str) {
        let url = format!("http://{}/failpoints/{name}", self.ops.address());
        let set = self.http.put(url).body(action.to_owned()).send().await;
        let set = set.and_then(reqwest::Response::error_for_status);
        set.unwrap_or_else(|error| panic!("{}: {name} cannot be set: {error}", self.name));
    }

    /// Whether load balancers should send it clients.
    pub async fn is_ready(&self) -> bool {
        ask(&self.http, &self.ops, "readyz").await.is_ok()
    }

    /// All that it has printed so far, over all its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("node.txt")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            eprintln!(
                "--- the log of {} ends with:\n{}",
                self.name,
                last.join("\n")
            );
        }
    }
}

async fn launch(
    command: &[OsString],
    folder: &TempDir,
    ops: &Port,
    http: &reqwest::Client,
) -> Result<Supervised> {
    // Nobody waits for a node that is dropped: by then its test is over.
    let process = Supervised::start("node", folder.path(), "KILL", command.iter().cloned())?;
    process
        .ready(async || Ok(ask(http, ops, "readyz").await.is_ok()))
        .await?;
    Ok(process)
}

/// A page of the operations port, if its status is a success.
async fn ask(http: &reqwest::Client, ops: &Port, page: &str) -> Result<String> {
    let url = format!("http://{}/{page}", ops.address());
    let response = http.get(url).send().await?.error_for_status()?;
    response.text().await.context("half an answer")
}
