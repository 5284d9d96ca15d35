//! Three real sentinels, a master and a replica: the bus and presence go where the master is.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rookery::bus::Channel;
use rookery::clock::Clock;
use rookery::lifecycle::Tasks;
use rookery::presence::{Presence, RedisPresence, RedisPresenceOptions};
use rookery_test_support::eventually;
use rookery_test_support::servers::Redis;
use rookery_test_support::servers::ports::{self, Port};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::bench::{Bench, channel};

/// What the sentinels call the master.
const SERVICE: &str = "news";
/// How soon after the sentinels agreed everything is where they say.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

struct Sentinel {
    process: Child,
    port: Port,
}

impl Sentinel {
    fn start(folder: &Path, master: u16) -> Self {
        let port = ports::reserve().unwrap();
        let number = port.number();
        let own = folder.join(number.to_string());
        std::fs::create_dir(&own).unwrap();
        let settings = format!(
            "port {number}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 5000\n\
             sentinel auth-user {SERVICE} sentinel\n\
             sentinel auth-pass {SERVICE} any\n",
            own.display()
        );
        let file = own.join("sentinel.conf");
        std::fs::write(&file, settings).unwrap();
        let process = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server, as a sentinel");
        Self { process, port }
    }

    async fn ask(&self, question: &[&str]) -> String {
        let answer = Command::new("redis-cli")
            .args(["-p", &self.port.number().to_string()])
            .args(question)
            .output();
        let answer = answer.await.expect("redis-cli").stdout;
        String::from_utf8(answer).unwrap()
    }

    /// The port of the master, as this sentinel says.
    async fn names(&self) -> Option<u16> {
        let answer = self
            .ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE])
            .await;
        answer.lines().nth(1)?.trim().parse().ok()
    }
}

struct Watched {
    master: Redis,
    replica: Redis,
    sentinels: Vec<Sentinel>,
    _folder: TempDir,
}

impl Watched {
    /// Sentinels, replica and nodes have accounts of their own, so that some can be shut out.
    async fn start() -> Self {
        let (master, replica) = (Redis::start().await.unwrap(), Redis::start().await.unwrap());
        for redis in [&master, &replica] {
            for account in ["sentinel", "replica", "node"] {
                let allow = [
                    "ACL", "SETUSER", account, "on", "nopass", "~*", "&*", "+@all",
                ];
                redis.cli(&allow).await.unwrap();
            }
            let as_replica = [
                "CONFIG",
                "SET",
                "masteruser",
                "replica",
                "masterauth",
                "any",
            ];
            redis.cli(&as_replica).await.unwrap();
        }
        let port = master.port().to_string();
        replica
            .cli(&["REPLICAOF", "127.0.0.1", &port])
            .await
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sentinels: Vec<_> = (0..3)
            .map(|_| Sentinel::start(folder.path(), master.port()))
            .collect();
        for sentinel in &sentinels {
            eventually("the sentinels know all there is", async || {
                let known = sentinel.ask(&["SENTINEL", "MASTER", SERVICE]).await;
                known.contains("num-slaves\n1\n") && known.contains("num-other-sentinels\n2\n")
            })
            .await;
        }
        Self {
            master,
            replica,
            sentinels,
            _folder: folder,
        }
    }

    fn url(&self) -> String {
        let ports: Vec<u16> = self.sentinels.iter().map(|it| it.port.number()).collect();
        format!(
            "redis-sentinel://node:any@127.0.0.1:{}?node=127.0.0.1:{}&node=127.0.0.1:{}\
             &sentinelServiceName={SERVICE}",
            ports[0], ports[1], ports[2]
        )
    }

    /// Leaves the master to the nodes: neither the sentinels nor the replica get in any more.
    async fn isolate_master(&self) {
        // Whoever is shut out comes back as `default`, which may still say what tests ask.
        let orders: [&[&str]; 6] = [
            &["ACL", "SETUSER", "sentinel", "off"],
            &["ACL", "SETUSER", "replica", "off"],
            &[
                "ACL", "SETUSER", "default", "-@all", "+echo", "+pubsub", "+client", "+acl",
            ],
            &["CLIENT", "KILL", "USER", "sentinel"],
            &["CLIENT", "KILL", "USER", "replica"],
            &["ACL", "SETUSER", "default", "-client", "-acl"],
        ];
        for order in orders {
            self.master.cli(order).await.unwrap();
        }
    }

    /// Waits until two sentinels name the replica as the master.
    async fn failed_over(&self) {
        eventually("the sentinels agree on the replica", async || {
            let mut votes = 0;
            for sentinel in &self.sentinels {
                votes += u8::from(sentinel.names().await == Some(self.replica.port()));
            }
            votes >= 2
        })
        .await;
    }

    /// Waits until a bus subscribes there.
    async fn hosts(&self, redis: &Redis, channel: &Channel) {
        eventually("the subscriber is there", async || {
            let name = channel.name();
            let heard = redis.cli(&["PUBSUB", "NUMSUB", &name]).await.unwrap();
            heard.ends_with("\n1")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() {
    let mut watched = Watched::start().await;
    let bench = Bench::redis_up(&watched.url()).await;
    let channel = channel();
    bench.hears_after_subscribing(&channel).await;
    watched.hosts(&watched.master, &channel).await;
    // Two of three are enough.
    watched.sentinels[0].process.kill().await.unwrap();
    let killed = Instant::now();
    watched.master.kill().await.unwrap();
    bench.down().await;
    watched.failed_over().await;
    let agreed = Instant::now();
    bench.up().await;
    let took = agreed.elapsed();
    eprintln!(
        "up {took:?} after the failover, {:?} after the master died",
        killed.elapsed()
    );
    assert!(took < FOLLOWED_WITHIN, "{took:?}");
    watched.hosts(&watched.replica, &channel).await;
    bench.hears(&channel, &bench).await;
}

/// Nothing breaks and nothing is refused: the old master goes on, and is master no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_stays_on_an_island() {
    let watched = Watched::start().await;
    let bench = Bench::redis_up(&watched.url()).await;
    let tasks = Tasks::new();
    let options = RedisPresenceOptions {
        url: watched.url(),
        node_id: "node".to_owned(),
        neighbours: Arc::default(),
    };
    let presence = RedisPresence::start(&options, Arc::default(), Clock::system(), &tasks).unwrap();
    eventually("presence is reachable", async || presence.is_reachable()).await;
    let channel = channel();
    bench.hears_after_subscribing(&channel).await;
    watched.hosts(&watched.master, &channel).await;

    watched.isolate_master().await;
    watched.failed_over().await;
    let agreed = Instant::now();
    watched.hosts(&watched.replica, &channel).await;
    bench.up().await;
    eventually("presence is there too", async || {
        let leases = watched.replica.cli(&["EXISTS", "rookery:v1:nodes"]).await;
        leases.unwrap() == "1" && presence.is_reachable()
    })
    .await;
    let took = agreed.elapsed();
    eprintln!("off the island {took:?} after the failover");
    assert!(took < FOLLOWED_WITHIN, "{took:?}");
    let alive = watched.master.cli(&["ECHO", "alive"]).await;
    assert_eq!(alive.unwrap(), "alive");
    bench.hears(&channel, &bench).await;
    tasks.stopping().cancel();
}
