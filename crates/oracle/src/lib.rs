//! The oracle: from what devices saw and what the store holds in the end it tells whether any message
//! was lost, doubled, reordered or shown to a stranger.
//!
//! Devices write what they do and see as JSON lines ([`event`], written by a [`Recorder`]); one file
//! holds any number of devices of one process. Adapters note whole frames ([`wire`]) or what the
//! client library hands out ([`client`]), so that nobody has to know which event says what.
//! [`check()`] compares such histories with a [`FinalState`] and says in a [`Report`] what is wrong,
//! with the first event that shows it; the program `rookery-oracle` does the same for a folder. [The
//! module of that name](mod@check) tells what can be concluded and what cannot. [`pair`] is for load
//! tests, which judge while it happens.

pub mod check;
pub mod client;
pub mod event;
pub mod history;
pub mod pair;
pub mod recorder;
pub mod report;
pub mod state;
pub mod wire;

pub use check::{Kind, Options, check};
pub use client::LiveRecorder;
pub use event::{Event, Fingerprint, Line, Resume, View, Way};
pub use history::{History, HistoryError};
pub use recorder::{DeviceRecorder, Recorder};
pub use report::{Finding, Report};
pub use state::{Appearance, Block, EntryKind, FinalState, Member, Stored};
