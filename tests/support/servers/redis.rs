//! A Redis of one's own: nothing on disk, so a restart always comes back empty.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use super::ports::{self, Port};
use super::{LOOK_EVERY, Supervised, program, run};

const CONFIG: &str = "redis.conf";

pub struct Redis {
    process: Mutex<Supervised>,
    cli: PathBuf,
    port: Port,
    folder: TempDir,
}

impl Redis {
    /// The one Redis that the tests of this binary share. Never kill it, flush it or reconfigure
    /// it: tests that do such things start their own.
    ///
    /// # Panics
    /// With the reason, when it cannot be started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Redis> = OnceCell::const_new();
        SHARED
            .get_or_try_init(Self::start)
            .await
            .unwrap_or_else(|error| panic!("no Redis for the tests: {error:#}"))
    }

    pub async fn start() -> Result<Self> {
        Self::start_on(ports::reserve()?, "").await
    }

    /// With more settings, as lines of its file. What sentinels make of it stands there, too, and
    /// counts after a restart.
    pub(super) async fn start_on(port: Port, more: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("rookery-redis-")
            .tempdir()?;
        std::fs::write(folder.path().join(CONFIG), more)?;
        let process = Mutex::new(launch(&folder, &port).await?);
        let cli = program("redis-cli", &[], "redis-tools")?;
        Ok(Self {
            process,
            cli,
            port,
            folder,
        })
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// SIGKILL; returns when the process is gone and the port refuses connections.
    pub async fn kill(&self) -> Result<()> {
        let process = self.process.lock().await;
        process.signal("KILL")?;
        process.ended().await
    }

    /// SIGSTOP: connections stay open and nothing answers, as on a machine that hangs. Returns when
    /// that is so.
    pub async fn freeze(&self) -> Result<()> {
        self.process.lock().await.signal("STOP")?;
        while timeout(LOOK_EVERY * 10, answers_ping(&self.port))
            .await
            .is_ok_and(|answered| answered.is_ok())
        {}
        Ok(())
    }

    /// Ends [`Redis::freeze`].
    pub async fn thaw(&self) -> Result<()> {
        self.process.lock().await.signal("CONT")
    }

    /// Comes back empty on the same port; kills it first when it still runs.
    pub async fn restart(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        if process.is_running()? {
            process.signal("KILL")?;
            process.ended().await?;
        }
        *process = launch(&self.folder, &self.port).await?;
        Ok(())
    }

    pub async fn flushall(&self) -> Result<()> {
        self.cli(&["FLUSHALL"]).await.map(drop)
    }

    /// Throws out all clients of a kind, `normal` or `pubsub`; returns how many there were.
    pub async fn kill_clients(&self, kind: &str) -> Result<u64> {
        let killed = self.cli(&["CLIENT", "KILL", "TYPE", kind]).await?;
        Ok(killed.parse()?)
    }

    /// Answers nobody for so long, though it goes on reading.
    pub async fn pause_clients(&self, time: Duration) -> Result<()> {
        let millis = time.as_millis().to_string();
        self.cli(&["CLIENT", "PAUSE", &millis, "ALL"])
            .await
            .map(drop)
    }

    /// Publishes so many MiB of nothing on a channel, one after the other: whoever reads keeps up.
    pub async fn flood(&self, channel: &str, mebibytes: usize) -> Result<()> {
        const ONE: &str = "local nothing = string.rep('x', 65536) \
                           for i = 1, 16 do redis.call('PUBLISH', KEYS[1], nothing) end";
        for _ in 0..mebibytes {
            self.cli(&["EVAL", ONE, "1", channel]).await?;
        }
        Ok(())
    }

    /// Does nothing at all for so long; returns when that is over.
    pub async fn sleep(&self, time: Duration) -> Result<()> {
        let seconds = time.as_secs_f64().to_string();
        self.cli(&["DEBUG", "SLEEP", &seconds]).await.map(drop)
    }

    /// Throws out subscribers that fall this far behind.
    pub async fn limit_subscribers(&self, bytes: u64) -> Result<()> {
        let limit = format!("pubsub {bytes} {bytes} 0");
        let name = "client-output-buffer-limit";
        self.cli(&["CONFIG", "SET", name, &limit]).await.map(drop)
    }

    /// Fails to save, and so refuses all writes, and PING, until it is started again.
    pub async fn fail_to_save(&self) -> Result<()> {
        // In the way of the file.
        let way = self.folder.path().join("dump.rdb/full");
        std::fs::create_dir_all(way)?;
        self.cli(&["CONFIG", "SET", "save", "3600 1"]).await?;
        self.cli(&["BGSAVE"]).await?;
        let misses = async || match self.cli(&["PING"]).await {
            Ok(_) => false,
            Err(refused) => format!("{refused:#}").contains("MISCONF"),
        };
        while !misses().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The connections that subscribe, by Redis' numbers: none is used twice.
    pub async fn subscribers(&self) -> Result<BTreeSet<u64>> {
        let list = self.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).await?;
        let mut ids = BTreeSet::new();
        for line in list.lines() {
            let id = line
                .strip_prefix("id=")
                .and_then(|rest| rest.split(' ').next());
            ids.insert(id.context("a client has a number")?.parse()?);
        }
        Ok(ids)
    }

    /// Runs a command through `redis-cli` and returns what it printed. An error reply is an error.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let port = self.port.number().to_string();
        let mut all: Vec<&OsStr> = ["-h", "127.0.0.1", "-p", port.as_str(), "-e"]
            .map(OsStr::new)
            .into();
        all.extend(arguments.iter().map(OsStr::new));
        run(&self.cli, &all).await
    }
}

async fn launch(folder: &TempDir, port: &Port) -> Result<Supervised> {
    let server = program("redis-server", &[], "redis-server")?;
    let path = folder
        .path()
        .to_str()
        .context("the temporary folder's name is not UTF-8")?;
    let number = port.number().to_string();
    let arguments = [
        ["--port", &number],
        ["--bind", "127.0.0.1"],
        ["--dir", path],
        ["--save", ""],
        ["--appendonly", "no"],
        // As on a server: what does not fit is an error, never a silent eviction.
        ["--maxmemory-policy", "noeviction"],
        // DEBUG SLEEP and the like are faults that tests want.
        ["--enable-debug-command", "local"],
    ];
    let config = folder.path().join(CONFIG);
    let command = [server.into_os_string(), config.into_os_string()]
        .into_iter()
        .chain(arguments.as_flattened().iter().map(OsString::from));
    let process = Supervised::start("redis", folder.path(), "TERM", command)?;
    process
        .ready(async || Ok(answers_ping(port).await.unwrap_or(false)))
        .await?;
    Ok(process)
}

pub(super) async fn answers_ping(port: &Port) -> Result<bool> {
    let mut stream = TcpStream::connect(port.address()).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    Ok(&reply == b"+PONG\r\n")
}
