//! What a link sees of what passes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::line::Passage;
use super::link::{Broken, Link};
use super::postgres::{self, Commits};
use super::redis::{self, PushRules};
use super::sentinel::{self, Names};
use super::{Counters, Direction};

/// What the two ends of a link speak.
#[derive(Clone)]
pub(super) enum Protocol {
    Plain,
    Redis(Arc<PushRules>),
    Sentinel(Names),
    Postgres(Arc<Commits>),
}

/// What is known of one direction of a connection.
pub(super) enum Lens {
    Plain,
    RedisRequests,
    RedisReplies(Arc<PushRules>),
    SentinelReplies(Names),
    PostgresRequests(postgres::Requests),
    PostgresReplies(postgres::Replies),
}

/// Pieces of what arrived, and when each goes on.
pub(super) type Pieces = Vec<(Bytes, Passage)>;

impl Lens {
    pub(super) fn new(protocol: &Protocol, direction: Direction) -> Self {
        match (protocol, direction) {
            (Protocol::Plain, _) | (Protocol::Sentinel(_), Direction::Request) => Self::Plain,
            (Protocol::Sentinel(names), Direction::Reply) => Self::SentinelReplies(names.clone()),
            (Protocol::Redis(_), Direction::Request) => Self::RedisRequests,
            (Protocol::Redis(rules), Direction::Reply) => Self::RedisReplies(Arc::clone(rules)),
            (Protocol::Postgres(commits), Direction::Request) => {
                Self::PostgresRequests(postgres::Requests::new(Arc::clone(commits)))
            }
            (Protocol::Postgres(_), Direction::Reply) => {
                Self::PostgresReplies(postgres::Replies::default())
            }
        }
    }

    /// Takes from `arrived` what can go on, and says when. What is not whole stays.
    pub(super) fn look(
        &mut self,
        arrived: &mut BytesMut,
        link: &Link,
        counters: &Counters,
    ) -> Result<Pieces, Broken> {
        match self {
            Self::Plain => Ok(at_once(arrived)),
            Self::RedisRequests => redis::look_at_requests(arrived, link),
            Self::RedisReplies(rules) => redis::look_at_replies(arrived, link, rules, counters),
            Self::SentinelReplies(names) => sentinel::look_at_replies(arrived, names),
            Self::PostgresRequests(requests) => Ok(requests.look(arrived, link)),
            Self::PostgresReplies(replies) => replies.look(arrived, link, counters),
        }
    }
}

/// All of it, without a look.
pub(super) fn at_once(arrived: &mut BytesMut) -> Pieces {
    if arrived.is_empty() {
        return Vec::new();
    }
    vec![(arrived.split().freeze(), Passage::Now)]
}
