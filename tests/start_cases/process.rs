//! The program as an operator starts it: with some settings, and perhaps not for long.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use rookery_client::Api;
use rookery_test_support::servers::ports::{self, Port};
use rookery_test_support::{PATIENCE, eventually, plain_http};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::ROOKERY;

/// A secret for clusters.
pub(crate) const SECRET: (&str, &str) = ("JWT_SECRET", "only for tests: thirty-two bytes or more");

/// One `rookery` and what it wrote; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    folder: TempDir,
    public: Port,
    ops: Port,
}

impl Process {
    /// Runs it with these arguments, and these settings beside addresses and a folder of its own.
    pub(crate) fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = File::create(folder.path().join("log")).expect("a log");
        Self::start_in(folder, arguments, settings, log.into())
    }

    /// As [`Self::start`]; what it prints goes there instead of into [`Self::log`].
    pub(crate) fn start_to(
        output: impl Into<OwnedFd>,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        File::create(folder.path().join("log")).expect("a log");
        Self::start_in(folder, arguments, settings, output.into())
    }

    fn start_in(
        folder: TempDir,
        arguments: &[&str],
        settings: &[(&str, &str)],
        log: OwnedFd,
    ) -> Self {
        let reserve = || ports::reserve().expect("a free port");
        let (public, ops) = (reserve(), reserve());
        let copy = log.try_clone().expect("a log");
        let child = Command::new(ROOKERY)
            .args(arguments)
            .env_clear()
            .env("LISTEN_ADDR", public.address().to_string())
            .env("OPS_ADDR", ops.address().to_string())
            .env("DATA_DIR", folder.path().join("data"))
            .env("ROOKERY_DRAIN_DELAY_SECONDS", "0")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .kill_on_drop(true)
            .spawn()
            .expect("the program runs");
        Self {
            child,
            folder,
            public,
            ops,
        }
    }

    /// All that it printed so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("its log")
    }

    pub(crate) async fn says(&self, words: &str) {
        let said = eventually(words, async || self.log().contains(words));
        tokio::select! {
            biased;
            () = said => {}
            () = tokio::time::sleep(PATIENCE) => panic!("no \"{words}\" in:\n{}", self.log()),
        }
    }

    /// Its REST interface, as nobody.
    pub(crate) fn api(&self) -> Api {
        Api::new(&format!("http://{}", self.public.address()))
    }

    pub(crate) fn ops_address(&self) -> SocketAddr {
        self.ops.address()
    }

    /// The status of a page of the operations port; `None` if nobody answers.
    pub(crate) async fn probe(&self, page: &str) -> Option<u16> {
        let url = format!("http://{}/{page}", self.ops.address());
        let answer = plain_http().get(url).send().await.ok()?;
        Some(answer.status().as_u16())
    }

    pub(crate) async fn is_ready(&self) {
        eventually("ready", async || self.probe("readyz").await == Some(200)).await;
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let process = self.child.id().expect("it runs").to_string();
        let mut kill = Command::new("kill");
        let sent = kill.args(["-s", name, &process]).status().await;
        assert!(sent.expect("there is kill").success());
    }

    /// Waits for its end: its exit code, and all that it printed.
    pub(crate) async fn ended(mut self) -> (i32, String) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(status) = ended else {
            panic!("it does not end:\n{}", self.log());
        };
        let code = status.expect("it can be waited for").code();
        (code.expect("no signal ended it"), self.log())
    }

    /// SIGTERM, then as [`Self::ended`].
    pub(crate) async fn stopped(self) -> (i32, String) {
        self.signal("TERM").await;
        self.ended().await
    }
}

/// The URL of a SQLite file in this folder.
pub(crate) fn sqlite(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("rookery.db").display())
}
