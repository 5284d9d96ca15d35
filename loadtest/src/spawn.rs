//! A cluster of one's own for a measurement: PostgreSQL and Redis as in production, and nodes of
//! the `rookery` binary, all on this machine, in a temporary folder and on free ports. Nothing of
//! it outlives the load test, however that ends.

mod node;
mod postgres;
mod redis;
mod server;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::meter::{GATEWAY, Role};
use crate::population::bulk::Bulk;
use server::Server;

/// Signs tokens of a cluster that lives for one measurement, on the loopback network.
const JWT_SECRET: &str = "a secret of the load test, never to be used elsewhere";

/// What to start.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SpawnOptions {
    /// The server's binary; by default `rookery` beside this program
    #[arg(long, global = true, value_name = "PATH")]
    pub rookery: Option<PathBuf>,
    /// Nodes to start
    #[arg(long, global = true, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: u8,
    /// Worker threads of each node: one, where two nodes share two cores with everything else
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: u16,
    /// A variable of the nodes' environment, such as ROOKERY_FANOUT_DIRECT_MAX=4
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = variable)]
    pub extra: Vec<(String, String)>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("not NAME=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// A running cluster. Dropping it stops everything.
pub(crate) struct Rig {
    pub targets: Vec<String>,
    pub roles: Vec<Role>,
    pub bulk: Bulk,
    /// In the order in which they are stopped.
    _servers: Vec<Server>,
    _folder: TempDir,
}

impl Rig {
    /// Starts it, and waits until every node is ready.
    ///
    /// # Errors
    /// A program is missing, or one does not come up: its last words.
    pub(crate) async fn start(options: &SpawnOptions) -> anyhow::Result<Self> {
        let rookery = rookery(options.rookery.as_deref())?;
        let folder = tempfile::Builder::new()
            .prefix("rookery-loadtest-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .context("no temporary folder")?;
        eprintln!(
            "starting PostgreSQL, Redis and {} nodes of {}",
            options.nodes,
            rookery.display()
        );
        let postgres = postgres::start(folder.path()).await?;
        let redis = redis::start(folder.path()).await?;
        let mut roles = vec![
            Role {
                name: "postgres".into(),
                pids: vec![postgres.server.pid()],
            },
            Role {
                name: "redis".into(),
                pids: vec![redis.server.pid()],
            },
        ];
        let (mut targets, mut servers, mut pids) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=options.nodes {
            let settings = node::Settings {
                binary: &rookery,
                number,
                database_url: &postgres.url,
                redis_url: &redis.url,
                jwt_secret: JWT_SECRET,
                workers: options.workers,
                extra: &options.extra,
            };
            let node = node::start(folder.path(), &settings).await?;
            pids.push(node.server.pid());
            targets.push(node.url);
            servers.push(node.server);
        }
        roles.insert(
            0,
            Role {
                name: GATEWAY.into(),
                pids,
            },
        );
        servers.extend([redis.server, postgres.server]);
        let bulk = Bulk {
            psql: postgres.psql,
            database_url: postgres.url,
            jwt_secret: JWT_SECRET.to_owned(),
        };
        Ok(Self {
            targets,
            roles,
            bulk,
            _servers: servers,
            _folder: folder,
        })
    }
}

fn rookery(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("rookery"),
    };
    if path.is_file() {
        return Ok(path);
    }
    bail!(
        "there is no {}: run `cargo build --release`, or name it with --rookery",
        path.display()
    )
}

/// A port that nothing listens on. The server that gets it listens at once.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A program in the `PATH` or, failing that, in one of these folders.
fn program(name: &str, folders: &[PathBuf], package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).chain(folders.iter().cloned());
    candidates
        .find_map(|folder| Some(folder.join(name)).filter(|program| program.is_file()))
        .with_context(|| format!("there is no {name} on this machine: apt-get install {package}"))
}
