//! Real servers for tests: PostgreSQL, Redis with or without sentinels, and nginx, each in a
//! temporary folder and on a port of its own on 127.0.0.1.
//!
//! Every server is the child of a small shell, its supervisor, which listens on a pipe that this
//! process holds. The kernel closes the pipe however this process ends, SIGKILL included; the
//! supervisor then stops its server and removes the folder. So nothing outlives a test run.
//!
//! A missing program is an error that says what to install; no test is skipped for it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

pub mod nginx;
pub mod ports;
pub mod postgres;
pub mod redis;
pub mod sentinel;

pub use nginx::Nginx;
pub use postgres::Postgres;
pub use redis::Redis;
pub use sentinel::Sentinels;

/// Arguments: the signal that stops the server, its folder, its command line.
///
/// Lines on stdin are names of signals to send. End of file means that the test process is gone or
/// has dropped the server: stop it, by force after 10 s, and remove the folder. CONT wakes a
/// server that a test left stopped; HUP is what the kernel sends a group with such a member when
/// its parent dies, and XFSZ what a process gets that writes beyond a limit of [`limit_files`]: here
/// it is told by the write, as on a full disk. The exit code goes to a file that is opened at the
/// start, since a new one could get in the way of the folder's removal. `kill -KILL 0` ends the whole
/// process group, which takes nginx's workers along when their master was killed, and this shell too.
const SUPERVISOR: &str = r#"
trap '' HUP XFSZ
stop=$1 folder=$2
shift 2
exec 3<&0 4>"$folder/exit_code"
"$@" </dev/null 3<&- 4>&- &
server=$!
echo "$server" >"$folder/pid"
{
    while read -r signal <&3; do kill -s "$signal" "$server"; done
    true >"$folder/orphaned"
    kill -s "$stop" "$server"
    kill -s CONT "$server"
    sleep 10
    kill -KILL "$server"
} 2>/dev/null &
wait "$server"
echo "$?" >&4
if [ -e "$folder/orphaned" ]; then rm -rf "$folder"; fi
kill -KILL 0
"#;

/// A cold start on a busy two-core machine takes a few seconds; beyond this it is broken.
const START_WITHIN: Duration = Duration::from_secs(120);
/// Longer than the supervisor's own patience, so that a server that hangs is seen here as killed.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at something that cannot be awaited, such as the end of a process.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running server under its supervisor. Dropping it stops the server without waiting for it.
pub(crate) struct Supervised {
    name: &'static str,
    supervisor: Mutex<Child>,
    control: Mutex<ChildStdin>,
    log: PathBuf,
    exit_code: PathBuf,
}

impl Supervised {
    /// Starts `command` (program first) with its output in `<folder>/<name>.txt`. `stop` is the
    /// signal on which this server ends quickly and cleans up after itself.
    pub(crate) fn start(
        name: &'static str,
        folder: &Path,
        stop: &str,
        command: impl IntoIterator<Item = OsString>,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.txt"));
        let exit_code = folder.join("exit_code");
        let output = File::options().create(true).append(true).open(&log)?;
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "supervisor", stop])
            .arg(folder)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in a terminal must reach the tests only; the supervisor follows by itself.
            .process_group(0)
            .spawn()
            .context("cannot start /bin/sh")?;
        let control = supervisor
            .stdin
            .take()
            .context("the supervisor has no stdin")?;
        Ok(Self {
            name,
            supervisor: Mutex::new(supervisor),
            control: Mutex::new(control),
            log,
            exit_code,
        })
    }

    /// Sends the server a signal by name: `KILL`, `STOP`, `CONT`, `HUP`.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(control, "{signal}").with_context(|| format!("{} is not running", self.name))
    }

    /// As on a disk that is full beyond so many bytes of each file, or has room again.
    pub(crate) async fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        limit_files(self.id()?, bytes).await
    }

    pub(crate) fn is_running(&self) -> Result<bool> {
        let mut supervisor = self
            .supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(supervisor.try_wait()?.is_none())
    }

    /// Waits until the server and everything it started are gone.
    pub(crate) async fn ended(&self) -> Result<()> {
        let deadline = Instant::now() + END_WITHIN;
        while self.is_running()? {
            if Instant::now() > deadline {
                bail!("{} does not end; {}", self.name, self.last_words());
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The process of the server itself.
    pub(crate) fn id(&self) -> Result<u32> {
        let id = std::fs::read_to_string(self.exit_code.with_file_name("pid"))?;
        Ok(id.trim().parse()?)
    }

    /// The exit code of a server that has ended; 128 and the signal's number when one ended it.
    pub(crate) fn exit_code(&self) -> Result<i32> {
        let code = std::fs::read_to_string(&self.exit_code);
        let code = code.with_context(|| format!("{} left no exit code", self.name))?;
        Ok(code.trim().parse()?)
    }

    /// Waits until `probe` says that the server answers.
    pub(crate) async fn ready(&self, probe: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while !probe().await? {
            if !self.is_running()? {
                bail!("{} ended while starting; {}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("{} does not answer; {}", self.name, self.last_words());
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The end of the server's log, for an error text.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        format!("its log ends with:\n{}", tail.join("\n"))
    }
}

/// Whether something listens on `address`.
async fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// Finds a program; see [`folder_with`].
fn program(name: &str, folders: &[PathBuf], package: &str) -> Result<PathBuf> {
    Ok(folder_with(&[name], folders, package)?.join(name))
}

/// The first of `folders` and then of the `PATH` that has all of `names`; the error says which
/// package to install.
fn folder_with(names: &[&str], folders: &[PathBuf], package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .find(|folder| names.iter().all(|name| folder.join(name).is_file()))
        .with_context(|| {
            let names = names.join(", ");
            format!(
                "{names}: not installed, and these tests need it. Run \
                 scripts/install-test-deps.sh as root, or install the package {package}"
            )
        })
}

/// The variables with which a program's clock is so many seconds ahead, or behind if it is negative;
/// what it measures takes as long as ever. With 0 its clock is right, whatever was set before.
pub(crate) fn clock_off_by(seconds: i64) -> Result<[(String, String); 3]> {
    let variables = |library: String| {
        [
            ("LD_PRELOAD".into(), library),
            ("FAKETIME".into(), format!("{seconds:+}s")),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ]
    };
    if seconds == 0 {
        return Ok(variables(String::new()));
    }
    // Debian has a folder for each kind of machine.
    let folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime")))
        .collect();
    let library = program("libfaketime.so.1", &folders, "libfaketime")?;
    Ok(variables(library.display().to_string()))
}

/// The user this process runs as; 0 is root.
fn user_id() -> Result<u32> {
    Ok(std::fs::metadata("/proc/self")?.uid())
}

/// Lets a running process write no file beyond so many bytes, or any again. Writes beyond it fail,
/// also where the file has these bytes already.
async fn limit_files(process: u32, bytes: Option<u64>) -> Result<()> {
    let bytes = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    // Only the soft limit, which everybody may raise again.
    let (process, limit) = (process.to_string(), format!("--fsize={bytes}:"));
    let prlimit = program("prlimit", &[], "util-linux")?;
    let arguments = ["--pid", &process, &limit].map(OsStr::new);
    run(prlimit, &arguments).await.map(drop)
}

/// Runs a program to its end and returns what it printed, without the last line break.
async fn run(program: impl AsRef<OsStr>, arguments: &[&OsStr]) -> Result<String> {
    let program = program.as_ref();
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} {}: {}",
            program.display(),
            output.status,
            complaint.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
