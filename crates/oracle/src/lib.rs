//! The oracle: from what devices saw and what the store holds in the end it tells whether any message
//! was lost, doubled, reordered or shown to a stranger.
//!
//! Devices write what they do and see as JSON lines ([`event`], written by a [`Recorder`]); one file
//! holds any number of devices of one process. Adapters note whole frames ([`wire`]) or what the
//! client library hands out ([`client`]), so that nobody has to know which event says what.

pub mod client;
pub mod event;
pub mod recorder;
pub mod wire;

pub use event::{Event, Fingerprint, Line, Resume, View, Way};
pub use recorder::{DeviceRecorder, Recorder};
