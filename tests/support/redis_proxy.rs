//! A way to Redis on which chosen Pub/Sub messages get lost, as Redis itself may lose them: the
//! connection stays up, everything else passes, nobody is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::servers::ports::{self, Port};

/// Between one node and its Redis.
pub struct RedisProxy {
    port: Port,
    losses: Arc<Losses>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Losses {
    /// Messages that contain one of these are thrown away.
    marks: Mutex<Vec<Vec<u8>>>,
    count: AtomicUsize,
}

impl RedisProxy {
    pub(crate) async fn start(redis: SocketAddr) -> Result<Self> {
        let port = ports::reserve()?;
        let listener = TcpListener::bind(port.address()).await?;
        let losses = Arc::new(Losses::default());
        let accepting = tokio::spawn(accept(listener, redis, Arc::clone(&losses)));
        Ok(Self {
            port,
            losses,
            accepting,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// From now on this node hears no message on the bus that contains this text; what a message
    /// says travels as plain text.
    pub fn lose(&self, text: &str) {
        self.losses.marks().push(text.as_bytes().to_vec());
    }

    /// How many messages were thrown away so far.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.losses.count.load(Ordering::SeqCst)
    }
}

impl Drop for RedisProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Losses {
    fn marks(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this frame is to be thrown away. Only pushes carry a channel's messages, and never
    /// anything else that contains a test's words.
    fn takes(&self, frame: &[u8]) -> bool {
        let contains = |mark: &Vec<u8>| frame.windows(mark.len()).any(|part| part == mark);
        let taken = frame.starts_with(b">") && self.marks().iter().any(contains);
        if taken {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        taken
    }
}

/// Joins each connection with one of its own to Redis; both end together.
async fn accept(listener: TcpListener, redis: SocketAddr, losses: Arc<Losses>) {
    let mut links = tokio::task::JoinSet::new();
    while let Ok((node, _)) = listener.accept().await {
        let losses = Arc::clone(&losses);
        links.spawn(async move {
            let Ok(server) = TcpStream::connect(redis).await else {
                return;
            };
            node.set_nodelay(true).ok();
            server.set_nodelay(true).ok();
            let (mut from_node, to_node) = node.into_split();
            let (from_redis, mut to_redis) = server.into_split();
            tokio::select! {
                _ = copy(&mut from_node, &mut to_redis) => {}
                _ = filter(from_redis, to_node, &losses) => {}
            }
        });
    }
}

async fn filter(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, losses: &Losses) -> Result<()> {
    let mut waiting: Vec<u8> = Vec::new();
    loop {
        if from.read_buf(&mut waiting).await? == 0 {
            return Ok(());
        }
        let mut done = 0;
        while let Some(length) = frame_length(&waiting[done..])? {
            let frame = &waiting[done..done + length];
            if !losses.takes(frame) {
                to.write_all(frame).await?;
            }
            done += length;
        }
        waiting.drain(..done);
    }
}

/// The length of the frame at the start of `bytes` (RESP2 and RESP3); `None` while it is not there
/// as a whole.
fn frame_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(line) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let head = line + 2;
    let number = || -> Result<i64> { Ok(std::str::from_utf8(&bytes[1..line])?.parse()?) };
    let parts = match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => return Ok(Some(head)),
        b'$' | b'!' | b'=' => {
            // A length of -1 is RESP2's way to say that there is nothing.
            let Ok(length) = usize::try_from(number()?) else {
                return Ok(Some(head));
            };
            let end = head + length + 2;
            return Ok((bytes.len() >= end).then_some(end));
        }
        b'*' | b'~' | b'>' => number()?,
        b'%' => 2 * number()?,
        // Attributes, and then what they belong to.
        b'|' => 2 * number()? + 1,
        other => bail!("not a frame of RESP: {other:#x}"),
    };
    let mut end = head;
    for _ in 0..parts.max(0) {
        match frame_length(&bytes[end..])? {
            Some(length) => end += length,
            None => return Ok(None),
        }
    }
    Ok(Some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_where_redis_says() {
        let push = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\na\r\nb\r\n+OK\r\n";
        assert_eq!(frame_length(push).unwrap(), Some(push.len() - 5));
        assert_eq!(frame_length(&push[..20]).unwrap(), None);
        let map = b"%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n_\r\n$-1\r\n";
        assert_eq!(frame_length(map).unwrap(), Some(map.len()));
        assert_eq!(frame_length(b"").unwrap(), None);
        assert!(frame_length(b"?\r\n").is_err());
    }
}
