//! A way to PostgreSQL that can lose the answer to a commit: the one who sent it cannot know
//! whether it happened.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::{Bytes, BytesMut};

use super::lens::{Pieces, Protocol, at_once};
use super::line::Passage;
use super::link::{Broken, Link};
use super::{Counters, Proxy, count};

/// Between one node and its PostgreSQL.
pub struct PostgresProxy {
    proxy: Proxy,
    commits: Arc<Commits>,
}

/// Which commits are to have no answer, on all connections of a link.
#[derive(Default)]
pub(super) struct Commits(Mutex<Meant>);

#[derive(Default)]
struct Meant {
    /// The next ones, whatever they commit.
    next: usize,
    /// The next one after this text was sent on the same connection.
    texts: Vec<Vec<u8>>,
}

impl PostgresProxy {
    pub(crate) async fn start(postgres: SocketAddr) -> Result<Self> {
        let commits = Arc::new(Commits::default());
        let protocol = Protocol::Postgres(Arc::clone(&commits));
        let proxy = Proxy::with_protocol(postgres, protocol).await?;
        Ok(Self { proxy, commits })
    }

    /// The same database as `url` names, this way.
    pub(crate) fn url(&self, url: &str) -> String {
        let database = url.rsplit('/').next().unwrap_or_default();
        let user = url.trim_start_matches("postgres://").split('@').next();
        let user = user.unwrap_or_default();
        format!("postgres://{user}@{}/{database}", self.address())
    }

    /// The next `count` commits reach PostgreSQL, which commits; their connections are reset before
    /// anybody hears of it.
    pub fn lose_answers(&self, count: usize) {
        self.commits.meant().next += count;
    }

    /// The same for the commit of the next transaction in which this text is written.
    pub fn lose_answer_to(&self, text: &str) {
        self.commits.meant().texts.push(text.into());
    }
}

/// Modes, resets and counts, as of any link.
impl Deref for PostgresProxy {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

impl Commits {
    fn meant(&self) -> MutexGuard<'_, Meant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a text is meant that this message contains; each is meant once.
    fn takes_text(&self, message: &[u8]) -> bool {
        let mut meant = self.meant();
        let contains = |text: &Vec<u8>| message.windows(text.len()).any(|part| part == text);
        let found = meant.texts.iter().position(contains);
        found.map(|index| meant.texts.swap_remove(index)).is_some()
    }

    fn takes_next(&self) -> bool {
        let mut meant = self.meant();
        let is_meant = meant.next > 0;
        meant.next = meant.next.saturating_sub(1);
        is_meant
    }
}

/// What the one who connected has said so far.
pub(super) struct Requests {
    commits: Arc<Commits>,
    has_begun: bool,
    /// The transaction under way is meant.
    is_meant: bool,
    /// Prepared statements that commit, by name.
    statements: HashSet<Vec<u8>>,
    /// The portal that was bound last commits.
    portal_commits: bool,
}

impl Requests {
    pub(super) fn new(commits: Arc<Commits>) -> Self {
        Self {
            commits,
            has_begun: false,
            is_meant: false,
            statements: HashSet::new(),
            portal_commits: false,
        }
    }

    pub(super) fn look(&mut self, arrived: &mut BytesMut, link: &Link) -> Pieces {
        let mut pieces = Pieces::new();
        while let Some(length) = self.message_length(arrived) {
            let message = arrived.split_to(length).freeze();
            self.note(&message, link);
            pieces.push((message, Passage::Now));
        }
        pieces
    }

    /// The length of the message at the start, once all of it is there. Before the session begins
    /// messages have no type.
    fn message_length(&self, arrived: &[u8]) -> Option<usize> {
        let head = usize::from(self.has_begun);
        let length: [u8; 4] = arrived.get(head..head + 4)?.try_into().ok()?;
        let length = head + usize::try_from(u32::from_be_bytes(length)).ok()?;
        (arrived.len() >= length).then_some(length)
    }

    fn note(&mut self, message: &Bytes, link: &Link) {
        if !self.has_begun {
            // Requests for encryption and the like come before the protocol's version, 3.
            self.has_begun = message.get(4..6) == Some(&[0, 3]);
            return;
        }
        self.is_meant |= self.commits.takes_text(message);
        let mut words = message[5..].split(|byte| *byte == 0);
        let mut word = || words.next().unwrap_or_default();
        let commits = match message[0] {
            b'Q' => is_commit(word()),
            b'P' => {
                let (name, query) = (word(), word());
                if is_commit(query) {
                    self.statements.insert(name.to_vec());
                } else {
                    self.statements.remove(name);
                }
                false
            }
            b'B' => {
                let (_portal, statement) = (word(), word());
                self.portal_commits = self.statements.contains(statement);
                false
            }
            b'E' => self.portal_commits,
            _ => false,
        };
        if commits && (std::mem::take(&mut self.is_meant) || self.commits.takes_next()) {
            link.lose_answer();
        }
    }
}

/// Whether it ends a transaction or, since it writes, is one by itself.
fn is_commit(query: &[u8]) -> bool {
    const WRITES: &[u8] = b"append_batch(";
    let query = query.trim_ascii_start();
    let ends = query.len() >= 6 && query[..6].eq_ignore_ascii_case(b"commit");
    ends || query.windows(WRITES.len()).any(|part| part == WRITES)
}

/// The end of what PostgreSQL says when a transaction is over: it is ready, and in none.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// What PostgreSQL has answered to a commit whose answer is lost.
#[derive(Default)]
pub(super) struct Replies {
    swallowed: Vec<u8>,
}

impl Replies {
    /// Waits for the answer that is to be lost, so that it is sure to have happened, and lets
    /// nothing of it through.
    pub(super) fn look(
        &mut self,
        arrived: &mut BytesMut,
        link: &Link,
        counters: &Counters,
    ) -> Result<Pieces, Broken> {
        if !link.answer_is_lost() {
            return Ok(at_once(arrived));
        }
        self.swallowed.extend_from_slice(&arrived.split());
        if self.swallowed.ends_with(READY) {
            count(&counters.lost_commits);
            return Err(Broken::Reset);
        }
        Ok(Pieces::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    /// Whether the answer to the last of these messages is lost, when `text` is meant.
    fn is_lost(text: &str, messages: &[Vec<u8>]) -> bool {
        let commits = Arc::new(Commits::default());
        commits.meant().texts.push(text.into());
        let mut requests = Requests::new(commits);
        let link = Link::default();
        let startup = [&8_u32.to_be_bytes()[..], &[0, 3, 0, 0]].concat();
        let mut arrived = BytesMut::from(startup.as_slice());
        for message in messages {
            arrived.extend_from_slice(message);
        }
        let length = arrived.len();
        let pieces = requests.look(&mut arrived, &link);
        let passed: usize = pieces.iter().map(|(piece, _)| piece.len()).sum();
        assert_eq!(passed, length, "everything reaches PostgreSQL");
        link.answer_is_lost()
    }

    #[test]
    fn commits_are_seen_however_they_are_said() {
        let bind = message(b'B', b"\0insert\0hello");
        let simple = message(b'Q', b"COMMIT\0");
        assert!(is_lost("hello", &[bind.clone(), simple.clone()]));
        assert!(!is_lost("hello", &[simple]));
        let prepared = [
            message(b'P', b"s1\0commit\0\0\0"),
            bind,
            message(b'B', b"\0s1\0"),
            message(b'E', b"\0\0\0\0\0"),
        ];
        assert!(is_lost("hello", &prepared));
        assert!(!is_lost("hello", &prepared[..3]));
        let by_itself = [
            message(b'P', b"s2\0select x from append_batch($1)\0\0\0"),
            message(b'B', b"\0s2\0hello"),
            message(b'E', b"\0\0\0\0\0"),
        ];
        assert!(is_lost("hello", &by_itself));
    }
}
