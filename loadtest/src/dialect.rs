//! How a server is spoken to: in Rookery's own protocol, or in that of a peer that it is compared
//! with. Whatever differs between them on a socket stands here; the workload is the same for all.

mod packed;
mod socketio;
mod xmpp;

use std::time::Duration;

use anyhow::{Context, bail};
use rookery_client::socket::RawMessage;
use rookery_client::{ClientCommand, Connect, ServerEvent, Socket};
use rookery_protocol::command::Ping;
use rookery_protocol::{ConversationId, Format};

use tokio::time::timeout;

use crate::population::Person;
use crate::source;
use crate::wire::{self, Light, Tag};
pub(crate) use xmpp::place;

/// A server that takes longer to answer is broken: a busy one takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Rookery(Format),
    SocketIo,
    Xmpp,
}

/// Writes the sends of one side of a conversation.
#[derive(Debug)]
pub(crate) struct Writer {
    dialect: Dialect,
    conversation: ConversationId,
    is_group: bool,
    bytes: usize,
    tag: Tag,
}

impl Writer {
    /// For a group, which not every server treats as it treats two.
    pub(crate) fn for_group(self) -> Self {
        Self {
            is_group: true,
            ..self
        }
    }

    pub(crate) fn send(&self, counter: u64) -> RawMessage {
        let tag = Tag {
            counter,
            ..self.tag
        };
        match self.dialect {
            Dialect::Rookery(format) => wire::send(format, tag, self.conversation, self.bytes),
            Dialect::SocketIo => socketio::send(tag, self.conversation, self.bytes),
            Dialect::Xmpp => xmpp::send(tag, self.conversation, self.is_group, self.bytes),
        }
    }

    /// What has to follow a send, for an acknowledgement.
    pub(crate) fn request(&self) -> Option<RawMessage> {
        match self.dialect {
            Dialect::Rookery(_) | Dialect::SocketIo => None,
            Dialect::Xmpp => Some(xmpp::request()),
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
            "xmpp" => Ok(Self::Xmpp),
            _ => bail!("there is no dialect {name:?}: wanted is rookery, socketio or xmpp"),
        }
    }

    /// In a report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rookery(format) => format.subprotocol(),
            Self::SocketIo => "socket.io",
            Self::Xmpp => "XMPP",
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
        person: &Person,
        resume: bool,
    ) -> anyhow::Result<Socket> {
        let opening = async {
            match self {
                Self::Rookery(format) => {
                    let how = Connect {
                        resume,
                        ..source::connect(url, index, &person.token, format)
                    };
                    source::open(url, &how).await
                }
                Self::SocketIo => socketio::open(url, index, &person.token).await,
                Self::Xmpp => xmpp::open(url, index, person).await,
            }
        };
        let opened = timeout(PATIENCE, opening).await;
        opened.with_context(|| format!("{url} does not say that it is ready"))?
    }

    /// Prepares a socket that is to send messages.
    ///
    /// # Errors
    /// The socket ends, or there is no answer.
    pub(crate) async fn before_sending(self, socket: &mut Socket) -> anyhow::Result<()> {
        match self {
            Self::Rookery(_) | Self::SocketIo => Ok(()),
            Self::Xmpp => timeout(PATIENCE, xmpp::before_sending(socket))
                .await
                .context("no answer")?,
        }
    }

    /// Takes part in a group, where being a member is not enough.
    ///
    /// # Errors
    /// The socket ends, or there is no answer.
    pub(crate) async fn join(
        self,
        socket: &mut Socket,
        group: ConversationId,
        person: &Person,
    ) -> anyhow::Result<()> {
        match self {
            Self::Rookery(_) | Self::SocketIo => Ok(()),
            Self::Xmpp => timeout(PATIENCE, xmpp::join(socket, group, person))
                .await
                .context("no answer")?,
        }
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
                Self::Xmpp => xmpp::ask(socket).await,
            }
        };
        timeout(PATIENCE, asking).await.context("no answer")?
    }

    /// What a server wants to hear back at once.
    pub(crate) fn answer(self, frame: &RawMessage) -> Option<RawMessage> {
        match self {
            Self::Rookery(_) | Self::Xmpp => None,
            Self::SocketIo => socketio::pong(frame),
        }
    }

    /// Writes the sends of one side of a conversation.
    pub(crate) fn writer(self, conversation: ConversationId, bytes: usize, tag: Tag) -> Writer {
        Writer {
            dialect: self,
            conversation,
            is_group: false,
            bytes,
            tag,
        }
    }

    /// Reads a frame; `None` for what is no event.
    pub(crate) fn read(self, frame: &RawMessage) -> Option<Light<'_>> {
        match self {
            Self::Rookery(_) => wire::read(frame),
            Self::SocketIo => socketio::read(frame),
            Self::Xmpp => xmpp::read(frame),
        }
    }

    /// The place of the message that a frame delivers, found without parsing.
    pub(crate) fn delivered(self, frame: &[u8]) -> Option<i64> {
        match self {
            Self::Rookery(Format::Json) => seq_of(frame, b"{\"type\":\"message.new\""),
            Self::Rookery(Format::MsgPack) => packed::seq_of(frame, "message.new"),
            Self::SocketIo => socketio::delivered(frame),
            Self::Xmpp => xmpp::delivered(frame),
        }
    }

    /// The place of the message that a frame acknowledges, found without parsing.
    pub(crate) fn acked(self, frame: &[u8]) -> Option<i64> {
        match self {
            Self::Rookery(Format::Json) => seq_of(frame, b"{\"type\":\"message.ack\""),
            Self::Rookery(Format::MsgPack) => packed::seq_of(frame, "message.ack"),
            Self::SocketIo => socketio::acked(frame),
            Self::Xmpp => xmpp::delivered(frame),
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
