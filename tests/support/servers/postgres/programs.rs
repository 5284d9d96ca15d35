//! PostgreSQL's own programs: where they are, which user may run them, how the server is started.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::super::ports::Port;
use super::super::{Supervised, folder_with, run, user_id};

const NEEDED: [&str; 5] = ["postgres", "initdb", "pg_basebackup", "pg_isready", "psql"];

/// Where PostgreSQL's programs are, and who may run them.
#[derive(Clone)]
pub(super) struct Programs {
    folder: PathBuf,
    /// PostgreSQL refuses to run as root; then everything runs as the user `postgres`.
    as_postgres: bool,
}

impl Programs {
    pub(super) fn find() -> Result<Self> {
        // Debian keeps each major version in a folder of its own, outside the PATH.
        let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let version = entry.file_name().to_str()?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .collect();
        debian.sort();
        let newest_first: Vec<PathBuf> = debian.into_iter().rev().map(|(_, path)| path).collect();
        let folder = folder_with(&NEEDED, &newest_first, "postgresql")?;
        Ok(Self {
            folder,
            as_postgres: user_id()? == 0,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The beginning of a command line that runs `name` as the owner of the data.
    pub(super) fn as_owner(&self, name: &str) -> Vec<OsString> {
        let mut command: Vec<OsString> = Vec::new();
        if self.as_postgres {
            let become_postgres = [
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--init-groups",
                "--",
            ];
            command.extend(become_postgres.map(OsString::from));
        }
        command.push(self.path(name).into());
        command
    }

    pub(super) async fn folder(&self) -> Result<TempDir> {
        let folder = tempfile::Builder::new().prefix("rookery-pg-").tempdir()?;
        if self.as_postgres {
            let arguments = [OsStr::new("postgres:postgres"), folder.path().as_os_str()];
            run("chown", &arguments)
                .await
                .context("is the package postgresql installed?")?;
        }
        Ok(folder)
    }

    pub(super) async fn serve(&self, folder: &TempDir, port: &Port) -> Result<Supervised> {
        let mut command = self.as_owner("postgres");
        command.extend(["-D".into(), folder.path().join("data").into()]);
        let sockets = format!("unix_socket_directories={}", socket_folder(folder.path())?);
        let listen = format!("port={}", port.number());
        let settings = [
            sockets.as_str(),
            listen.as_str(),
            "listen_addresses=127.0.0.1",
            // Many tests at a time, each with the pools of several nodes.
            "max_connections=200",
            "fsync=on",
            "synchronous_commit=on",
            "hot_standby=on",
            // A paused standby must not cancel the queries of a test.
            "max_standby_streaming_delay=-1",
        ];
        for setting in settings {
            command.extend(["-c".into(), setting.into()]);
        }
        let process = Supervised::start("postgres", folder.path(), "QUIT", command)?;
        let is_ready = self.path("pg_isready");
        let number = port.number().to_string();
        let arguments = ["-q", "-h", "127.0.0.1", "-p", number.as_str()].map(OsStr::new);
        process
            .ready(async || Ok(run(&is_ready, &arguments).await.is_ok()))
            .await?;
        Ok(process)
    }
}

/// The kernel takes 107 bytes for the name of a socket, and PostgreSQL adds 20.
fn socket_folder(folder: &Path) -> Result<&str> {
    let name = folder
        .to_str()
        .context("the temporary folder's name is not UTF-8")?;
    if name.len() > 85 {
        bail!("{name} is too long for PostgreSQL's sockets: set TMPDIR to a shorter path");
    }
    Ok(name)
}
