//! A cluster of one's own for a measurement: PostgreSQL and Redis as in production, and nodes of
//! the `rookery` binary, all on this machine, in a temporary folder and on free ports. Nothing of
//! it outlives the load test, however that ends.

mod node;
mod ops;
mod peer;
mod postgres;
mod redis;
mod server;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::calm::Calm;
use crate::dialect::Dialect;
use crate::disk::Disk;
use crate::meter::{GATEWAY, REDIS, Role};
use crate::peer::Peer;
use crate::population::bulk::{Bulk, Tables};
use node::Node;
pub(crate) use ops::{Metrics, Ops};
use redis::Redis;
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
    /// Files of 16 MiB that PostgreSQL's write-ahead log has to reuse from the start; to make one holds
    /// up every commit, which a database that has run for a day does no more
    #[arg(long, global = true, env = "LOADTEST_WAL_FILES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(..=256))]
    pub wal_files: u16,
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
    /// Where PostgreSQL's data are.
    pub disk: Disk,
    pub calm: Calm,
    // What is running, in the order in which it is stopped.
    nodes: Vec<Node>,
    redis: Redis,
    _postgres: Server,
    _folder: TempDir,
}

impl Rig {
    /// Starts it, and waits until every node is ready: nodes of Rookery, or of a peer.
    ///
    /// # Errors
    /// A program is missing, or one does not come up: its last words.
    pub(crate) async fn start(options: &SpawnOptions, peer: Option<&Peer>) -> anyhow::Result<Self> {
        let program = match peer {
            Some(peer) => peer.start.clone(),
            None => rookery(options.rookery.as_deref())?,
        };
        let folder = tempfile::Builder::new()
            .prefix("rookery-loadtest-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .context("no temporary folder")?;
        eprintln!(
            "starting PostgreSQL, Redis and {} nodes of {}",
            options.nodes,
            program.display()
        );
        let calm = tokio::task::spawn_blocking(Calm::look).await?;
        let disk = Disk::of(folder.path())?;
        if disk.is_memory() {
            eprintln!("{disk}: set TMPDIR to a folder on a disk");
        }
        let postgres = postgres::start(folder.path(), options.wal_files).await?;
        let redis = Redis::start(folder.path()).await?;
        let bulk = Bulk {
            psql: postgres.psql,
            database_url: postgres.url,
            data: postgres.data,
            jwt_secret: JWT_SECRET.to_owned(),
            tables: match peer.map(|peer| peer.dialect) {
                None => Tables::Rookery,
                Some(Dialect::Xmpp) => Tables::Nobody,
                Some(_) => Tables::Peer,
            },
        };
        let nodes = match peer {
            Some(peer) => peers(folder.path(), peer, options.nodes, &bulk, &redis.url).await?,
            None => nodes(folder.path(), &program, options, &bulk, &redis.url).await?,
        };
        let role = |name: &str, pids| Role {
            name: name.to_owned(),
            pids,
        };
        let roles = vec![
            role(
                GATEWAY,
                nodes.iter().map(|node| node.server.pid()).collect(),
            ),
            role("postgres", vec![postgres.server.pid()]),
            role(REDIS, redis.pids()),
        ];
        Ok(Self {
            targets: nodes.iter().map(|node| node.url.clone()).collect(),
            roles,
            bulk,
            disk,
            calm,
            nodes,
            redis,
            _postgres: postgres.server,
            _folder: folder,
        })
    }

    /// Where Rookery's nodes say what they count, in the order of the targets.
    pub(crate) fn ops(&self) -> Vec<Ops> {
        self.nodes
            .iter()
            .filter_map(|node| node.ops.clone())
            .collect()
    }

    /// Kills Redis; returns once it is gone.
    pub(crate) fn kill_redis(&mut self) {
        self.redis.kill();
    }

    /// Starts Redis again, empty; returns its processes once it answers.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn start_redis(&mut self) -> anyhow::Result<Vec<u32>> {
        self.redis.run().await?;
        Ok(self.redis.pids())
    }

    /// Asks the node of this target to end in order.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn terminate_node(&self, target: usize) -> anyhow::Result<()> {
        self.nodes[target].server.terminate()
    }

    /// How the node of this target ended, once it did.
    pub(crate) fn exit_code_of_node(&self, target: usize) -> Option<i32> {
        self.nodes[target].server.exit_code()
    }
}

async fn nodes(
    folder: &Path,
    binary: &Path,
    options: &SpawnOptions,
    bulk: &Bulk,
    redis_url: &str,
) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for number in 1..=options.nodes {
        let settings = node::Settings {
            binary,
            number,
            database_url: &bulk.database_url,
            redis_url,
            jwt_secret: &bulk.jwt_secret,
            workers: options.workers,
            extra: &options.extra,
        };
        nodes.push(node::start(folder, &settings).await?);
    }
    Ok(nodes)
}

async fn peers(
    folder: &Path,
    peer: &Peer,
    count: u8,
    bulk: &Bulk,
    redis_url: &str,
) -> anyhow::Result<Vec<Node>> {
    let schema = std::fs::read_to_string(&peer.schema);
    let schema = schema.with_context(|| peer.schema.display().to_string())?;
    bulk.run(&schema).await?;
    let shared = peer::Shared {
        peer,
        database_url: &bulk.database_url,
        redis_url,
        jwt_secret: &bulk.jwt_secret,
        cluster_port: free_port()?,
    };
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(peer::start(folder, number, &shared).await?);
    }
    Ok(nodes)
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
