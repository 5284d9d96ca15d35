//! A way to Redis on which subscribers are told what Redis does not say, or late.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rookery::bus::{BreakReason, BusDown};
use rookery::lifecycle::Tasks;
use rookery_test_support::servers::Redis;
use rookery_test_support::{PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::bench::{Bench, channel};
use crate::faults::redis;

/// What is said in the place of the first answer to a SUBSCRIBE, one on each connection.
const SAID: [&[u8]; 7] = [
    b"HTTP/1.1 400 Bad Request\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-NOPERM this user has no permissions\r\n",
    b":1\r\n",
    b"+OK\r\n",
    // More channels than were asked for.
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nd\r\n:2\r\n\
      *3\r\n$9\r\nsubscribe\r\n$1\r\ne\r\n:3\r\n",
    // More than any node publishes.
    b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4194305\r\n",
];

/// What becomes of what a subscriber is sent.
#[derive(Clone, Copy)]
enum Way {
    /// The first connections are answered by [`SAID`].
    Wrong,
    Late(Duration),
}

/// Where nodes connect to, and how often one of them subscribed there on a new connection.
async fn way(redis: &Redis, way: Way) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], redis.port()));
    let subscribers = Arc::new(AtomicUsize::new(0));
    let (tasks, counted) = (Tasks::new(), Arc::clone(&subscribers));
    let links = tasks.clone();
    tasks.spawn("way", async move {
        while let Ok((node, _)) = listener.accept().await {
            let redis = TcpStream::connect(server).await.unwrap();
            links.spawn("link", pass(node, redis, way, Arc::clone(&counted)));
        }
    });
    (address, subscribers)
}

async fn pass(mut node: TcpStream, mut redis: TcpStream, way: Way, subscribers: Arc<AtomicUsize>) {
    let (mut asked, mut said) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut subscribes = false;
    loop {
        tokio::select! {
            count = node.read(&mut asked) => {
                let Ok(count @ 1..) = count else { return };
                let asked = &asked[..count];
                if !subscribes && asked.windows(9).any(|word| word == b"SUBSCRIBE") {
                    subscribes = true;
                    let before = subscribers.fetch_add(1, Ordering::SeqCst);
                    if let (Way::Wrong, Some(wrong)) = (way, SAID.get(before)) {
                        node.write_all(wrong).await.ok();
                        // It is the node's turn to hang up.
                        while node.read(&mut said).await.is_ok_and(|count| count > 0) {}
                        return;
                    }
                }
                if redis.write_all(asked).await.is_err() {
                    return;
                }
            }
            count = redis.read(&mut said) => {
                let Ok(count @ 1..) = count else { return };
                if let (Way::Late(delay), true) = (way, subscribes) {
                    sleep(delay).await;
                }
                if node.write_all(&said[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Each of these costs its connection, and the bus is up on the first that is as it should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_does_not_say_ends_a_connection() {
    let redis = redis().await;
    let (address, subscribers) = way(&redis, Way::Wrong).await;
    let bench = Bench::redis(&format!("redis://{address}"));
    let channel = channel();
    // A change that is asked for meanwhile is answered, and not forgotten.
    let asked = bench.bus.subscribe(std::slice::from_ref(&channel));
    assert_eq!(timeout(PATIENCE, asked).await, Ok(Err(BusDown)));
    eventually("one connection after the other", async || {
        subscribers.load(Ordering::SeqCst) == SAID.len() + 1
    })
    .await;
    bench.hears(&channel, &bench).await;
    bench.up().await;
    assert_eq!(subscribers.load(Ordering::SeqCst), SAID.len() + 1);
}

/// Sockets go on coming while a new connection is told of those that were there: it is in step when
/// those are confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_go_on_coming_hold_up_nobody() {
    let redis = redis().await;
    // A node that is busy, or a Redis that is far away.
    let (address, _) = way(&redis, Way::Late(Duration::from_millis(10))).await;
    let bench = Arc::new(Bench::redis_up(&format!("redis://{address}")).await);
    let joining = Arc::clone(&bench);
    bench.tasks.spawn("joining", async move {
        while !joining.tasks.stopping().is_cancelled() {
            // Those that are refused are followed by others, too.
            joining.bus.subscribe(&[channel()]).await.ok();
            tokio::task::yield_now().await;
        }
    });
    let channel = channel();
    bench.hears_after_subscribing(&channel).await;
    redis.kill_clients("pubsub").await.unwrap();
    bench.heard.break_for(BreakReason::CutOff).await;
    bench
        .bus
        .publish(channel.clone(), Bytes::from_static(b"back"));
    eventually("it is heard", async || {
        let (from, payload) = bench.heard.message().await;
        from == channel && payload == "back"
    })
    .await;
    bench.tasks.stopping().cancel();
}
