//! Several nodes, and what a team that runs them relies on: nothing is lost, doubled or reordered,
//! whichever node or server fails meanwhile.

#[path = "cluster/crowd.rs"]
mod crowd;
#[path = "cluster/sending.rs"]
mod sending;

/// The program under test.
const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");
