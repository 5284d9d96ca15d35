//! What is asked of Redis on one connection of the subscriber: SUBSCRIBE and UNSUBSCRIBE, in chunks
//! and in their order. Redis answers once for each channel; with the last of these a chunk is confirmed,
//! and the next is asked for.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use tokio::sync::oneshot;

use crate::bus::channel::LONGEST;
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
    /// Answers that have not come.
    left: usize,
    waiter: Waiter,
}

impl Changes {
    /// Adds one, of one channel or many, for whom waits until all of it is confirmed.
    pub(super) fn push(&mut self, verb: Verb, channels: &[Channel], waiter: Waiter) {
        let (first, last) = channels.split_at((channels.len().saturating_sub(1)) / CHUNK * CHUNK);
        let chunk = |channels: &[Channel], waiter| Chunk {
            verb,
            channels: channels.to_vec(),
            waiter,
        };
        let first = first.chunks(CHUNK).map(|part| chunk(part, Waiter::Nobody));
        self.waiting.extend(first);
        self.waiting.push_back(chunk(last, waiter));
    }

    /// Asks for the next chunk, unless one is under way.
    pub(super) async fn ask(&mut self, socket: &mut Socket) -> Result<(), Cut> {
        if self.under_way.is_some() {
            return Ok(());
        }
        let Some(chunk) = self.waiting.pop_front() else {
            return Ok(());
        };
        // Whoever waits is to hear of a failure from the end of the connection, and not before.
        self.under_way = Some(UnderWay {
            since: Instant::now(),
            left: chunk.channels.len(),
            waiter: chunk.waiter,
        });
        socket
            .write(|out| put(out, chunk.verb, &chunk.channels))
            .await
    }

    /// Redis has done it for one channel. Returns whether that is what the connection waited for.
    pub(super) fn answered(&mut self) -> Result<bool, Unexpected> {
        let under_way = self.under_way.as_mut().ok_or(Unexpected)?;
        under_way.left -= 1;
        if under_way.left > 0 {
            return Ok(false);
        }
        match self.under_way.take().map(|confirmed| confirmed.waiter) {
            Some(Waiter::Caller(done)) => {
                // Whoever asked may have gone.
                done.send(Ok(())).ok();
                Ok(false)
            }
            waiter => Ok(matches!(waiter, Some(Waiter::Connection))),
        }
    }

    /// Since when a chunk is under way, if one is.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|under_way| under_way.since)
    }
}

fn put(out: &mut BytesMut, verb: Verb, channels: &[Channel]) {
    wire::put_head(out, 1 + channels.len());
    wire::put_bulk(out, verb.word());
    let mut name = String::with_capacity(LONGEST);
    for channel in channels {
        name.clear();
        channel.write_name(&mut name);
        wire::put_bulk(out, name.as_bytes());
    }
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
        changes.push(Subscribe, &nodes(2_000), Waiter::Connection);
        changes.push(Unsubscribe, &nodes(1), Waiter::Nobody);
        changes.push(Subscribe, &nodes(1_001), Waiter::Caller(done));
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
        assert_eq!(changes.answered(), Err(Unexpected), "nothing was asked");
    }

    #[test]
    fn a_chunk_is_one_command_and_confirmed_by_an_answer_for_each_channel() {
        let channels = [Channel::Sockets, Channel::Node("n".into())];
        let mut out = BytesMut::new();
        put(&mut out, Verb::Unsubscribe, &channels);
        let expected = "*3\r\n$11\r\nUNSUBSCRIBE\r\n$18\r\nrookery:v1:sockets\r\n\
                        $17\r\nrookery:v1:node:n\r\n";
        assert_eq!(out, expected);
        let under_way = |waiter| Changes {
            waiting: VecDeque::new(),
            under_way: Some(UnderWay {
                since: Instant::now(),
                left: channels.len(),
                waiter,
            }),
        };
        for (waiter, is_awaited) in [(Waiter::Connection, true), (Waiter::Nobody, false)] {
            let mut changes = under_way(waiter);
            assert_eq!(changes.answered(), Ok(false));
            assert_eq!(changes.answered(), Ok(is_awaited));
            assert_eq!(changes.answered(), Err(Unexpected));
        }
        let (done, mut answered) = oneshot::channel();
        let mut changes = under_way(Waiter::Caller(done));
        assert_eq!(changes.answered(), Ok(false));
        assert!(answered.try_recv().is_err(), "not yet");
        assert_eq!(changes.answered(), Ok(false));
        assert_eq!(answered.try_recv(), Ok(Ok(())));
    }
}
