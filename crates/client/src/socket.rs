//! One raw WebSocket connection: commands out, events in, and at the end a close code.

mod dial;
mod read;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rookery_protocol::codec::DecodeError;
use rookery_protocol::command::{Auth, ClientCommand};
use rookery_protocol::event::{Ready, ServerEvent};
use rookery_protocol::{ErrorCode, Format};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error as WsError;
pub use tokio_tungstenite::tungstenite::Message as RawMessage;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The code of a connection that ended without a close frame (RFC 6455, 7.1.5).
pub const ABNORMAL: u16 = 1006;

/// Where the access token goes.
#[derive(Clone, Default)]
pub enum TokenIn {
    /// `Authorization: Bearer`; a bad one is answered 401.
    Header(String),
    /// `?token=`, as browsers do; a bad one closes the new socket with 4001 or 4103.
    Query(String),
    /// An `auth` frame, sent at once after the upgrade.
    FirstFrame(String),
    /// Nowhere: the caller sends `auth`, or wants to see what happens without it.
    #[default]
    Nowhere,
}

/// The place without the token: secrets stay out of logs.
impl fmt::Debug for TokenIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header(_) => "Header(..)",
            Self::Query(_) => "Query(..)",
            Self::FirstFrame(_) => "FirstFrame(..)",
            Self::Nowhere => "Nowhere",
        })
    }
}

/// How to open a [`Socket`].
#[derive(Clone)]
pub struct Connect {
    pub token: TokenIn,
    pub format: Format,
    /// Hold back what happens in conversations until the first `sync` is answered.
    pub resume: bool,
    /// Sent as they are, for instance `Origin`; each in the place of one of that name.
    pub headers: Vec<(String, String)>,
    /// The source address, where one has too few ports.
    pub source: Option<IpAddr>,
    /// For the TCP connection, TLS and the upgrade together.
    pub timeout: Duration,
    /// Initial size of the buffer that frames are read into, in bytes. Larger frames still fit.
    pub read_buffer_bytes: usize,
}

/// Headers by name only: one may be a credential.
impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Connect")
            .field("token", &self.token)
            .field("format", &self.format)
            .field("resume", &self.resume)
            .field("headers", &headers)
            .field("source", &self.source)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            token: TokenIn::Nowhere,
            format: Format::Json,
            resume: false,
            headers: Vec::new(),
            source: None,
            timeout: Duration::from_secs(10),
            // tungstenite zero-fills the free part of this buffer before every read.
            read_buffer_bytes: 4 * 1024,
        }
    }
}

impl Connect {
    /// With this access token in the header.
    #[must_use]
    pub fn with_token(access_token: &str) -> Self {
        Self {
            token: TokenIn::Header(access_token.to_owned()),
            ..Self::default()
        }
    }

    /// With this access token, resuming: nothing of conversations comes before a `sync`.
    #[must_use]
    pub fn resuming(access_token: &str) -> Self {
        Self {
            resume: true,
            ..Self::with_token(access_token)
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Url(String),
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("no connection: {0}")]
    Io(io::Error),
    /// The server answered, but did not upgrade.
    #[error("refused with status {status}: {body}")]
    Refused {
        status: u16,
        /// What a `Retry-After` header asked for.
        retry_after: Option<Duration>,
        /// At most the first 4 KiB.
        body: String,
    },
    #[error("the upgrade failed: {0}")]
    Handshake(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Why nothing more can be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Closed by the server, or cut ([`ABNORMAL`]).
    #[error("closed with {code} ({reason})")]
    Closed { code: u16, reason: String },
    /// A known event that is not as this version expects, or a frame that is none.
    #[error("the server sent something unreadable: {0}")]
    Unreadable(#[from] DecodeError),
    /// Waited for `ready`, and was answered with an error.
    #[error("{}: {message}", .code.as_str())]
    Refused { code: ErrorCode, message: String },
}

impl SocketError {
    /// The close code, if the socket was closed or cut.
    #[must_use]
    pub const fn close_code(&self) -> Option<u16> {
        match self {
            Self::Closed { code, .. } => Some(*code),
            _ => None,
        }
    }

    fn cut(reason: impl ToString) -> Self {
        Self::Closed {
            code: ABNORMAL,
            reason: reason.to_string(),
        }
    }
}

/// What came in.
#[derive(Clone, Debug)]
pub enum Received {
    Event(Box<ServerEvent>),
    /// A ping, a pong, or an event of a type that this version does not know: a sign of life.
    Alive,
}

/// One open connection. Dropping it cuts the connection without a close frame.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    format: Format,
    /// What the server's close frame said.
    farewell: Option<(u16, String)>,
    reading: read::State,
}

impl Socket {
    /// Opens a connection to `url`: `http`, `https`, `ws` or `wss`, with or without the path `/ws`.
    ///
    /// Does not wait for `ready`, see [`Socket::ready`].
    ///
    /// # Errors
    /// [`ConnectError`]; a refused upgrade with its status.
    pub async fn connect(url: &str, how: &Connect) -> Result<Self, ConnectError> {
        let stream = tokio::time::timeout(how.timeout, dial::dial(url, how))
            .await
            .map_err(|_| ConnectError::Timeout(how.timeout))??;
        let mut socket = Self {
            stream,
            format: how.format,
            farewell: None,
            reading: read::State::default(),
        };
        if let TokenIn::FirstFrame(token) = &how.token {
            let auth = Auth {
                reference: None,
                token: token.clone(),
                resume: how.resume,
            };
            let sent = socket.send(&ClientCommand::Auth(auth)).await;
            sent.map_err(|error| ConnectError::Handshake(error.to_string()))?;
        }
        Ok(socket)
    }

    /// Receives until `ready`; what comes before it (nothing, from this version's servers) is lost.
    ///
    /// # Errors
    /// [`SocketError`], with the close code of a refused token.
    pub async fn ready(&mut self) -> Result<Ready, SocketError> {
        loop {
            match self.recv().await? {
                ServerEvent::Ready(ready) => return Ok(ready),
                ServerEvent::Error(error) => {
                    return Err(SocketError::Refused {
                        code: error.code,
                        message: error.message,
                    });
                }
                _ => {}
            }
        }
    }

    /// Sends one command, and waits until the operating system has taken it.
    ///
    /// # Errors
    /// [`SocketError::Closed`]; then [`Socket::recv`] may know the code.
    pub async fn send(&mut self, command: &ClientCommand) -> Result<(), SocketError> {
        self.feed(command).await?;
        self.flush().await
    }

    /// Buffers one command until [`Socket::flush`]; many small frames then leave in one write.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn feed(&mut self, command: &ClientCommand) -> Result<(), SocketError> {
        let frame = self.encode(command)?;
        self.feed_raw(frame).await
    }

    /// A command as a frame of this connection's format, for [`Socket::feed_raw`].
    ///
    /// # Errors
    /// [`SocketError::Closed`] if it cannot be written in that format.
    pub fn encode(&self, command: &ClientCommand) -> Result<RawMessage, SocketError> {
        let bytes = self.format.encode(command).map_err(SocketError::cut)?;
        Ok(match self.format {
            Format::Json => RawMessage::text(String::from_utf8(bytes).map_err(SocketError::cut)?),
            Format::MsgPack => RawMessage::binary(bytes),
        })
    }

    /// Writes what was fed.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn flush(&mut self) -> Result<(), SocketError> {
        self.stream.flush().await.map_err(|error| closed(&error))?;
        self.reading.flushed();
        Ok(())
    }

    /// Sends a frame as it is, well-formed or not.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn send_raw(&mut self, message: RawMessage) -> Result<(), SocketError> {
        self.feed_raw(message).await?;
        self.flush().await
    }

    /// Buffers a frame as it is until [`Socket::flush`].
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn feed_raw(&mut self, message: RawMessage) -> Result<(), SocketError> {
        self.stream
            .feed(message)
            .await
            .map_err(|error| closed(&error))
    }

    /// The next event. Safe to cancel: what had arrived is not lost.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn recv(&mut self) -> Result<ServerEvent, SocketError> {
        loop {
            if let Received::Event(event) = self.next().await? {
                return Ok(*event);
            }
        }
    }

    /// The next frame of any kind. Safe to cancel.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn next(&mut self) -> Result<Received, SocketError> {
        let event = match self.recv_raw().await? {
            RawMessage::Text(text) => ServerEvent::decode(Format::Json, text.as_bytes()),
            RawMessage::Binary(bytes) => ServerEvent::decode(Format::MsgPack, &bytes),
            _ => return Ok(Received::Alive),
        };
        match event {
            Ok(event) => Ok(Received::Event(Box::new(event))),
            Err(error) if error.code == ErrorCode::UnknownType => Ok(Received::Alive),
            Err(error) => Err(error.into()),
        }
    }

    /// The next frame as it is; pings are answered by themselves. Safe to cancel.
    ///
    /// # Errors
    /// [`SocketError::Closed`].
    pub async fn recv_raw(&mut self) -> Result<RawMessage, SocketError> {
        if self.farewell.is_none() {
            match poll_fn(|cx| self.poll_raw(cx)).await {
                Some(Ok(RawMessage::Close(frame))) => {
                    let code = frame.as_ref().map_or(1005, |frame| frame.code.into());
                    let reason = frame.map_or_else(String::new, |frame| frame.reason.to_string());
                    self.farewell = Some((code, reason));
                }
                Some(Ok(message)) => return Ok(message),
                Some(Err(error)) => return Err(closed(&error)),
                None => return Err(SocketError::cut("the connection ended")),
            }
        }
        // The answer to the close frame leaves with this poll. A caller may go away meanwhile; the
        // next one must still learn the code.
        let _ = self.stream.next().await;
        let (code, reason) = self.farewell.clone().unwrap_or_default();
        Err(SocketError::Closed { code, reason })
    }

    /// Says good-bye with 1000, and waits up to a second for the server's answer.
    pub async fn close(self) {
        self.close_with(1000, "").await;
    }

    /// As [`Socket::close`], with another code.
    pub async fn close_with(mut self, code: u16, reason: &str) {
        let frame = CloseFrame {
            code: WsCloseCode::from(code),
            reason: reason.into(),
        };
        let farewell = async {
            self.stream.close(Some(frame)).await?;
            while self.stream.next().await.transpose()?.is_some() {}
            Ok::<(), WsError>(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
    }

    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }
}

fn closed(error: &WsError) -> SocketError {
    SocketError::cut(error)
}
