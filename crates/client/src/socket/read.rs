//! Reading no more often than there is something to read: tungstenite clears its buffer before each read,
//! also before one in vain.

use std::task::{Context, Poll};

use futures_util::StreamExt;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Error as WsError;

use super::{RawMessage, Socket};

/// What tungstenite may still have to do.
#[derive(Debug, Default)]
pub(super) struct State {
    /// It has handed on all that came: there is nothing to read until the connection says so.
    drained: bool,
    /// A ping came and nothing was flushed since: its pong may still have to be written.
    owes_pong: bool,
}

impl State {
    pub(super) const fn flushed(&mut self) {
        self.owes_pong = false;
    }
}

impl Socket {
    /// Asks the connection before tungstenite, where no layer of TLS may hold something back.
    pub(super) fn poll_raw(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<RawMessage, WsError>>> {
        if self.reading.drained
            && let MaybeTlsStream::Plain(tcp) = self.stream.get_ref()
            && tcp.poll_read_ready(cx).is_pending()
        {
            return Poll::Pending;
        }
        let read = self.stream.poll_next_unpin(cx);
        if let Poll::Ready(Some(Ok(RawMessage::Ping(_)))) = &read {
            self.reading.owes_pong = true;
        }
        self.reading.drained = read.is_pending() && !self.reading.owes_pong;
        read
    }
}
