//! What is counted: parts of a message's path, and whole stretches of it.

use std::hint::black_box;

use bytes::Bytes;
use rookery::bus::{Channel, Envelope};
use rookery::gateway::{Frame, Outbox, Registry};
use rookery_protocol::command::ClientCommand;
use rookery_protocol::{ConversationId, Format, Seq};

use crate::node::Node;
use crate::sample;

/// How often the work is done, and for how often it is prepared. What two runs that prepare the same
/// differ by is what the work costs once everything is warm.
#[derive(Clone, Copy, Debug)]
pub struct Repeats {
    pub prepared: usize,
    pub done: usize,
}

/// Callgrind counts from where it enters the function of this name to where it leaves it, and only
/// on that thread.
pub const COUNTED: &str = "counted_by_callgrind";

/// Does what is counted. A function of its own, whatever the optimiser thinks of that.
#[inline(never)]
fn counted_by_callgrind<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// One benchmark.
#[derive(Clone, Copy)]
pub struct Benchmark {
    pub name: &'static str,
    /// Enough that the noise of hash seeds and growing buffers is small in it.
    pub repeats: usize,
    pub run: fn(Repeats) -> anyhow::Result<()>,
    /// How much more than on record is still the same, in per cent: more than runs of the same
    /// program differ by, less than a copy of a frame for each socket costs.
    pub tolerance: f64,
}

/// Of benchmarks whose runs differ by half of a per cent or less (hash seeds, turns in `select!`).
const STEADY: f64 = 3.0;
/// Of those in which threads wake each other, sometimes once more and sometimes once less.
const WITH_THREADS: f64 = 10.0;

const fn benchmark(
    name: &'static str,
    repeats: usize,
    run: fn(Repeats) -> anyhow::Result<()>,
) -> Benchmark {
    Benchmark {
        name,
        repeats,
        run,
        tolerance: STEADY,
    }
}

/// All of them, in the order of a message's way.
pub const ALL: &[Benchmark] = &[
    benchmark("command/decode-json", 2_000, |r| decode(Format::Json, r)),
    benchmark("command/decode-msgpack", 2_000, |r| {
        decode(Format::MsgPack, r)
    }),
    benchmark("envelope/encode", 2_000, encode_envelope),
    benchmark("channel/name-and-back", 2_000, channel_name),
    benchmark("envelope/decode", 2_000, decode_envelope),
    benchmark("registry/of", 2_000, registry_of),
    benchmark("positions/advance", 2_000, advance),
    benchmark("frame/encode-json", 2_000, |r| encode(Format::Json, r)),
    benchmark("frame/encode-msgpack", 2_000, |r| {
        encode(Format::MsgPack, r)
    }),
    benchmark("outbox/push-and-take", 2_000, outbox),
    benchmark("deliver/1", 1_000, |r| deliver_to_one(Format::Json, r)),
    benchmark("deliver/1-msgpack", 1_000, |r| {
        deliver_to_one(Format::MsgPack, r)
    }),
    benchmark("deliver/1-out-of-order", 1_000, deliver_out_of_order),
    benchmark("deliver/10", 500, |r| deliver_to_room(10, r)),
    benchmark("deliver/1000", 20, |r| deliver_to_room(1_000, r)),
    Benchmark {
        tolerance: WITH_THREADS,
        ..benchmark("send/direct", 1_000, send_direct)
    },
];

fn decode(format: Format, repeats: Repeats) -> anyhow::Result<()> {
    let frame = sample::send_frame(format, sample::conversation(0), 1);
    counted_by_callgrind(|| {
        for _ in 0..repeats.done {
            black_box(ClientCommand::decode(format, black_box(&frame))?);
        }
        Ok(())
    })
}

fn encode(format: Format, repeats: Repeats) -> anyhow::Result<()> {
    let event = sample::event();
    counted_by_callgrind(|| {
        for _ in 0..repeats.done {
            black_box(Frame::encode(format, black_box(&event)));
        }
    });
    Ok(())
}

fn encode_envelope(repeats: Repeats) -> anyhow::Result<()> {
    let envelope = sample::envelope(sample::conversation(0), 1);
    counted_by_callgrind(|| {
        for _ in 0..repeats.done {
            black_box(black_box(&envelope).encode());
        }
    });
    Ok(())
}

fn decode_envelope(repeats: Repeats) -> anyhow::Result<()> {
    let payload = sample::payload(sample::conversation(0), 1);
    counted_by_callgrind(|| {
        for _ in 0..repeats.done {
            black_box(Envelope::decode(black_box(&payload))?);
        }
        Ok(())
    })
}

fn channel_name(repeats: Repeats) -> anyhow::Result<()> {
    let channel = Channel::User(sample::user(1));
    counted_by_callgrind(|| {
        for _ in 0..repeats.done {
            let name = black_box(&channel).name();
            black_box(Channel::parse(black_box(&name)));
        }
    });
    Ok(())
}

/// Among a thousand users.
fn registry_of(repeats: Repeats) -> anyhow::Result<()> {
    let registry = Registry::default();
    let id = sample::conversation(0);
    for n in 0..1_000 {
        let session = sample::session(n, sample::user(n.into()), Format::Json, id);
        registry.join(session, 1);
    }
    counted_by_callgrind(|| {
        for n in 0..repeats.done {
            black_box(registry.of(sample::user((n % 1_000) as u128)));
        }
    });
    Ok(())
}

fn advance(repeats: Repeats) -> anyhow::Result<()> {
    let id = sample::conversation(0);
    let session = sample::session(1, sample::user(1), Format::Json, id);
    counted_by_callgrind(|| {
        for seq in 1..=repeats.done {
            black_box(session.positions().advance(black_box(id), Seq(seq as i64)));
        }
    });
    Ok(())
}

fn outbox(repeats: Repeats) -> anyhow::Result<()> {
    let frame = Frame::encode(Format::Json, &sample::event());
    let frame = frame.ok_or_else(|| anyhow::anyhow!("the sample cannot be encoded"))?;
    let outbox = Outbox::new(Default::default());
    counted_by_callgrind(|| {
        for _ in 0..repeats.done {
            outbox.push(black_box(frame.clone()));
            black_box(outbox.now(false));
        }
    });
    Ok(())
}

/// From the bus to the one socket of a member, written.
fn deliver_to_one(format: Format, repeats: Repeats) -> anyhow::Result<()> {
    let (user, id) = (sample::user(1), sample::conversation(0));
    let (runtime, node) = Node::start()?;
    runtime.block_on(async { node.connect(user, format, id) });
    let news = news(id, repeats);
    let work = async {
        for payload in &news[..repeats.done] {
            node.hear(&Channel::User(user), payload.clone());
            node.written(1).await;
        }
    };
    counted_by_callgrind(|| runtime.block_on(work));
    Ok(())
}

/// The same for messages that come in pairs, the later one first. Both go out in one write.
fn deliver_out_of_order(repeats: Repeats) -> anyhow::Result<()> {
    let (user, id) = (sample::user(1), sample::conversation(0));
    let (runtime, node) = Node::start()?;
    runtime.block_on(async { node.connect(user, Format::Json, id) });
    let news = news(id, repeats);
    let work = async {
        for pair in news[..repeats.done].chunks_exact(2) {
            node.hear(&Channel::User(user), pair[1].clone());
            node.hear(&Channel::User(user), pair[0].clone());
            node.written(1).await;
        }
    };
    counted_by_callgrind(|| runtime.block_on(work));
    Ok(())
}

/// From the bus to all members of a large conversation, one socket each, written.
fn deliver_to_room(sockets: u64, repeats: Repeats) -> anyhow::Result<()> {
    let id = sample::conversation(0);
    let (runtime, node) = Node::start()?;
    runtime.block_on(async {
        for n in 0..sockets {
            let session = node.connect(sample::user(n.into()), Format::Json, id);
            node.registry.rooms.join(id, &session);
        }
    });
    let news = news(id, repeats);
    let work = async {
        for payload in &news[..repeats.done] {
            node.hear(&Channel::Conversation(id), payload.clone());
            node.written(sockets as usize).await;
        }
    };
    counted_by_callgrind(|| runtime.block_on(work));
    Ok(())
}

/// All that a direct message takes on a node by itself: from the sender's frame over the commit, the
/// ack and the bus to the receiver's socket. SQLite works on a thread of its own and is not counted.
fn send_direct(repeats: Repeats) -> anyhow::Result<()> {
    let users = [sample::user(1), sample::user(2)];
    let (runtime, node) = Node::start()?;
    let (sender, id) = runtime.block_on(async {
        let id = node.make_direct(users).await?;
        node.connect(users[1], Format::Json, id);
        anyhow::Ok((node.connect(users[0], Format::Json, id), id))
    })?;
    let frames: Vec<_> = (0..repeats.prepared)
        .map(|n| sample::send_frame(Format::Json, id, n))
        .collect();
    let work = async {
        for frame in &frames[..repeats.done] {
            node.send(&sender, frame).await?;
            // The ack, and the message.
            node.written(2).await;
        }
        Ok(())
    };
    counted_by_callgrind(|| runtime.block_on(work))
}

/// What the bus brings of a conversation's first messages.
fn news(id: ConversationId, repeats: Repeats) -> Vec<Bytes> {
    (1..=repeats.prepared)
        .map(|seq| sample::payload(id, seq))
        .collect()
}
