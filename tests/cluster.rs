//! Several nodes, and what a team that runs them relies on: nothing is lost, doubled or reordered,
//! whichever node or server fails meanwhile.

#[path = "cluster/crowd.rs"]
mod crowd;
#[path = "cluster/drain.rs"]
mod drain;
#[path = "cluster/groups.rs"]
mod groups;
#[path = "cluster/loss.rs"]
mod loss;
#[path = "cluster/redis.rs"]
mod redis;
#[path = "cluster/resume.rs"]
mod resume;
#[path = "cluster/sending.rs"]
mod sending;
#[path = "cluster/sessions.rs"]
mod sessions;

/// The program under test.
const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");
