//! A way to Redis on which messages get lost, doubled, late or out of order, as Redis itself or a
//! broken link may have it: the connection stays up, everything else passes, nobody is told.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bytes::BytesMut;

use super::lens::{Pieces, Protocol, at_once};
use super::line::Passage;
use super::link::{Broken, Link};
use super::resp::frame_length;
use super::{Counters, Proxy, Role, count};

/// Between one node and its Redis.
pub struct RedisProxy {
    proxy: Proxy,
    rules: Arc<PushRules>,
}

/// What becomes of a message on its way to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lost,
    Doubled,
    /// Others overtake it meanwhile.
    Delayed(Duration),
    /// It swaps places with the one that follows.
    Reordered,
}

/// Which share of messages, from 0 to 1, has which fate; the rest arrives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pushes {
    pub lost: f64,
    pub doubled: f64,
    pub reordered: f64,
    pub delayed: f64,
    /// Delays are anything up to this.
    pub longest_delay: Duration,
}

/// The fates that were told, for all connections of a link.
pub(super) struct PushRules(Mutex<Told>);

struct Told {
    marks: Vec<(Vec<u8>, Fate)>,
    shares: Pushes,
    random: fastrand::Rng,
}

impl RedisProxy {
    pub(crate) async fn start(redis: SocketAddr) -> Result<Self> {
        let rules = Arc::new(PushRules(Mutex::new(Told {
            marks: Vec::new(),
            shares: Pushes::default(),
            random: fastrand::Rng::with_seed(0),
        })));
        let protocol = Protocol::Redis(Arc::clone(&rules));
        let proxy = Proxy::with_protocol(redis, protocol).await?;
        Ok(Self { proxy, rules })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// From now on this node hears no message on the bus that contains this text; what a message
    /// says travels as plain text.
    pub fn lose(&self, text: &str) {
        self.mark(text, Fate::Lost);
    }

    /// From now on messages that contain this text have this fate.
    pub fn mark(&self, text: &str, fate: Fate) {
        self.rules.told().marks.push((text.into(), fate));
    }

    /// From now on these shares of all messages have these fates; the same seed chooses the same.
    pub fn set_pushes(&self, shares: Pushes, seed: u64) {
        let mut told = self.rules.told();
        told.shares = shares;
        told.random = fastrand::Rng::with_seed(seed);
    }

    /// How many messages were thrown away so far.
    ///
    /// # Panics
    /// More than can be counted.
    #[must_use]
    pub fn lost(&self) -> usize {
        let lost = self.counts().lost_pushes;
        usize::try_from(lost).expect("a number that can be counted")
    }
}

/// Modes, resets and counts, as of any link.
impl Deref for RedisProxy {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

impl PushRules {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of this frame. Only messages have fates: an answer that is lost would be a
    /// Redis that breaks its protocol.
    fn fate(&self, frame: &[u8]) -> Option<Fate> {
        // In RESP3 and in RESP2.
        let parts = frame.strip_prefix(b">").or(frame.strip_prefix(b"*"));
        if !parts.is_some_and(|parts| parts.starts_with(b"3\r\n$7\r\nmessage\r\n")) {
            return None;
        }
        let mut told = self.told();
        let contains = |mark: &[u8]| frame.windows(mark.len()).any(|part| part == mark);
        let marked = told.marks.iter().find(|(mark, _)| contains(mark));
        if let Some((_, fate)) = marked {
            return Some(*fate);
        }
        let shares = told.shares;
        let mut left = told.random.f64();
        let mut is_in = |share: f64| {
            left -= share;
            left < 0.0
        };
        if is_in(shares.lost) {
            Some(Fate::Lost)
        } else if is_in(shares.doubled) {
            Some(Fate::Doubled)
        } else if is_in(shares.reordered) {
            Some(Fate::Reordered)
        } else if is_in(shares.delayed) {
            let delay = shares.longest_delay.mul_f64(told.random.f64());
            Some(Fate::Delayed(delay))
        } else {
            None
        }
    }
}

/// Finds out what a connection is for, and looks no further.
pub(super) fn look_at_requests(arrived: &mut BytesMut, link: &Link) -> Result<Pieces, Broken> {
    if link.role() != Role::Unknown {
        return Ok(at_once(arrived));
    }
    let mut pieces = Pieces::new();
    while let Some(length) = command_length(arrived).map_err(|_| Broken::Gone)? {
        let frame = arrived.split_to(length).freeze();
        if link.role() == Role::Unknown {
            link.set_role(role_of(&frame));
        }
        pieces.push((frame, Passage::Now));
    }
    Ok(pieces)
}

/// The length of the command at the start, once all of it is there. Some clients greet Redis with a
/// line as people type it.
fn command_length(bytes: &[u8]) -> Result<Option<usize>> {
    match bytes.first() {
        Some(first) if first.is_ascii_alphabetic() => {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            Ok(end.map(|end| end + 1))
        }
        _ => frame_length(bytes),
    }
}

/// What this command shows of who sends it.
fn role_of(command: &[u8]) -> Role {
    if !command.starts_with(b"*") {
        return Role::Unknown;
    }
    // *<parts>, $<length>, the name, $<length>, the first argument and so on.
    let mut lines = command.split(|byte| *byte == b'\n').skip(2).step_by(2);
    let mut word = || lines.next().unwrap_or_default().trim_ascii();
    let name = word().to_ascii_uppercase();
    if name == b"CLIENT" && word() == b"SETNAME" && word().starts_with(b"sentinel-") {
        return Role::Sentinel;
    }
    match name.as_slice() {
        b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" => Role::Subscriber,
        b"PUBLISH" | b"SPUBLISH" => Role::Publisher,
        // Every connection begins with some of these, and any may ask for a sign of life.
        b"HELLO" | b"AUTH" | b"CLIENT" | b"SELECT" | b"PING" | b"INFO" | b"ROLE"
        | b"UNSUBSCRIBE" => Role::Unknown,
        _ => Role::Other,
    }
}

pub(super) fn look_at_replies(
    arrived: &mut BytesMut,
    link: &Link,
    rules: &PushRules,
    counters: &Counters,
) -> Result<Pieces, Broken> {
    // Only subscribers are sent messages; the others need not be looked at.
    if matches!(link.role(), Role::Publisher | Role::Sentinel | Role::Other) {
        return Ok(at_once(arrived));
    }
    let mut pieces = Pieces::new();
    while let Some(length) = frame_length(arrived).map_err(|_| Broken::Gone)? {
        let frame = arrived.split_to(length).freeze();
        match rules.fate(&frame) {
            None => pieces.push((frame, Passage::Now)),
            Some(Fate::Lost) => count(&counters.lost_pushes),
            Some(Fate::Doubled) => {
                count(&counters.doubled_pushes);
                pieces.push((frame.clone(), Passage::Now));
                pieces.push((frame, Passage::Now));
            }
            Some(Fate::Delayed(delay)) => {
                count(&counters.delayed_pushes);
                pieces.push((frame, Passage::Later(delay)));
            }
            Some(Fate::Reordered) => {
                count(&counters.reordered_pushes);
                pieces.push((frame, Passage::BehindNext));
            }
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn commands_tell_what_a_connection_is_for() {
        let role = |name: &str| role_of(format!("*1\r\n${}\r\n{name}\r\n", name.len()).as_bytes());
        assert_eq!(role("hello"), Role::Unknown);
        assert_eq!(role("subscribe"), Role::Subscriber);
        assert_eq!(role("PUBLISH"), Role::Publisher);
        assert_eq!(role("ZADD"), Role::Other);
        let named = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$14\r\nsentinel-1-cmd\r\n";
        assert_eq!(role_of(named), Role::Sentinel);
    }

    #[tokio::test]
    async fn messages_have_their_fates_and_everything_else_passes() -> Result<()> {
        let redis = crate::servers::Redis::start().await?;
        // Both versions of the protocol.
        for greeting in ["HELLO 3\r\n", ""] {
            messages_have_their_fates(&redis, greeting).await?;
        }
        Ok(())
    }

    async fn messages_have_their_fates(
        redis: &crate::servers::Redis,
        greeting: &str,
    ) -> Result<()> {
        let proxy = RedisProxy::start(([127, 0, 0, 1], redis.port()).into()).await?;
        let mut subscriber = TcpStream::connect(proxy.address()).await?;
        let subscribe = "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n";
        subscriber
            .write_all(format!("{greeting}{subscribe}").as_bytes())
            .await?;
        let mut heard = Vec::new();
        hear(&mut subscriber, &mut heard, ":1\r\n").await?;
        assert_eq!(proxy.connections_for(Role::Subscriber), 1);

        proxy.lose("lost");
        proxy.mark("twice", Fate::Doubled);
        proxy.mark("late", Fate::Reordered);
        heard.clear();
        for text in ["lost", "late", "twice", "last"] {
            redis.cli(&["PUBLISH", "c", text]).await?;
        }
        hear(&mut subscriber, &mut heard, "last\r\n").await?;
        let heard = String::from_utf8(heard)?;
        let texts = heard
            .lines()
            .filter(|line| line.len() > 3 && line.is_ascii());
        let texts: Vec<&str> = texts.filter(|text| !["message"].contains(text)).collect();
        assert_eq!(texts, ["twice", "late", "twice", "last"]);
        assert_eq!(proxy.lost(), 1);
        Ok(())
    }

    async fn hear(stream: &mut TcpStream, heard: &mut Vec<u8>, end: &str) -> Result<()> {
        while !heard.ends_with(end.as_bytes()) {
            anyhow::ensure!(stream.read_buf(heard).await? > 0, "{heard:?}");
        }
        Ok(())
    }
}
