//! A master and a replica of Redis, watched by three sentinels that make the other the master when
//! one fails.
//!
//! Each Redis is known to all, to sentinels too, by a link of its own that breaks on command: a
//! master may be cut off from everybody, or from the sentinels alone while its clients still talk to
//! it.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::ports::{self, Port};
use super::redis::answers_ping;
use super::{LOOK_EVERY, Redis, START_WITHIN, Supervised, program, run};
use crate::proxy::RedisProxy;

/// What the sentinels call the pair.
pub const SERVICE: &str = "rookery";
/// A majority decides.
const COUNT: usize = 3;
/// How long a master must be silent to be held for dead: longer than a busy machine may keep a
/// healthy one from answering.
pub const DOWN_AFTER: Duration = Duration::from_secs(3);

pub struct Sentinels {
    watchers: Vec<Watcher>,
    members: Vec<Member>,
}

/// Addresses of a pair and its sentinels.
#[derive(Clone)]
pub(crate) struct Places {
    /// The port by which sentinels know a server, and where it is.
    pub(crate) members: Vec<(u16, SocketAddr)>,
    pub(crate) watchers: Vec<SocketAddr>,
}

/// One sentinel.
struct Watcher {
    _process: Supervised,
    port: Port,
    _folder: TempDir,
}

/// One of the two servers.
struct Member {
    redis: Redis,
    way: RedisProxy,
}

impl Sentinels {
    /// Returns when the sentinels know each other and the replica. Member 0 is the master then.
    pub async fn start() -> Result<Self> {
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..2 {
            let master = members.first().map(|master| master.way.address().port());
            members.push(Member::start(master).await?);
        }
        let mut watchers = Vec::new();
        for _ in 0..COUNT {
            watchers.push(Watcher::start(members[0].way.address().port()).await?);
        }
        let sentinels = Self { watchers, members };
        sentinels.are_ready().await?;
        Ok(sentinels)
    }

    /// All of the sentinels, as nodes take it.
    pub fn url(&self) -> String {
        let addresses = self.watchers.iter().map(|watcher| watcher.port.address());
        url_of(&addresses.collect::<Vec<_>>())
    }

    /// Where everything is.
    pub(crate) fn places(&self) -> Places {
        let members = self.members.iter();
        let watchers = self.watchers.iter();
        Places {
            members: members
                .map(|member| (member.way.address().port(), member.redis.address()))
                .collect(),
            watchers: watchers.map(|watcher| watcher.port.address()).collect(),
        }
    }

    /// One of the two, whatever it is at present.
    pub fn redis(&self, member: usize) -> &Redis {
        &self.members[member].redis
    }

    /// The way to it, for clients and sentinels.
    pub fn way(&self, member: usize) -> &RedisProxy {
        &self.members[member].way
    }

    /// Both.
    pub fn servers(&self) -> impl Iterator<Item = &Redis> {
        self.members.iter().map(|member| &member.redis)
    }

    /// Which of the two is the master, as the sentinels say.
    pub async fn master(&self) -> Result<usize> {
        let told = self.ask(&["get-master-addr-by-name", SERVICE]).await?;
        let port = told.lines().nth(1).context("there is no master")?;
        let is_it = |member: &Member| member.way.address().port().to_string() == port;
        let found = self.members.iter().position(is_it);
        found.context("the master is none of the two")
    }

    /// Waits until the sentinels have agreed on this master.
    pub async fn until_master_is(&self, member: usize) -> Result<()> {
        let what = format!("member {member} is the master");
        self.until(&what, async || Ok(self.master().await? == member))
            .await
    }

    /// From now on a master must be silent for so long to be held for dead.
    pub async fn set_patience(&self, patience: Duration) -> Result<()> {
        let millis = patience.as_millis().to_string();
        for watcher in &self.watchers {
            let set = ["set", SERVICE, "down-after-milliseconds", &millis];
            watcher.ask(&set).await?;
        }
        Ok(())
    }

    /// Makes the other one the master, with both of them alive.
    pub async fn fail_over(&self) -> Result<()> {
        self.ask(&["failover", SERVICE]).await.map(drop)
    }

    /// Waits until the sentinels know each other, and the other one follows the master.
    pub async fn are_ready(&self) -> Result<()> {
        self.until(
            "the sentinels know each other and the replica",
            async || {
                let enough = self.ask(&["ckquorum", SERVICE]).await;
                let enough = enough.is_ok_and(|told| told.starts_with("OK 3"));
                let replicas = self.ask(&["replicas", SERVICE]).await?;
                let in_step = replicas.lines().any(|line| line == "ok");
                Ok(enough && in_step)
            },
        )
        .await
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while !is_so().await? {
            if Instant::now() > deadline {
                bail!("never happened: {what}");
            }
            sleep(LOOK_EVERY * 10).await;
        }
        Ok(())
    }

    /// Asks the first sentinel.
    async fn ask(&self, arguments: &[&str]) -> Result<String> {
        self.watchers[0].ask(arguments).await
    }
}

/// As nodes take it.
pub(crate) fn url_of(sentinels: &[SocketAddr]) -> String {
    let nodes = sentinels[1..].iter().map(|node| format!("node={node}&"));
    let (first, nodes) = (sentinels[0], nodes.collect::<String>());
    format!("redis-sentinel://{first}?{nodes}sentinelServiceName={SERVICE}")
}

impl Member {
    /// A replica of the master that is known by this port, or a master.
    async fn start(master: Option<u16>) -> Result<Self> {
        // The way must be known before its end: Redis announces it from its start on.
        let port = ports::reserve()?;
        let way = RedisProxy::start(port.address()).await?;
        let announced = way.address().port();
        // A new replica must not wait for others before it gets its copy, nor keep it on disk.
        let mut more = format!(
            "replica-announce-ip 127.0.0.1\nreplica-announce-port {announced}\n\
             repl-diskless-sync-delay 0\nrdb-del-sync-files yes\n"
        );
        if let Some(master) = master {
            more += &format!("replicaof 127.0.0.1 {master}\n");
        }
        let redis = Redis::start_on(port, &more).await?;
        Ok(Self { redis, way })
    }
}

impl Watcher {
    async fn start(master: u16) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("rookery-sentinel-")
            .tempdir()?;
        let port = ports::reserve()?;
        let path = folder.path().display();
        let (number, down_after) = (port.number(), DOWN_AFTER.as_millis());
        let config = format!(
            "port {number}\nbind 127.0.0.1\ndir {path}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} {down_after}\n\
             sentinel failover-timeout {SERVICE} 5000\n"
        );
        // Sentinels write into it what they find out.
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, config)?;
        let server = program("redis-server", &[], "redis-server")?;
        let command: [OsString; 3] = [server.into(), file.into(), "--sentinel".into()];
        let process = Supervised::start("sentinel", folder.path(), "TERM", command)?;
        process
            .ready(async || Ok(answers_ping(&port).await.unwrap_or(false)))
            .await?;
        Ok(Self {
            _process: process,
            port,
            _folder: folder,
        })
    }

    async fn ask(&self, arguments: &[&str]) -> Result<String> {
        let port = self.port.number().to_string();
        let cli = program("redis-cli", &[], "redis-tools")?;
        let all = ["-h", "127.0.0.1", "-p", &port, "-e", "sentinel"];
        let all: Vec<&OsStr> = all.iter().chain(arguments).map(OsStr::new).collect();
        run(cli, &all).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{Mode, Role};

    #[tokio::test]
    async fn a_master_that_the_sentinels_lose_is_replaced() -> Result<()> {
        let sentinels = Sentinels::start().await?;
        assert_eq!(sentinels.master().await?, 0);
        sentinels.redis(0).cli(&["SET", "a", "1"]).await?;
        assert!(sentinels.way(0).connections_for(Role::Sentinel) >= COUNT);
        sentinels.way(0).set_for(Role::Sentinel, Mode::Blackhole);
        sentinels.until_master_is(1).await?;
        sentinels.redis(1).cli(&["SET", "b", "1"]).await?;
        assert_eq!(sentinels.redis(1).cli(&["GET", "a"]).await?, "1");

        // It stays the master over a restart, which those who are patient make nothing of.
        sentinels.set_patience(START_WITHIN).await?;
        sentinels.redis(1).restart().await?;
        assert_eq!(sentinels.redis(1).cli(&["DBSIZE"]).await?, "0");
        let role = sentinels.redis(1).cli(&["ROLE"]).await?;
        assert!(role.starts_with("master"), "{role}");
        assert_eq!(sentinels.master().await?, 1);
        Ok(())
    }
}
