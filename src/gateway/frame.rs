//! An outbound frame: bytes that many sockets share.

use bytes::Bytes;
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{Format, UserId};
use tokio_tungstenite::tungstenite::{Message as WsMessage, Utf8Bytes};

/// One frame on its way to a socket. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
    Ping,
}

impl Frame {
    /// Encodes an event for one socket's format. `None` cannot happen for the protocol's types;
    /// it is logged and the frame left out.
    #[must_use]
    pub fn encode(format: Format, event: &ServerEvent) -> Option<Self> {
        let bytes = match event.encode(format) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(%error, kind = event.type_name(), "an event cannot be encoded");
                return None;
            }
        };
        match format {
            Format::Json => Utf8Bytes::try_from(bytes).ok().map(Self::Text),
            Format::MsgPack => Some(Self::Binary(bytes)),
        }
    }

    /// Payload bytes, for the outbox's bound.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Ping => 0,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn into_message(self) -> WsMessage {
        match self {
            Self::Text(text) => WsMessage::Text(text),
            Self::Binary(bytes) => WsMessage::Binary(bytes),
            Self::Ping => WsMessage::Ping(Bytes::new()),
        }
    }
}

/// One event for many sockets, encoded at most once for each format. A message's `status` is there
/// for its sender only, so events that carry one are encoded apart for the sender's own devices.
pub struct SharedFrame<F> {
    make: F,
    sender: UserId,
    encoded: [[Option<Frame>; 2]; 2],
}

impl<F: Fn(bool) -> ServerEvent> SharedFrame<F> {
    /// `make(own)` builds the event as its sender (`true`) or somebody else sees it.
    pub fn new(sender: UserId, make: F) -> Self {
        Self {
            make,
            sender,
            encoded: Default::default(),
        }
    }

    /// The frame for a viewer.
    pub fn for_viewer(&mut self, viewer: UserId, format: Format) -> Option<Frame> {
        let own = viewer == self.sender;
        let slot = &mut self.encoded[usize::from(own)][usize::from(format == Format::MsgPack)];
        if slot.is_none() {
            *slot = Frame::encode(format, &(self.make)(own));
        }
        slot.clone()
    }
}
