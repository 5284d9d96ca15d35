//! Connections that are dead and do not say so: nothing passes, nothing is closed, and new ones
//! work. Firewalls and cables do that; Redis itself is well all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rookery::bus::{BreakReason, BusDown};
use rookery::clock::Clock;
use rookery::lifecycle::Tasks;
use rookery::presence::{Presence, RedisPresence, RedisPresenceOptions};
use rookery_test_support::eventually;
use rookery_test_support::servers::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::bench::{Bench, channel};

/// Which connections die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Subscriber,
    Publisher,
}

/// A way to Redis whose present connections can be made dead.
struct Firewall {
    address: SocketAddr,
    dead: watch::Sender<[u64; 2]>,
}

impl Firewall {
    async fn before(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dead, _) = watch::channel([0, 0]);
        let tasks = Tasks::new();
        let server = SocketAddr::from(([127, 0, 0, 1], redis.port()));
        let (killed, links) = (dead.clone(), tasks.clone());
        tasks.spawn("firewall", async move {
            while let Ok((node, _)) = listener.accept().await {
                let redis = TcpStream::connect(server).await.unwrap();
                links.spawn("link", link(node, redis, killed.subscribe()));
            }
        });
        Self { address, dead }
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on nothing passes on the connections there are of this kind.
    fn kill(&self, kind: Kind) {
        self.dead.send_modify(|dead| dead[kind as usize] += 1);
    }
}

async fn link(node: TcpStream, redis: TcpStream, mut dead: watch::Receiver<[u64; 2]>) {
    let born = *dead.borrow_and_update();
    let subscribes = AtomicBool::new(false);
    let (from_node, to_node) = node.into_split();
    let (from_redis, to_redis) = redis.into_split();
    let ended = async {
        tokio::select! {
            () = copy(from_node, to_redis, Some(&subscribes)) => {}
            () = copy(from_redis, to_node, None) => {}
        }
    };
    let killed = async {
        while dead.changed().await.is_ok() {
            let subscribes = subscribes.load(Ordering::SeqCst);
            let kind = if subscribes {
                Kind::Subscriber
            } else {
                Kind::Publisher
            };
            if dead.borrow_and_update()[kind as usize] > born[kind as usize] {
                return;
            }
        }
    };
    tokio::pin!(ended);
    tokio::select! {
        () = &mut ended => {}
        // Both ends stay open and nobody reads them any more.
        () = killed => std::future::pending().await,
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, subscribes: Option<&AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(count @ 1..) => {
                if let Some(flag) = subscribes
                    && buffer[..count].windows(9).any(|word| word == b"SUBSCRIBE")
                {
                    flag.store(true, Ordering::SeqCst);
                }
                if to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

async fn a_dead_link_is_replaced(kinds: &[Kind]) {
    let redis = Redis::start().await.unwrap();
    let firewall = Firewall::before(&redis).await;
    let bench = Bench::redis_up(&firewall.url()).await;
    let channel = channel();
    bench.subscribes(&channel).await;
    bench.hears(&channel, &bench).await;
    for kind in kinds {
        firewall.kill(*kind);
    }
    bench
        .bus
        .publish(channel.clone(), Bytes::from_static(b"into the void"));
    bench.heard.break_for(BreakReason::Canary).await;
    bench.heard.break_for(BreakReason::Reconnected).await;
    bench.hears(&channel, &bench).await;
    bench.up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_subscriber_is_replaced() {
    a_dead_link_is_replaced(&[Kind::Subscriber]).await;
}

/// A publisher misses its answers, and makes a new connection by itself: the subscriber's is left
/// alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_publisher_is_replaced() {
    let redis = Redis::start().await.unwrap();
    let firewall = Firewall::before(&redis).await;
    let bench = Bench::redis_up(&firewall.url()).await;
    let channel = channel();
    bench.hears_after_subscribing(&channel).await;
    firewall.kill(Kind::Publisher);
    bench
        .bus
        .publish(channel.clone(), Bytes::from_static(b"into the void"));
    bench.heard.break_for(BreakReason::Unpublished).await;
    bench.hears(&channel, &bench).await;
    assert!(bench.bus.is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_dead_links_are_replaced() {
    a_dead_link_is_replaced(&[Kind::Subscriber, Kind::Publisher]).await;
}

/// The same, found by a subscription that is not confirmed before the canary is missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_link_on_which_somebody_subscribes_is_replaced() {
    let redis = Redis::start().await.unwrap();
    let firewall = Firewall::before(&redis).await;
    let bench = Bench::redis_up(&firewall.url()).await;
    let channel = channel();
    firewall.kill(Kind::Subscriber);
    let refused = bench.bus.subscribe(std::slice::from_ref(&channel)).await;
    assert_eq!(refused, Err(BusDown));
    bench.heard.break_for(BreakReason::Reconnected).await;
    bench.hears(&channel, &bench).await;
}

/// Presence has a link of its own, which says as little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_link_of_presence_is_found_and_replaced() {
    let redis = Redis::start().await.unwrap();
    let firewall = Firewall::before(&redis).await;
    let tasks = Tasks::new();
    let options = RedisPresenceOptions {
        url: firewall.url(),
        node_id: "node".to_owned(),
        neighbours: Arc::default(),
    };
    let presence = RedisPresence::start(&options, Arc::default(), Clock::system(), &tasks).unwrap();
    let reachable = async |wanted: bool| {
        eventually(&format!("presence is reachable: {wanted}"), async || {
            presence.is_reachable() == wanted
        })
        .await;
    };
    reachable(true).await;
    firewall.kill(Kind::Publisher);
    reachable(false).await;
    reachable(true).await;
    tasks.stopping().cancel();
}
