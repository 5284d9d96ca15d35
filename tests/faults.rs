//! A story for every fault: what breaks, what mends it, and how long that takes.
//!
//! The faults have numbers, F1 to F30. Those that other tests tell of stand here by name only. What
//! is promised in seconds is measured and printed; a test waits six times as long, for a busy
//! machine.
//!
//! | | fault | story |
//! |---|---|---|
//! | F1 | a node is killed | [`nodes`] |
//! | F2 | a node hangs and goes on | [`nodes`] |
//! | F3 | a rolling restart under load | `cluster::drain` |
//! | F4 | a crash after a commit, before it is published | [`nodes`] |
//! | F5 | a crash after a commit, before it is acked | [`nodes`] |
//! | F6 | the answer to a commit is lost | [`postgres`] |
//! | F7 | PostgreSQL is away for ten seconds | `cluster::database` |
//! | F8 | PostgreSQL is slow or full, a row is locked | [`postgres`], `store::locks`, `store::outages` |
//! | F9 | many clients leave in the middle of a transaction | [`postgres`], `store::locks` |
//! | F10 | the subscriber's link is reset, again and again | [`redis`] |
//! | F11 | the subscriber's link is a black hole | [`redis`], `bus_cases::links` |
//! | F12 | the publisher's link is a black hole | [`redis`] |
//! | F13 | Redis throws the subscriber out | [`redis`], `bus_cases::faults` |
//! | F14 | Redis restarts empty or is flushed | `cluster::redis`, `cluster::presence` |
//! | F15 | the master of Redis is cut off and replaced | [`sentinels`] |
//! | F16 | pushes are lost, doubled, late and out of order | [`redis`] |
//! | F17 | a node takes nothing from Redis for a while | [`redis`], `bus_cases::faults` |
//! | F18 | Redis sleeps or pauses its clients | [`redis`] |
//! | F19 | readers are too slow | `cluster::slow_readers`, [`oracle`] |
//! | F20 | the links of clients flap and go silent | [`clients`] |
//! | F21 | nginx reloads, or loses a worker | [`clients`] |
//! | F22 | a storm of connections | `cluster::admission` |
//! | F23 | sockets come and go while messages flow | `cluster::large` |
//! | F24 | members come and go while messages flow | `cluster::groups`, [`oracle`] |
//! | F25 | one `message_id` on two devices | `cluster::sending` |
//! | F26 | a node whose clock is wrong | [`nodes`] |
//! | F27 | SQLite: a hundred kills, a disk is full | `store::sqlite` |
//! | F28 | a log-out while Redis is away | `cluster::sessions`, `cluster::database` |
//! | F29 | the key that signs is changed | [`keys`] |
//! | F30 | the database is set back | `cluster::set_back` |
//!
//! [`oracle`] leaves a step of the server out and sees to it that a story fails without it.

mod faults {
    mod clients;
    mod keys;
    mod kit;
    mod nodes;
    mod oracle;
    mod postgres;
    mod redis;
    mod sentinels;
}

/// The program under test.
const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");
