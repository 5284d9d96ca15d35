//! What is asked of Redis on one connection of the subscriber: SUBSCRIBE and UNSUBSCRIBE, in chunks
//! and in their order. Behind each chunk goes a PING, whose answer confirms it; the next is asked
//! for after that.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use tokio::sync::oneshot;

use crate::bus::redis::socket::{Cut, Socket};
use crate::bus::redis::wire::{self, Unexpected};
use crate::bus::{BusDown, Channel};

/// Channels in one command, so that none holds Redis for long.
const CHUNK: usize = 1_000;

/// Told whether a change is confirmed.
pub(super) type Done = oneshot::Sender<Result<(), BusDown>>;

/// Who waits for a change to be confirmed.
pub(super) enum Waiter {
    Nobody,
    Caller(Done),
    /// The connection: with this it is in step.
    Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Subscribe,
    Unsubscribe,
}

impl Verb {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Subscribe => b"SUBSCRIBE",
            Self::Unsubscribe => b"UNSUBSCRIBE",
        }
    }

    /// What becomes of such a change where there is no connection: the next one sees to it, which is
    /// enough only for who does not want to hear.
    pub(super) fn while_down(self) -> Result<(), BusDown> {
        match self {
            Self::Subscribe => Err(BusDown),
            Self::Unsubscribe => Ok(()),
        }
    }
}

struct Chunk {
    verb: Verb,
    channels: Vec<Channel>,
    waiter: Waiter,
}

/// See the module. Callers who wait for one of these are answered by its end, too.
#[derive(Default)]
pub(super) struct Changes {
    waiting: VecDeque<Chunk>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    since: Instant,
    waiter: Waiter,
}

impl Changes {
    /// Adds one, of any size, for whom waits until all of it is confirmed.
    pub(super) fn push(&mut self, verb: Verb, mut channels: Vec<Channel>, waiter: Waiter) {
        while channels.len() > CHUNK {
            let rest = channels.split_off(CHUNK);
            self.waiting.push_back(Chunk {
                verb,
                channels: std::mem::replace(&mut channels, rest),
                waiter: Waiter::Nobody,
            });
        }
        self.waiting.push_back(Chunk {
            verb,
            channels,
            waiter,
        });
    }

    /// Asks for the next chunk, unless one is under way.
    pub(super) async fn ask(&mut self, socket: &mut Socket) -> Result<(), Cut> {
        if self.under_way.is_some() {
            return Ok(());
        }
        let Some(chunk) = self.waiting.pop_front() else {
            return Ok(());
        };
        socket.write(|out| put(out, &chunk)).await?;
        self.under_way = Some(UnderWay {
            since: Instant::now(),
            waiter: chunk.waiter,
        });
        Ok(())
    }

    /// PING was answered. Returns whether the connection waited for it.
    pub(super) fn confirmed(&mut self) -> Result<bool, Unexpected> {
        let confirmed = self.under_way.take().ok_or(Unexpected)?;
        if let Waiter::Caller(done) = confirmed.waiter {
            // Whoever asked may have gone.
            done.send(Ok(())).ok();
            return Ok(false);
        }
        Ok(matches!(confirmed.waiter, Waiter::Connection))
    }

    /// Since when a chunk is under way, if one is.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|under_way| under_way.since)
    }
}

fn put(out: &mut BytesMut, chunk: &Chunk) {
    wire::put_head(out, 1 + chunk.channels.len());
    wire::put_bulk(out, chunk.verb.word());
    let mut name = String::new();
    for channel in &chunk.channels {
        name.clear();
        channel.write_name(&mut name);
        wire::put_bulk(out, name.as_bytes());
    }
    wire::put_command(out, &["PING"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<Channel> {
        let name = |number: usize| Channel::Node(number.to_string());
        (0..count).map(name).collect()
    }

    #[test]
    fn changes_are_cut_into_chunks_and_keep_their_order() {
        use Verb::{Subscribe, Unsubscribe};
        let mut changes = Changes::default();
        let (done, _answered) = oneshot::channel();
        changes.push(Subscribe, nodes(2_000), Waiter::Connection);
        changes.push(Unsubscribe, nodes(1), Waiter::Nobody);
        changes.push(Subscribe, nodes(1_001), Waiter::Caller(done));
        let seen = changes.waiting.iter().map(|chunk| {
            let waiter = match chunk.waiter {
                Waiter::Nobody => "nobody",
                Waiter::Caller(_) => "a caller",
                Waiter::Connection => "the connection",
            };
            (chunk.verb, chunk.channels.len(), waiter)
        });
        let expected = [
            (Subscribe, 1_000, "nobody"),
            (Subscribe, 1_000, "the connection"),
            (Unsubscribe, 1, "nobody"),
            (Subscribe, 1_000, "nobody"),
            (Subscribe, 1, "a caller"),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
        assert_eq!(changes.confirmed(), Err(Unexpected), "nothing was asked");
    }

    #[test]
    fn a_chunk_is_one_command_and_a_ping() {
        let chunk = Chunk {
            verb: Verb::Unsubscribe,
            channels: vec![Channel::Sockets, Channel::Node("n".into())],
            waiter: Waiter::Nobody,
        };
        let mut out = BytesMut::new();
        put(&mut out, &chunk);
        let expected = "*3\r\n$11\r\nUNSUBSCRIBE\r\n$18\r\nrookery:v1:sockets\r\n\
                        $17\r\nrookery:v1:node:n\r\n*1\r\n$4\r\nPING\r\n";
        assert_eq!(out, expected);
    }
}
