//! The sends of one conversation, in the order in which they were asked for.

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use rookery_protocol::command::MessageSend;
use rookery_protocol::{ConversationId, UserId};

use super::Moment;
use crate::live::backoff::Backoff;

/// A send and its place among all.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) message: MessageSend,
    pub(super) bytes: usize,
}

impl Entry {
    pub(super) fn new(number: u64, message: MessageSend) -> Self {
        let metadata = message.metadata.as_ref();
        let metadata = metadata.and_then(|map| serde_json::to_string(map).ok());
        let bytes = message.content.len() + metadata.map_or(0, |text| text.len());
        Self {
            number,
            message,
            bytes,
        }
    }
}

/// Which lane: a conversation, or a person as long as it is not known who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LaneId {
    Conversation(ConversationId),
    Person(UserId),
    /// Neither is named: the server will refuse it.
    Nowhere,
}

impl LaneId {
    pub(super) fn of(message: &MessageSend, me: Option<UserId>) -> Self {
        match (message.conversation_id, message.recipient_id, me) {
            (Some(id), ..) => Self::Conversation(id),
            (_, Some(other), Some(me)) => Self::Conversation(ConversationId::direct(me, other)),
            (_, Some(other), None) => Self::Person(other),
            (None, None, _) => Self::Nowhere,
        }
    }
}

/// What is true of a lane's first send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum State {
    #[default]
    Ready,
    Flying(Moment),
    Delayed(Moment),
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) entries: VecDeque<Entry>,
    pub(super) state: State,
    refusals: Backoff,
}

impl Lane {
    /// How long to wait after one more refusal. A hint is obeyed and, since many may have got the
    /// same one, blurred by up to a quarter.
    pub(super) fn patience(&mut self, hint: Option<Duration>, dice: &mut impl Rng) -> Duration {
        let wait = self.refusals.next(dice);
        hint.map_or(wait, |hint| hint + wait.min(hint / 4))
    }

    /// The first send was settled: the next refusal is a first one again.
    pub(super) fn went_through(&mut self) {
        self.refusals = Backoff::default();
    }
}
