//! One connection of a link: two pumps, and what may end them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};

use super::lens::Lens;
use super::line::{Line, Passage, portion};
use super::{Direction, Mode, Role, Rules, Shared, connect, count};

/// What the two directions of a connection know of each other.
#[derive(Default)]
pub(super) struct Link {
    role: AtomicU8,
    reset: Notify,
    /// The answer to a commit that is under way is to be lost.
    answer_is_lost: AtomicBool,
}

const ROLES: [Role; 5] = [
    Role::Unknown,
    Role::Subscriber,
    Role::Publisher,
    Role::Sentinel,
    Role::Other,
];

impl Link {
    pub(super) fn role(&self) -> Role {
        let number = self.role.load(Ordering::SeqCst);
        ROLES
            .get(usize::from(number))
            .copied()
            .unwrap_or(Role::Unknown)
    }

    pub(super) fn set_role(&self, role: Role) {
        let number = ROLES.iter().position(|known| *known == role);
        let number = number.and_then(|number| u8::try_from(number).ok());
        self.role
            .store(number.unwrap_or_default(), Ordering::SeqCst);
    }

    pub(super) fn reset(&self) {
        self.reset.notify_one();
    }

    pub(super) fn lose_answer(&self) {
        self.answer_is_lost.store(true, Ordering::SeqCst);
    }

    pub(super) fn answer_is_lost(&self) -> bool {
        self.answer_is_lost.load(Ordering::SeqCst)
    }
}

/// Why a connection does not go on.
#[derive(Debug)]
pub(super) enum Broken {
    Cut,
    Reset,
    /// One of its ends broke by itself.
    Gone,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Runs one connection to its end.
pub(super) async fn run(number: u64, near: TcpStream, shared: Arc<Shared>) {
    let link = Arc::new(Link::default());
    shared.links().insert(number, Arc::clone(&link));
    count(&shared.counters.connections);
    // However this ends, be it that the task is aborted.
    let _registered = Registered {
        number,
        shared: &shared,
    };
    // Who is held must not see that nobody is behind the link.
    if until(&shared, &link, |mode| mode != Mode::Blackhole).await == Mode::Cut {
        return;
    }
    let Ok(far) = connect(shared.target).await else {
        return;
    };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let pump = |direction| Pump {
        direction,
        shared: &shared,
        link: &link,
        lens: Lens::new(&shared.protocol, direction),
        line: Line::default(),
    };
    let (requests, replies) = (pump(Direction::Request), pump(Direction::Reply));
    let broken = tokio::select! {
        both = async { tokio::try_join!(
            requests.run(&mut from_near, &mut to_far),
            replies.run(&mut from_far, &mut to_near),
        ) } => both.err(),
        () = link.reset.notified() => Some(Broken::Reset),
        _ = until(&shared, &link, |mode| mode == Mode::Cut) => Some(Broken::Cut),
    };
    match broken {
        Some(Broken::Reset) => {
            count(&shared.counters.resets);
            // With nothing to linger for, closing is a reset.
            to_near.as_ref().set_zero_linger().ok();
            to_far.as_ref().set_zero_linger().ok();
            // Dropped, these would say good-bye first.
            to_near.forget();
            to_far.forget();
        }
        Some(Broken::Cut) => count(&shared.counters.cuts),
        Some(Broken::Gone) | None => {}
    }
}

/// In the list of a link's connections for as long as this lives.
struct Registered<'a> {
    number: u64,
    shared: &'a Shared,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.links().remove(&self.number);
    }
}

/// Waits until the mode of a connection's requests is as asked for, or [`Mode::Cut`].
async fn until(shared: &Shared, link: &Link, is_so: impl Fn(Mode) -> bool) -> Mode {
    let mut rules = shared.rules.subscribe();
    loop {
        let mode = rules
            .borrow_and_update()
            .mode(link.role(), Direction::Request);
        // A link whose proxy is gone ends with it.
        if mode == Mode::Cut || is_so(mode) || rules.changed().await.is_err() {
            return mode;
        }
    }
}

/// One direction of a connection.
struct Pump<'a> {
    direction: Direction,
    shared: &'a Shared,
    link: &'a Link,
    lens: Lens,
    line: Line,
}

impl Pump<'_> {
    async fn run(
        mut self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
    ) -> Result<(), Broken> {
        let mut rules: watch::Receiver<Rules> = self.shared.rules.subscribe();
        let mut arrived = BytesMut::new();
        let mut has_ended = false;
        loop {
            let mode = rules
                .borrow_and_update()
                .mode(self.link.role(), self.direction);
            if mode == Mode::Cut {
                return Err(Broken::Cut);
            }
            let is_open = mode != Mode::Blackhole;
            if has_ended && is_open && self.line.is_empty() {
                to.shutdown().await?;
                return Ok(());
            }
            let may_read = is_open && !has_ended && self.line.has_room(mode);
            // Else the buffer has room for a few bytes only.
            arrived.reserve(portion(mode));
            let mut room = (&mut arrived).limit(portion(mode));
            tokio::select! {
                biased;
                changed = rules.changed() => changed.map_err(|_| Broken::Gone)?,
                () = self.line.due(), if is_open => {
                    if let Some(piece) = self.line.take() {
                        to.write_all(&piece).await?;
                    }
                }
                read = from.read_buf(&mut room), if may_read => {
                    let length = read?;
                    has_ended = length == 0;
                    self.pass(&mut arrived, &rules, to).await?;
                }
            }
        }
    }

    /// Passes on what arrived, as far as it is whole.
    async fn pass(
        &mut self,
        arrived: &mut BytesMut,
        rules: &watch::Receiver<Rules>,
        to: &mut OwnedWriteHalf,
    ) -> Result<(), Broken> {
        let counters = &self.shared.counters;
        let pieces = self.lens.look(arrived, self.link, counters)?;
        for (piece, passage) in pieces {
            // Looking may have told what the connection is for, and so its mode.
            let mode = rules.borrow().mode(self.link.role(), self.direction);
            counters
                .bytes
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
            if mode == Mode::Blackhole {
                self.line.put(piece, Passage::Later(Duration::ZERO), mode);
            } else if let Some(piece) = self.line.put(piece, passage, mode) {
                to.write_all(&piece).await?;
            }
        }
        Ok(())
    }
}
