//! `rookery-chaos`: three nodes, people who write to each other, random faults, and a verdict.
//!
//! - `options`: the command line. `run`: the phases of a run, in their order.
//! - `world`: the cluster and everybody on it. `people`: accounts; `rooms`: conversations; `device`:
//!   an application around the reference client; `workload`: what they do, at which rate.
//! - `annex`: a node with SQLite beside the cluster, with people and a history of its own, for what
//!   only it can go through.
//! - `kinds`: the table of faults, which are in `faults`, a file a family. `plan`: which comes when;
//!   `nemesis`: carries the plan out. `keys`: those that sign tokens, which one of them changes.
//! - `measure`, `watch`: figures while it runs. `rest`: healing, and waiting until all is delivered;
//!   `truth`: what PostgreSQL holds then. `report`: what was found.
//!
//! The verdict is that of the crate `rookery-oracle`, which sees the histories of all devices.

mod annex;
mod device;
mod faults;
mod keys;
mod kinds;
mod measure;
mod nemesis;
mod options;
mod people;
mod plan;
mod report;
mod rest;
mod rooms;
mod run;
mod truth;
mod watch;
mod workload;
mod world;

pub use kinds::list;
pub use options::Options;
pub use report::Report;
pub use run::run;
