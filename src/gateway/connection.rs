//! The task that owns one WebSocket. The loop only routes: what the outbox holds goes out, what the
//! client sends goes to `commands`, and it ends when either side says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{CloseCode, Format, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

use super::Gateway;
use super::admission::Permit;
use super::frame::Frame;
use super::open::{self, NotOpened, Opening};
use super::outbox::Next;
use super::rate_limit::Rates;
use super::session::Session;
use crate::commands;
use crate::metrics;

pub(super) type Socket = WebSocketStream<TcpStream>;

/// Zero-filled at every poll of the socket and kept for its life (tungstenite), so small.
const READ_BUFFER: usize = 2 * 1024;
/// Flushed beyond this; also what a socket keeps for its life.
const WRITE_BUFFER: usize = 4 * 1024;
/// A single flush holds at most one outbox.
const WRITE_BUFFER_MAX: usize = 2 * 1024 * 1024;
/// A reader that takes nothing for this long is too slow.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other side may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What is counted as a close without a close frame (RFC 6455, 7.1.5).
const CUT_OFF: u16 = 1006;

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

/// Runs one socket from its upgrade to its end.
pub(super) async fn run(gateway: Gateway, upgrade: OnUpgrade, opening: Opening, permit: Permit) {
    // Boxed: only the loop below has to live in a socket's memory for long.
    let Some((mut socket, opened)) = Box::pin(start(&gateway, upgrade, opening)).await else {
        return;
    };
    let ended = match opened {
        Ok(session) => {
            let ended = serve(&gateway, &mut socket, &session).await;
            // Whoever still waits for room in the outbox must not wait for ever.
            session.close(CloseCode::Resynchronise);
            open::left(&gateway, &session).await;
            ended
        }
        Err(NotOpened::Close(code)) => Ended::Close(code),
        Err(NotOpened::Gone(error)) => error.map_or(Ended::Peer(None), |e| Ended::of_error(&e)),
    };
    Box::pin(finish(socket, ended)).await;
    drop(permit);
}

type Started = (Socket, Result<Arc<Session>, NotOpened>);

async fn start(gateway: &Gateway, upgrade: OnUpgrade, opening: Opening) -> Option<Started> {
    let upgraded = upgrade.await.ok()?;
    let mut socket = websocket(upgraded).await?;
    let opened = open::open(gateway, &mut socket, opening).await;
    Some((socket, opened))
}

/// The WebSocket over the bare TCP connection, without the layers HTTP needed.
async fn websocket(upgraded: Upgraded) -> Option<Socket> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    let stream = parts.io.into_inner();
    let early = parts.read_buf.to_vec();
    let (role, config) = (Role::Server, Some(config()));
    Some(WebSocketStream::from_partially_read(stream, early, role, config).await)
}

/// How a socket ended.
pub(super) enum Ended {
    /// The server closes it.
    Close(CloseCode),
    /// The client closed it, with this code, or went away.
    Peer(Option<u16>),
}

impl Ended {
    pub(super) fn of_error(error: &WsError) -> Self {
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
                Self::Close(CloseCode::FrameTooLarge)
            }
            WsError::Utf8(_) => Self::Close(CloseCode::InvalidUtf8),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Peer(None),
            WsError::Protocol(_) => Self::Close(CloseCode::ProtocolError),
            _ => Self::Peer(None),
        }
    }
}

async fn serve(gateway: &Gateway, socket: &mut Socket, session: &Arc<Session>) -> Ended {
    let mut client = Client::new(gateway);
    loop {
        tokio::select! {
            biased;
            next = session.outbox.next() => match next {
                Next::Write(frames) => {
                    if let Err(ended) = write(socket, frames).await {
                        return ended;
                    }
                }
                Next::Close(code) => return Ended::Close(code),
            },
            read = socket.next(), if session.may_read() => match read {
                Some(Ok(message)) => {
                    if let Some(ended) = client.read(gateway, session, message).await {
                        return ended;
                    }
                }
                Some(Err(error)) => return Ended::of_error(&error),
                None => return Ended::Peer(None),
            },
            () = session.answered(), if !session.may_read() => {}
        }
    }
}

/// Writes what was queued with as few system calls as possible.
async fn write(
    socket: &mut Socket,
    frames: std::collections::VecDeque<Frame>,
) -> Result<(), Ended> {
    let count = frames.len() as u64;
    let written = tokio::time::timeout(WRITE_TIMEOUT, async {
        for frame in frames {
            socket.feed(frame.into_message()).await?;
        }
        socket.flush().await
    });
    match written.await {
        Ok(Ok(())) => {
            metrics::frames_sent_total().increment(count);
            Ok(())
        }
        Ok(Err(WsError::WriteBufferFull(_))) | Err(_) => {
            metrics::slow_readers_total().increment(1);
            Err(Ended::Close(CloseCode::TooSlow))
        }
        Ok(Err(error)) => Err(Ended::of_error(&error)),
    }
}

/// What is remembered of one client's behaviour.
struct Client {
    rates: Rates,
    bad_frames: u32,
    bad_since: Instant,
}

impl Client {
    fn new(gateway: &Gateway) -> Self {
        let options = &gateway.options;
        let now = Instant::now();
        let messages = (options.messages_per_second, options.messages_burst);
        Self {
            rates: Rates::new(options.rates_enabled.then_some(messages), now),
            bad_frames: 0,
            bad_since: now,
        }
    }

    async fn read(
        &mut self,
        gateway: &Gateway,
        session: &Arc<Session>,
        message: WsMessage,
    ) -> Option<Ended> {
        session.heard(gateway.now_seconds());
        let reply = match (&message, session.format) {
            (WsMessage::Text(text), Format::Json) => {
                commands::frame(gateway, session, text.as_bytes(), &mut self.rates).await
            }
            (WsMessage::Binary(bytes), Format::MsgPack) => {
                commands::frame(gateway, session, bytes, &mut self.rates).await
            }
            (WsMessage::Text(_) | WsMessage::Binary(_), format) => commands::wrong_kind(format),
            (WsMessage::Close(frame), _) => {
                return Some(Ended::Peer(frame.as_ref().map(|frame| frame.code.into())));
            }
            _ => return None,
        };
        metrics::frames_received_total().increment(1);
        match reply {
            commands::Outcome::Reply(event) => {
                session.send(&event);
            }
            commands::Outcome::Bad(event) => {
                metrics::bad_frames_total().increment(1);
                session.send(&event);
                if self.too_many_bad_frames() {
                    session.close(CloseCode::Abuse);
                }
            }
            commands::Outcome::Nothing => {}
        }
        None
    }

    fn too_many_bad_frames(&mut self) -> bool {
        let window = Duration::from_secs(limits::BAD_FRAMES_WINDOW_SECONDS);
        if self.bad_since.elapsed() > window {
            self.bad_since = Instant::now();
            self.bad_frames = 0;
        }
        self.bad_frames += 1;
        self.bad_frames > limits::BAD_FRAMES_MAX
    }
}

/// Writes one event at once, before a socket has a session.
pub(super) async fn write_event(socket: &mut Socket, format: Format, event: &ServerEvent) {
    if let Some(frame) = Frame::encode(format, event) {
        let sent = tokio::time::timeout(CLOSE_TIMEOUT, socket.send(frame.into_message()));
        // The socket is closed next, whatever became of this.
        sent.await.ok();
    }
}

/// Says goodbye and waits a moment for the answer, so that the last frames arrive.
pub(super) async fn finish(socket: Socket, ended: Ended) {
    let code = match ended {
        Ended::Close(code) => code.code(),
        Ended::Peer(code) => code.unwrap_or(CUT_OFF),
    };
    let said = tokio::time::timeout(CLOSE_TIMEOUT, goodbye(socket, ended));
    // Whoever does not listen to the end is gone all the same.
    said.await.ok();
    metrics::closes_total(label_of(code)).increment(1);
}

async fn goodbye(mut socket: Socket, ended: Ended) -> Result<(), WsError> {
    match ended {
        Ended::Close(code) => {
            let frame = CloseFrame {
                code: WsCloseCode::from(code.code()),
                reason: code.reason().into(),
            };
            socket.close(Some(frame)).await?;
            while let Some(Ok(_)) = socket.next().await {}
        }
        // Flushes the answer to the client's close frame, if that is what ended it; sending a
        // close frame of our own would be an error then.
        Ended::Peer(_) => SinkExt::close(&mut socket).await?,
    }
    hang_up(socket.into_inner()).await
}

/// Closes the connection in a way that lets the close frame arrive: one that is closed over unread
/// bytes is reset, and the reset overtakes what was written before it.
async fn hang_up(mut stream: TcpStream) -> Result<(), WsError> {
    stream.shutdown().await?;
    let mut unread = [0; 2 * 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Codes are the client's to choose, labels are not.
fn label_of(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        1002 => "1002",
        1003 => "1003",
        1006 => "1006",
        1007 => "1007",
        1009 => "1009",
        1012 => "1012",
        1013 => "1013",
        4001 => "4001",
        4003 => "4003",
        4008 => "4008",
        4009 => "4009",
        4101 => "4101",
        4102 => "4102",
        4103 => "4103",
        _ => "other",
    }
}
