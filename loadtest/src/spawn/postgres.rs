//! PostgreSQL with `fsync` and `synchronous_commit` on: what it costs is what it costs in
//! production.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::server::Server;
use super::{free_port, program};

const PACKAGE: &str = "postgresql";
/// The system user that Debian's package makes; PostgreSQL refuses to run as root.
const OWNER: &str = "postgres";

const WAL_FILE_MB: u16 = 16;
/// PostgreSQL's default, 80 MB.
const WAL_FILES_MIN: u16 = 5;

pub(super) struct Postgres {
    pub(super) server: Server,
    pub(super) url: String,
    pub(super) psql: PathBuf,
    /// Where its data are.
    pub(super) data: PathBuf,
}

/// Starts one whose write-ahead log has so many files of 16 MiB to reuse, as one that has run for a day:
/// making a file holds up every commit for 20 to 30 ms, at 15,000 messages a second once a second.
pub(super) async fn start(folder: &Path, wal_files: u16) -> anyhow::Result<Postgres> {
    let folders = debian_folders();
    let psql = program("psql", &folders, PACKAGE)?;
    let folder = folder.join("postgres");
    fs::create_dir(&folder)?;
    let as_owner = as_owner(&folder).await?;
    let data = folder.join("data");

    let mut initdb = as_owner.clone();
    initdb.push(program("initdb", &folders, PACKAGE)?.into());
    initdb.extend(["-D".into(), data.clone().into()]);
    // Nothing is worth saving from a crash before the first commit: `--no-sync`.
    let options = [
        "-U",
        "rookery",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ];
    initdb.extend(options.map(OsString::from));
    run(&initdb).await?;

    let port = free_port()?;
    let mut command = as_owner;
    command.push(program("postgres", &folders, PACKAGE)?.into());
    command.extend([
        "-D".into(),
        data.clone().into(),
        "-k".into(),
        folder.clone().into(),
    ]);
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        // All of a report's database, so that commits write no pages for want of room; everything else
        // is PostgreSQL's default.
        "shared_buffers=1GB".to_owned(),
        "max_wal_size=4GB".to_owned(),
        format!(
            "min_wal_size={}MB",
            WAL_FILE_MB * wal_files.max(WAL_FILES_MIN)
        ),
    ];
    command.extend(
        settings
            .into_iter()
            .flat_map(|setting| ["-c".into(), setting.into()]),
    );
    // INT is the fast shutdown.
    let server = Server::start("PostgreSQL", &folder, "INT", command, &[])?;
    let url = format!("postgres://rookery@127.0.0.1:{port}/postgres");
    let probe: Vec<OsString> = vec![
        psql.clone().into(),
        "-qtAc".into(),
        "select 1".into(),
        url.clone().into(),
    ];
    server.ready(async || run(&probe).await.is_ok()).await?;
    if wal_files > 0 {
        run(&fill_wal(&psql, &url, wal_files)).await?;
    }
    Ok(Postgres {
        server,
        url,
        psql,
        // Its own one lets nobody else in.
        data: folder,
    })
}

/// Begins so many files of the write-ahead log, which the checkpoint after it leaves for reuse.
fn fill_wal(psql: &Path, url: &str, files: u16) -> Vec<OsString> {
    let begin = format!(
        "select pg_logical_emit_message(true, '', ''), pg_switch_wal() from generate_series(1, {files})"
    );
    let arguments = ["-qtAc", &begin, "-c", "checkpoint", url];
    std::iter::once(psql.into())
        .chain(arguments.map(OsString::from))
        .collect()
}

/// What a command begins with, to run as somebody who may run PostgreSQL; gives them the folder.
async fn as_owner(folder: &Path) -> anyhow::Result<Vec<OsString>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(Vec::new());
    }
    let setpriv = program("setpriv", &[], "util-linux")?;
    let chown: [OsString; 3] = ["chown".into(), OWNER.into(), folder.into()];
    run(&chown)
        .await
        .with_context(|| format!("there is no user {OWNER}: install {PACKAGE}"))?;
    let options = [
        format!("--reuid={OWNER}"),
        format!("--regid={OWNER}"),
        "--init-groups".into(),
    ];
    Ok([setpriv.into()]
        .into_iter()
        .chain(options.map(OsString::from))
        .collect())
}

/// Where Debian keeps the server's programs, the newest version first.
fn debian_folders() -> Vec<PathBuf> {
    let Ok(versions) = fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut folders: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort_by_key(|path| std::cmp::Reverse(version(path)));
    folders.into_iter().map(|path| path.join("bin")).collect()
}

async fn run(command: &[OsString]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    // Not the folder that this was started in: the owner may not be allowed to enter it.
    let output = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("starting {}", program.display()))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} failed: {words}",
        program.display()
    );
    Ok(())
}
