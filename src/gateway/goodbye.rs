//! How a socket ends: which code is said, and how it arrives.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rookery_protocol::CloseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCloseCode;

use super::link::Socket;
use crate::metrics;

/// How long the other side may take to answer a close. Hanging up before that resets the connection
/// if it still sends, and the reset overtakes the close: the client would not learn why. A busy
/// client, or one behind a slow link, needs seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for one that does not read, or is gone.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// What is counted as a close without a close frame (RFC 6455, 7.1.5).
const CUT_OFF: u16 = 1006;

/// How a socket ended.
#[derive(Debug)]
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
            WsError::WriteBufferFull(_) => Self::Close(CloseCode::TooSlow),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Peer(None),
            WsError::Protocol(_) => Self::Close(CloseCode::ProtocolError),
            _ => Self::Peer(None),
        }
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Close(CloseCode::TooSlow) | Self::Peer(_) => IMPATIENCE,
            Self::Close(_) => PATIENCE,
        }
    }
}

/// Says goodbye and waits a moment for the answer, so that the last frames arrive. Returns the code
/// that was sent or received.
pub(super) async fn finish(socket: Socket, ended: Ended) -> u16 {
    let code = match ended {
        Ended::Close(code) => code.code(),
        Ended::Peer(code) => code.unwrap_or(CUT_OFF),
    };
    let said = tokio::time::timeout(ended.patience(), goodbye(socket, ended));
    // Whoever does not listen to the end is gone all the same.
    said.await.ok();
    metrics::closes_total(label_of(code)).increment(1);
    code
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
