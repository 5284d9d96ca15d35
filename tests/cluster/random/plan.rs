//! What happens: a step for each draw of the random numbers.

use rand::Rng;
use rookery_protocol::user::ChosenStatus;

pub(super) const STATUSES: [ChosenStatus; 4] = [
    ChosenStatus::Online,
    ChosenStatus::Away,
    ChosenStatus::Dnd,
    ChosenStatus::Invisible,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Send,
    Reply,
    Mention,
    Direct,
    Read,
    Delivered,
    Edit,
    Delete,
    React,
    Unreact,
    Type,
    Appear,
    Cut,
    Resume,
    NewGroup,
    Join,
    Leave,
    Remove,
    Promote,
    Rename,
    Block,
    Unblock,
}

/// How often each happens.
const WEIGHTS: [(Op, u32); 22] = [
    (Op::Send, 300),
    (Op::Reply, 40),
    (Op::Mention, 40),
    (Op::Direct, 60),
    (Op::Read, 150),
    (Op::Delivered, 50),
    (Op::Edit, 70),
    (Op::Delete, 25),
    (Op::React, 90),
    (Op::Unreact, 50),
    (Op::Type, 20),
    (Op::Appear, 6),
    (Op::Cut, 12),
    (Op::Resume, 60),
    (Op::NewGroup, 5),
    (Op::Join, 20),
    (Op::Leave, 8),
    (Op::Remove, 12),
    (Op::Promote, 4),
    (Op::Rename, 4),
    (Op::Block, 3),
    (Op::Unblock, 4),
];

/// One thing that somebody does. The numbers choose among what there is at the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) op: Op,
    pub(super) who: usize,
    pub(super) device: usize,
    pub(super) room: usize,
    pub(super) number: usize,
}

impl Step {
    pub(super) fn next(random: &mut impl Rng) -> Self {
        let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut draw = random.random_range(0..total);
        let mut op = Op::Send;
        for (candidate, weight) in WEIGHTS {
            if draw < weight {
                op = candidate;
                break;
            }
            draw -= weight;
        }
        Self {
            op,
            who: random.random_range(0..1_000),
            device: random.random_range(0..1_000),
            room: random.random_range(0..1_000),
            number: random.random_range(0..1_000),
        }
    }
}
