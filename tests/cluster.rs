//! Several nodes, and what a team that runs them relies on: nothing is lost, doubled or reordered,
//! whichever node or server fails meanwhile.

mod cluster {
    mod crowd;
    mod drain;
    mod groups;
    mod large;
    mod loss;
    mod presence;
    mod random;
    mod receipts;
    mod redis;
    mod resume;
    mod sending;
    mod sessions;
}

/// The program under test.
const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");
