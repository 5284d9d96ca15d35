//! How a server is spoken to: in Rookery's own protocol, or in that of a peer that it is compared
//! with. Whatever differs between them on a socket stands here; the workload is the same for all.

mod socketio;

use std::time::Duration;

use anyhow::{Context, bail};
use rookery_client::socket::RawMessage;
use rookery_client::{ClientCommand, Connect, ServerEvent, Socket};
use rookery_protocol::command::Ping;
use rookery_protocol::{ConversationId, Format};

use tokio::time::timeout;

use crate::source;
use crate::wire::{self, Light, Tag};

/// A server that takes longer to answer is broken: a busy one takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Rookery(Format),
    SocketIo,
}

/// Writes the sends of one side of a conversation.
#[derive(Debug)]
pub(crate) struct Writer {
    dialect: Dialect,
    conversation: ConversationId,
    bytes: usize,
    tag: Tag,
}

impl Writer {
    pub(crate) fn send(&self, counter: u64) -> RawMessage {
        let tag = Tag {
            counter,
            ..self.tag
        };
        match self.dialect {
            Dialect::Rookery(format) => wire::send(format, tag, self.conversation, self.bytes),
            Dialect::SocketIo => socketio::send(tag, self.conversation, self.bytes),
        }
    }
}

impl Dialect {
    /// As a peer's file names it.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        match name {
            "rookery" => Ok(Self::Rookery(Format::Json)),
            "socketio" => Ok(Self::SocketIo),
            _ => bail!("there is no dialect {name:?}: wanted is rookery or socketio"),
        }
    }

    /// In a report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rookery(format) => format.subprotocol(),
            Self::SocketIo => "socket.io",
        }
    }

    /// The connection of this number, authenticated and ready.
    ///
    /// # Errors
    /// It is refused, or takes too long.
    pub(crate) async fn open(
        self,
        url: &str,
        index: usize,
        token: &str,
        resume: bool,
    ) -> anyhow::Result<Socket> {
        let opening = async {
            match self {
                Self::Rookery(format) => {
                    let how = Connect {
                        resume,
                        ..source::connect(url, index, token, format)
                    };
                    source::open(url, &how).await
                }
                Self::SocketIo => socketio::open(url, index, token).await,
            }
        };
        let opened = timeout(PATIENCE, opening).await;
        opened.with_context(|| format!("{url} does not say that it is ready"))?
    }

    /// Asks the server something small, and waits for the answer.
    ///
    /// # Errors
    /// The socket ends, or there is no answer.
    pub(crate) async fn ask(self, socket: &mut Socket) -> anyhow::Result<()> {
        let asking = async {
            match self {
                Self::Rookery(_) => {
                    socket.send(&ClientCommand::Ping(Ping::default())).await?;
                    while !matches!(socket.recv().await?, ServerEvent::Pong(_)) {}
                    Ok(())
                }
                Self::SocketIo => socketio::ask(socket).await,
            }
        };
        timeout(PATIENCE, asking).await.context("no answer")?
    }

    /// What a server wants to hear back at once.
    pub(crate) fn answer(self, frame: &RawMessage) -> Option<RawMessage> {
        match self {
            Self::Rookery(_) => None,
            Self::SocketIo => socketio::pong(frame),
        }
    }

    /// Writes the sends of one side of a conversation.
    pub(crate) fn writer(self, conversation: ConversationId, bytes: usize, tag: Tag) -> Writer {
        Writer {
            dialect: self,
            conversation,
            bytes,
            tag,
        }
    }

    /// Reads a frame; `None` for what is no event.
    pub(crate) fn read(self, frame: &RawMessage) -> Option<Light<'_>> {
        match self {
            Self::Rookery(_) => wire::read(frame),
            Self::SocketIo => socketio::read(frame),
        }
    }

    /// The place of the message that a frame delivers, found without parsing.
    pub(crate) fn delivered(self, frame: &[u8]) -> Option<i64> {
        match self {
            Self::Rookery(_) => seq_of(frame, b"{\"type\":\"message.new\""),
            Self::SocketIo => socketio::delivered(frame),
        }
    }

    /// The place of the message that a frame acknowledges, found without parsing.
    pub(crate) fn acked(self, frame: &[u8]) -> Option<i64> {
        match self {
            Self::Rookery(_) => seq_of(frame, b"{\"type\":\"message.ack\""),
            Self::SocketIo => socketio::acked(frame),
        }
    }
}

/// The first `seq` of a frame that starts like this.
fn seq_of(frame: &[u8], start: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b"\"seq\":";
    let rest = frame.strip_prefix(start)?;
    let at = rest.windows(NAME.len()).position(|part| part == NAME)?;
    let digits = rest[at + NAME.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_message_is_found_without_parsing() {
        let new = br#"{"type":"message.new","message":{"message_id":"a","seq":417,"x":1}}"#;
        let rookery = Dialect::Rookery(Format::Json);
        assert_eq!(rookery.delivered(new), Some(417));
        assert_eq!(rookery.acked(new), None);
        assert_eq!(rookery.delivered(b"{}"), None);
    }

    #[test]
    fn an_unknown_dialect_is_named() {
        assert!(Dialect::named("rookery").is_ok());
        let error = Dialect::named("klingon").unwrap_err().to_string();
        assert!(
            error.contains("klingon") && error.contains("rookery"),
            "{error}"
        );
    }
}
