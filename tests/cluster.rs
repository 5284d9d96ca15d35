//! Several nodes, and what a team that runs them relies on: nothing is lost, doubled or reordered,
//! whichever node or server fails meanwhile.

mod cluster {
    mod admission;
    mod changes;
    mod crowd;
    mod database;
    mod drain;
    mod groups;
    mod held;
    mod large;
    mod logs;
    mod loss;
    mod metrics;
    mod presence;
    mod random;
    mod receipts;
    mod redis;
    mod resume;
    mod sending;
    mod sessions;
    mod set_back;
    mod slow_readers;
    mod traces;
}

#[path = "stories/changes.rs"]
mod change_stories;
#[path = "stories/rules.rs"]
mod rule_stories;

/// The program under test.
const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");
