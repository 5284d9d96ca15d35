//! The WebSocket of one client: writes what its outbox holds while it reads what the client sends.
//! Neither waits for the other, so that a client on a slow link is heard during a long sync.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{CloseCode, Format, limits};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

use super::frame::Frame;
use super::goodbye::Ended;
use super::outbox::{CHUNK_BYTES, Next};
use super::session::Session;
use crate::metrics;

pub(super) type Socket = WebSocketStream<TcpStream>;

/// Zero-filled before every read and kept for its life (tungstenite), so small: two or three
/// sends of a chat's usual length. A longer frame gets the room it needs.
const READ_BUFFER: usize = 1024;
/// Flushed beyond this; also what a socket keeps for its life.
const WRITE_BUFFER: usize = 4 * 1024;
/// Holds what is handed over at once, or the largest frame there is.
const WRITE_BUFFER_MAX: usize = 2 * 1024 * 1024;
/// A reader that needs longer for [`CHUNK_BYTES`], or for the next part of that size of a large
/// frame, is too slow. Counted from the first byte to the last: one that trickles is found, too.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a word to a socket without a session may take.
const WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// The WebSocket settings of every socket.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(limits::FRAME_BYTES))
        .max_frame_size(Some(limits::FRAME_BYTES))
        .accept_unmasked_frames(false)
}

/// The WebSocket over the bare TCP connection, without the layers HTTP needed.
pub(super) async fn websocket(upgraded: Upgraded) -> Option<Socket> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    let stream = parts.io.into_inner();
    let early = parts.read_buf.to_vec();
    let (role, config) = (Role::Server, Some(config()));
    Some(WebSocketStream::from_partially_read(stream, early, role, config).await)
}

/// Writes one event at once, before a socket has a session.
pub(super) async fn write_event(socket: &mut Socket, format: Format, event: &ServerEvent) {
    if let Some(frame) = Frame::encode(format, event) {
        let sent = tokio::time::timeout(WORD_TIMEOUT, socket.send(frame.into_message()));
        // The socket is closed next, whatever became of this.
        sent.await.ok();
    }
}

/// See the module.
pub(super) struct Link<S = TcpStream> {
    socket: WebSocketStream<S>,
    /// What the outbox gave and the socket has not taken.
    frames: VecDeque<Frame>,
    /// Frames given and not flushed.
    unflushed: u64,
    /// When the reader is too slow; `None` while nothing is being written.
    deadline: Option<Instant>,
    /// Something was written since the client was heard last.
    has_written: bool,
}

/// What the socket did.
enum Io {
    Flushed(Result<(), WsError>),
    Read(Option<Result<WsMessage, WsError>>),
    TooSlow,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(super) fn new(socket: WebSocketStream<S>) -> Self {
        Self {
            socket,
            frames: VecDeque::new(),
            unflushed: 0,
            deadline: None,
            has_written: false,
        }
    }

    pub(super) fn into_socket(self) -> WebSocketStream<S> {
        self.socket
    }

    /// Waits for the client's next message, as soon as it may be read, and writes meanwhile.
    /// Cancel-safe, as everything here.
    pub(super) async fn read(&mut self, session: &Session) -> Result<WsMessage, Ended> {
        loop {
            let may_read = session.may_read();
            tokio::select! {
                biased;
                step = self.step(session, may_read) => if let Some(read) = step {
                    return read;
                },
                () = session.answered(), if !may_read => {}
            }
        }
    }

    /// Writes until the socket ends.
    pub(super) async fn write(&mut self, session: &Session) -> Ended {
        loop {
            if let Some(Err(ended)) = self.step(session, false).await {
                return ended;
            }
        }
    }

    async fn step(
        &mut self,
        session: &Session,
        may_read: bool,
    ) -> Option<Result<WsMessage, Ended>> {
        let busy = self.deadline.is_some();
        // What is queued goes out before more is read: who hangs up behind a request is owed its
        // answer. Not twice in a row, so that an outbox that is never empty keeps nobody unheard.
        if !self.has_written
            && let Some(next) = session.outbox.now(busy)
        {
            return self.follow(next);
        }
        tokio::select! {
            biased;
            io = self.io(may_read) => self.note(io),
            next = session.outbox.next(busy) => self.follow(next),
        }
    }

    fn note(&mut self, io: Io) -> Option<Result<WsMessage, Ended>> {
        self.has_written = matches!(io, Io::Flushed(_));
        match io {
            Io::Read(Some(Ok(message))) => Some(Ok(message)),
            Io::Read(None) => Some(Err(Ended::Peer(None))),
            Io::Flushed(Ok(())) => None,
            Io::Read(Some(Err(error))) | Io::Flushed(Err(error)) => {
                Some(Err(Ended::of_error(&error)))
            }
            Io::TooSlow => {
                metrics::slow_readers_total().stalled.increment(1);
                Some(Err(Ended::Close(CloseCode::TooSlow)))
            }
        }
    }

    fn follow(&mut self, next: Next) -> Option<Result<WsMessage, Ended>> {
        match next {
            Next::Write(frames) => {
                self.begin(frames);
                None
            }
            Next::Close(code) => Some(Err(Ended::Close(code))),
        }
    }

    fn begin(&mut self, frames: VecDeque<Frame>) {
        let bytes: usize = frames.iter().map(Frame::len).sum();
        // No frame has a million chunks.
        let chunks = u32::try_from(bytes / CHUNK_BYTES).unwrap_or(u32::MAX);
        self.deadline = Some(Instant::now() + WRITE_TIMEOUT * chunks.saturating_add(1));
        self.unflushed = frames.len() as u64;
        self.frames = frames;
    }

    async fn io(&mut self, may_read: bool) -> Io {
        let deadline = self.deadline;
        let io = poll_fn(|cx| self.poll_io(cx, may_read));
        match deadline {
            Some(deadline) => timeout_at(deadline, io).await.unwrap_or(Io::TooSlow),
            None => io.await,
        }
    }

    fn poll_io(&mut self, cx: &mut Context<'_>, may_read: bool) -> Poll<Io> {
        if self.deadline.is_some()
            && let Poll::Ready(flushed) = self.poll_write(cx)
        {
            self.deadline = None;
            self.frames = VecDeque::new();
            metrics::frames_sent_total().increment(self.unflushed);
            return Poll::Ready(Io::Flushed(flushed));
        }
        if may_read {
            return self.socket.poll_next_unpin(cx).map(Io::Read);
        }
        Poll::Pending
    }

    /// Hands the frames over and flushes them, with as few system calls as possible.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        while !self.frames.is_empty() {
            ready!(self.socket.poll_ready_unpin(cx))?;
            if let Some(frame) = self.frames.pop_front() {
                self.socket.start_send_unpin(frame.into_message())?;
            }
        }
        self.socket.poll_flush_unpin(cx)
    }
}
