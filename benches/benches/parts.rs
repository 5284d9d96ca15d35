//! The time of single parts of a message's path.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rookery::gateway::{Frame, Outbox, Registry};
use rookery_benches::sample;
use rookery_protocol::command::ClientCommand;
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{Format, Seq};

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    for (format, name) in [(Format::Json, "json"), (Format::MsgPack, "msgpack")] {
        let frame = sample::send_frame(format, sample::conversation(0), 1);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(format!("decode a send/{name}"), |b| {
            b.iter(|| ClientCommand::decode(format, black_box(&frame)));
        });
        let event = sample::event();
        let length = Frame::encode(format, &event).map_or(0, |frame| frame.len());
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("encode an event/{name}"), |b| {
            b.iter(|| Frame::encode(format, black_box(&event)));
        });
    }
    group.finish();
    envelopes(c);
}

fn envelopes(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope");
    let id = sample::conversation(0);
    let (envelope, payload) = (sample::envelope(id, 1), sample::payload(id, 1));
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&envelope).encode()));
    group.bench_function("decode", |b| {
        b.iter(|| rookery::bus::Envelope::decode(black_box(&payload)));
    });
    group.finish();
}

/// Among 16,000 users of one socket each.
fn registry(c: &mut Criterion) {
    const USERS: u64 = 16_000;
    let registry = Registry::default();
    let id = sample::conversation(0);
    let connect = |n: u64| sample::session(n, sample::user(n.into()), Format::Json, id);
    for n in 0..USERS {
        registry.join(connect(n), 1);
    }
    let mut group = c.benchmark_group("registry");
    let mut n = 0;
    group.bench_function("of", |b| {
        b.iter(|| {
            n = (n + 1) % u128::from(USERS);
            registry.of(black_box(sample::user(n)))
        });
    });
    let newcomer = connect(USERS);
    group.bench_function("join and leave", |b| {
        b.iter(|| {
            registry.join(newcomer.clone(), 1);
            registry.leave(&newcomer);
        });
    });
    group.finish();
}

fn outbox(c: &mut Criterion) {
    let frame = Frame::encode(Format::Json, &sample::event()).expect("a frame");
    let outbox = Outbox::new(Default::default());
    let mut group = c.benchmark_group("outbox");
    for frames in [1, 32] {
        group.throughput(Throughput::Elements(frames));
        group.bench_function(format!("push and take/{frames}"), |b| {
            b.iter(|| {
                for _ in 0..frames {
                    outbox.push(black_box(frame.clone()));
                }
                outbox.now(false)
            });
        });
    }
    group.finish();
}

/// Is an entry the next one? Among ten conversations, and a thousand.
fn hole_check(c: &mut Criterion) {
    let mut group = c.benchmark_group("hole check");
    for conversations in [10, 1_000] {
        let id = sample::conversation(0);
        let session = sample::session(1, sample::user(1), Format::Json, id);
        for n in 10..conversations {
            session.positions().learn(sample::conversation(n), Seq(1));
        }
        let mut seq = Seq::ZERO;
        group.bench_function(format!("the next/{conversations}"), |b| {
            b.iter(|| {
                seq = seq.next();
                session.positions().advance(black_box(id), seq)
            });
        });
        group.bench_function(format!("a hole/{conversations}"), |b| {
            b.iter(|| session.positions().advance(black_box(id), Seq(i64::MAX)));
        });
    }
    group.finish();
}

/// One event for many sockets: encoded once, shared.
fn share(c: &mut Criterion) {
    let event = sample::event();
    let ServerEvent::MessageNew(new) = &event else {
        unreachable!("the sample is a new message");
    };
    let (sender, viewer) = (new.message.sender_id, sample::user(1));
    let mut frame = rookery::gateway::SharedFrame::new(sender, |_| event.clone());
    c.bench_function("frame for one more socket", |b| {
        b.iter(|| frame.for_viewer(black_box(viewer), Format::Json));
    });
}

criterion_group!(parts, codec, registry, outbox, hole_check, share);
criterion_main!(parts);
