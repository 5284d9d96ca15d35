//! A server under a supervisor: a small shell that listens on a pipe of this process. The kernel
//! closes the pipe however this process ends; the supervisor then stops the server and removes its
//! folder.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// Arguments: the signal that stops the server, its folder, its command line. The first line of
/// output is the server's process id; how it ended stands in `<folder>/exit`. HUP is what the kernel
/// may send when the parent dies.
const SUPERVISOR: &str = r#"
trap '' HUP INT
stop=$1 folder=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- >"$folder/log" 2>&1 &
server=$!
echo "$server"
exec >/dev/null 2>&1
{
    read -r never <&3
    kill -s "$stop" "$server"
    sleep 10
    kill -KILL "$server"
} &
wait "$server"
echo "$?" >"$folder/exit"
read -r never <&3
rm -rf "$folder"
rmdir "$(dirname "$folder")"
kill -KILL 0
"#;

/// A cold start on a busy machine takes a few seconds; beyond this it is broken.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longer than the supervisor's own patience.
const END_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What is shown of a log.
const LAST_LINES: usize = 15;

#[derive(Debug)]
pub(super) struct Server {
    name: String,
    pid: u32,
    folder: PathBuf,
    /// Holds the pipe; closing it stops the server.
    supervisor: Child,
}

impl Server {
    /// Starts `command` (program first) with its output in `<folder>/log`; the folder is the
    /// server's own and goes with it. `stop` is the signal on which it ends quickly.
    pub(super) fn start(
        name: &str,
        folder: &Path,
        stop: &str,
        command: Vec<OsString>,
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "supervisor", stop])
            .arg(folder)
            .args(command)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // The load test's own: a node refuses variables that it does not know.
            .env_remove("ROOKERY_LOADTEST_WAL_FILES")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C at a terminal reaches the load test only; its end is what stops the servers.
            .process_group(0)
            .spawn()
            .context("starting /bin/sh")?;
        let stdout = supervisor
            .stdout
            .take()
            .context("the supervisor has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let pid = line
            .trim()
            .parse()
            .with_context(|| format!("{name} was not started"))?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            folder: folder.to_owned(),
            supervisor,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to end in order; [`Self::exit_code`] tells when it did.
    pub(super) fn terminate(&self) -> anyhow::Result<()> {
        let pid = self.pid.to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status()?;
        ensure!(sent.success(), "{} is not running", self.name);
        Ok(())
    }

    /// How it ended, once it did.
    pub(super) fn exit_code(&self) -> Option<i32> {
        let code = std::fs::read_to_string(self.folder.join("exit")).ok()?;
        code.trim().parse().ok()
    }

    /// Waits until the probe succeeds.
    pub(super) async fn ready(&self, probe: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !probe().await {
            if !self.is_running() {
                bail!("{} ended while starting; {}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("{} does not answer; {}", self.name, self.last_words());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        Path::new(&format!("/proc/{}/stat", self.pid)).exists()
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        format!("its log ends with:\n{}", last.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closes the pipe. The supervisor ends by killing its whole group, itself included.
        drop(self.supervisor.stdin.take());
        let deadline = Instant::now() + END_WITHIN;
        while matches!(self.supervisor.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
