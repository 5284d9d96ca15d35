//! What a message costs Rookery.
//!
//! `make instructions` counts what the processor executes for one message, under callgrind: the number
//! hardly moves from run to run, however busy the machine is, so a change of a few per cent shows.
//! `cargo bench -p rookery-benches` takes the time of single parts. Both work on the same
//! [`sample`]s, and what is measured is the server's own code: where a whole [`node`] takes part, only
//! the kernel's side of a socket is missing.

pub mod benchmarks;
pub mod node;
pub mod sample;
pub mod silent_client;
