//! PostgreSQL as in production, `fsync` on, in a temporary folder. A fresh database per test keeps
//! tests apart; a private server is for tests that stop it or read from a standby.

use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep};

use super::ports::{self, Port};
use super::{LOOK_EVERY, START_WITHIN, Supervised, run};

mod programs;

use programs::Programs;

/// The superuser of test servers. Connections from this machine need no password.
const USER: &str = "rookery";

pub struct Postgres {
    process: Mutex<Supervised>,
    programs: Programs,
    port: Port,
    folder: TempDir,
    databases: AtomicU32,
}

impl Postgres {
    /// The one server that the tests of this binary share, each with a database of its own.
    ///
    /// # Panics
    /// With the reason, when it cannot be started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED
            .get_or_try_init(Self::start)
            .await
            .unwrap_or_else(|error| panic!("no PostgreSQL for the tests: {error:#}"))
    }

    /// A private server.
    pub async fn start() -> Result<Self> {
        let programs = Programs::find()?;
        let folder = programs.folder().await?;
        let data = folder.path().join("data");
        let mut command = programs.as_owner("initdb");
        command.extend(["-D".into(), data.into()]);
        // Nothing is worth saving from a crash before the first commit: `--no-sync`.
        let options = [
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ];
        command.extend(options.map(OsString::from));
        run_all(&command).await?;
        Self::launch(programs, folder).await
    }

    /// A standby that follows this server by streaming and answers reading queries.
    pub async fn standby(&self) -> Result<Self> {
        let programs = self.programs.clone();
        let folder = programs.folder().await?;
        let data = folder.path().join("data");
        let mut command = programs.as_owner("pg_basebackup");
        command.extend([
            "-d".into(),
            self.url("postgres").into(),
            "-D".into(),
            data.into(),
        ]);
        let options = [
            "-R",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
        ];
        command.extend(options.map(OsString::from));
        run_all(&command).await?;
        Self::launch(programs, folder).await
    }

    async fn launch(programs: Programs, folder: TempDir) -> Result<Self> {
        let port = ports::reserve()?;
        let process = Mutex::new(programs.serve(&folder, &port).await?);
        Ok(Self {
            process,
            programs,
            port,
            folder,
            databases: AtomicU32::new(0),
        })
    }

    /// The URL of a new, empty database.
    ///
    /// # Panics
    /// With the reason, when PostgreSQL refuses.
    pub async fn fresh_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        // Nobody ever connects to template0, so nobody is in the way of copying it.
        self.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE template0"),
        )
        .await
        .unwrap_or_else(|error| panic!("no database for the test: {error:#}"));
        self.url(&name)
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@{}/{database}", self.port.address())
    }

    /// The same database as `url` names, on this server: how to reach a test's database on the
    /// standby.
    pub fn same_database(&self, url: &str) -> String {
        let database = url.rsplit('/').next().unwrap_or_default();
        self.url(database)
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Runs SQL through `psql`; returns the rows as lines, their columns separated by `|`.
    /// Several statements at once are one transaction.
    pub async fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let url = self.url(database);
        let arguments = [
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            url.as_str(),
            "-c",
            statement,
        ];
        run(self.programs.path("psql"), &arguments.map(OsStr::new)).await
    }

    /// Ends every connection to a database, as an operator may; returns how many there were.
    pub async fn terminate_backends(&self, database: &str) -> Result<u64> {
        let killed = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        );
        Ok(self.sql(database, &killed).await?.parse()?)
    }

    /// Takes every connection that is left, until the streams are dropped.
    pub async fn crowd_out(&self, database: &str) -> Result<Vec<TcpStream>> {
        let words = format!("user\0{USER}\0database\0{database}\0\0");
        let length = u32::try_from(words.len() + 8)?.to_be_bytes();
        let startup = [&length[..], &[0, 3, 0, 0], words.as_bytes()].concat();
        let mut crowd = Vec::new();
        loop {
            let mut stream = TcpStream::connect(self.port.address()).await?;
            stream.write_all(&startup).await?;
            // Anything but a greeting is PostgreSQL's way to say that it is full.
            if stream.read_u8().await? != b'R' {
                return Ok(crowd);
            }
            crowd.push(stream);
        }
    }

    /// SIGQUIT: every connection breaks, nothing is written any more, as in a crash. Returns when
    /// all processes are gone; the next start replays the log.
    pub async fn stop_immediate(&self) -> Result<()> {
        let process = self.process.lock().await;
        process.signal("QUIT")?;
        process.ended().await
    }

    /// Starts it again on the same port with the same data; crashes it first when it still runs.
    pub async fn restart(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        if process.is_running()? {
            process.signal("QUIT")?;
            process.ended().await?;
        }
        *process = self.programs.serve(&self.folder, &self.port).await?;
        Ok(())
    }

    /// On a standby: keeps what arrives but shows none of it, until [`Postgres::resume_replay`].
    pub async fn pause_replay(&self) -> Result<()> {
        self.sql("postgres", "SELECT pg_wal_replay_pause()").await?;
        self.until("SELECT pg_get_wal_replay_pause_state() = 'paused'")
            .await
    }

    pub async fn resume_replay(&self) -> Result<()> {
        self.sql("postgres", "SELECT pg_wal_replay_resume()")
            .await
            .map(drop)
    }

    /// On a standby: waits until it shows all that `primary` has committed by now.
    pub async fn caught_up_with(&self, primary: &Self) -> Result<()> {
        let end = primary
            .sql("postgres", "SELECT pg_current_wal_lsn()")
            .await?;
        self.until(&format!(
            "SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn"
        ))
        .await
    }

    /// Makes a standby a primary on a new timeline. The old primary is not stopped.
    pub async fn promote(&self) -> Result<()> {
        self.sql("postgres", "SELECT pg_promote()").await?;
        self.until("SELECT NOT pg_is_in_recovery()").await
    }

    async fn until(&self, question: &str) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while self.sql("postgres", question).await? != "t" {
            if Instant::now() > deadline {
                bail!("PostgreSQL never said yes to: {question}");
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

async fn run_all(command: &[OsString]) -> Result<String> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    run(program, &arguments).await
}
