//! A connection that stays up: any node, any number of interruptions, every message once.
//!
//! One task owns the socket. It reads commands from [`Handle`]s and frames from the server, keeps
//! the cursors (`ledger`) and the unacknowledged sends (`outbox`), and hands out [`Update`]s:
//! `driver` connects and reconnects, `session` is one connection from `ready` to its end.
//!
//! Promises: a message that arrived is handed out once, per conversation in `seq` order; what was
//! sent ends as [`Update::Acked`] or [`Update::Failed`], however often the connection breaks
//! between, or is returned by [`Live::close`].

mod backoff;
mod driver;
mod ledger;
mod outbox;
mod receipts;
mod session;
mod timers;

use std::collections::HashMap;
use std::time::Duration;

use rookery_protocol::command::{ClientCommand, MessageSend};
use rookery_protocol::conversation::{Conversation, Member};
use rookery_protocol::event::{
    ConversationRead, ErrorEvent, MessageAck, Receipt, ResetCursor, ServerEvent,
};
use rookery_protocol::message::Message;
use rookery_protocol::rest::Tokens;
use rookery_protocol::user::User;
use rookery_protocol::{ConversationId, Format, MessageId, Seq, SessionId, Timestamp, UserId};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use driver::Driver;

/// Commands that wait for the task: short, since the outbox behind it is the real queue.
const COMMANDS: usize = 64;

/// What proves who one is. Without a refresh token the connection ends with the access token.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub access_token: String,
    pub refresh_token: Option<String>,
}

impl From<&Tokens> for Credentials {
    fn from(tokens: &Tokens) -> Self {
        Self {
            access_token: tokens.access_token.clone(),
            refresh_token: Some(tokens.refresh_token.clone()),
        }
    }
}

/// Which messages come first.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// Those that no device of this user has confirmed as delivered.
    #[default]
    Undelivered,
    /// Those that are sent from now on.
    Now,
    /// Those after these cursors: for each conversation the highest `seq` handed out as
    /// [`Update::Message`], [`Update::Changed`] (its `cursor`) or [`Update::Reset`]. Memberships
    /// that are not named count from the joining.
    Cursors(HashMap<ConversationId, Seq>),
}

/// How to start a [`Live`].
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// Base URLs (`http://…`) of nodes of one cluster, or of its load balancer.
    pub urls: Vec<String>,
    pub credentials: Credentials,
    pub format: Format,
    pub start: Start,
    /// The epoch that [`Start::Cursors`] belong to, if it was kept: see [`Update::Connected`].
    pub epoch: Option<String>,
    /// The server's time when this device was last connected, if it was kept: what was read on
    /// other devices since is handed out as [`Update::Read`].
    pub since: Option<Timestamp>,
    /// Sends that may wait for their acknowledgement; then [`Handle::send`] waits.
    pub outbox: usize,
    /// Updates that may wait for the application; then the socket is not read.
    pub updates: usize,
}

impl LiveConfig {
    #[must_use]
    pub fn new<U: Into<String>>(
        urls: impl IntoIterator<Item = U>,
        credentials: Credentials,
    ) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            credentials,
            format: Format::Json,
            start: Start::default(),
            epoch: None,
            since: None,
            outbox: 1_024,
            updates: 1_024,
        }
    }
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Conversation(ConversationId),
    /// The direct conversation with this user, made if new.
    User(UserId),
}

/// A message to be sent. Its `message_id` is what makes repeating it harmless.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub message_id: MessageId,
    pub to: To,
    pub content: String,
    pub reply_to: Option<Seq>,
    pub metadata: Option<Map<String, Value>>,
}

impl Outgoing {
    /// Text for a conversation, under a new `message_id`.
    #[must_use]
    pub fn to_conversation(conversation: ConversationId, content: &str) -> Self {
        Self::new(To::Conversation(conversation), content)
    }

    /// Text for a person, under a new `message_id`.
    #[must_use]
    pub fn to_user(user: UserId, content: &str) -> Self {
        Self::new(To::User(user), content)
    }

    fn new(to: To, content: &str) -> Self {
        let message_id = MessageId::from_uuid(uuid::Uuid::now_v7());
        Self {
            message_id,
            to,
            content: content.to_owned(),
            reply_to: None,
            metadata: None,
        }
    }

    fn into_send(self) -> MessageSend {
        let (conversation_id, recipient_id) = match self.to {
            To::Conversation(id) => (Some(id), None),
            To::User(id) => (None, Some(id)),
        };
        MessageSend {
            // Lets every error find its message.
            reference: Some(self.message_id.to_string()),
            message_id: self.message_id,
            content: self.content,
            conversation_id,
            recipient_id,
            reply_to: self.reply_to,
            metadata: self.metadata,
        }
    }
}

/// What happened, in the order in which an application should learn of it.
#[derive(Clone, Debug)]
pub enum Update {
    /// `ready`: what was missed follows, then [`Update::Synced`].
    Connected {
        url: String,
        node_id: String,
        user: User,
        session_id: SessionId,
        epoch: String,
    },
    /// Everything missed has been handed out.
    Synced { messages: i64 },
    /// A message that was not sent through this [`Live`]: once, in `seq` order.
    Message(Box<Message>),
    /// An older message as it is now: it was edited or deleted, or somebody reacted to it. Replace
    /// what is kept of it.
    Changed {
        /// Up to here everything of the conversation has been handed out.
        cursor: Seq,
        message: Box<Message>,
    },
    /// One's own message is stored: place it by its `seq`. Once; no [`Update::Message`] follows.
    Acked(MessageAck),
    /// One's own message was refused for good.
    Failed {
        message_id: MessageId,
        error: ErrorEvent,
    },
    /// A conversation is new, or changed.
    ConversationChanged {
        seq: Seq,
        created: bool,
        conversation: Box<Conversation>,
    },
    /// A member came, or went; if it is oneself, nothing more comes from that conversation.
    MemberChanged {
        conversation_id: ConversationId,
        seq: Seq,
        added: bool,
        member: Member,
    },
    /// Read on another device of one's own: everything up to `seq`. The counts are of entries up to
    /// `last_seq`; what came after it counts on top.
    Read(ConversationRead),
    /// Another member has got (or, with `read`, has read) everything up to `seq`. Handed out only
    /// where it says more than before; what is read is delivered, too.
    Receipt { receipt: Receipt, read: bool },
    /// Too far behind: drop what is kept of this conversation and fetch its history; what comes
    /// after `seq` is handed out here.
    Reset(ResetCursor),
    /// New tokens: keep them, the old refresh token is used up.
    Refreshed(Box<Tokens>),
    /// The node goes away soon; the connection moves by itself.
    Draining { reconnect_after: Duration },
    /// An event that needs no state here: presence, typing and the like.
    Event(Box<ServerEvent>),
    /// The connection ended; the next attempt is under way.
    Disconnected {
        code: u16,
        reason: String,
        retry_in: Duration,
    },
    /// The connection ended for good: refused or revoked credentials, or a rule broken. Last.
    Stopped { code: u16, reason: String },
}

/// The task has ended: stopped, or its [`Live`] was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection was ended for good")]
pub struct Ended;

#[derive(Debug)]
enum Command {
    Send(Outgoing),
    Mark {
        conversation: ConversationId,
        seq: Seq,
        read: bool,
    },
    Other(Box<ClientCommand>),
}

/// Sends through a [`Live`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

impl Handle {
    /// Puts a message into the outbox; waits while that is full. [`Update::Acked`] or
    /// [`Update::Failed`] will name the returned id.
    ///
    /// # Errors
    /// [`Ended`]; the message was not sent.
    pub async fn send(&self, message: Outgoing) -> Result<MessageId, Ended> {
        let message_id = message.message_id;
        self.put(Command::Send(message)).await?;
        Ok(message_id)
    }

    /// Confirms that everything up to `seq` has been delivered.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn delivered(&self, conversation: ConversationId, seq: Seq) -> Result<(), Ended> {
        self.put(Command::Mark {
            conversation,
            seq,
            read: false,
        })
        .await
    }

    /// Says that everything up to `seq` has been read.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn read(&self, conversation: ConversationId, seq: Seq) -> Result<(), Ended> {
        self.put(Command::Mark {
            conversation,
            seq,
            read: true,
        })
        .await
    }

    /// Sends any other command if there is a connection, once; otherwise drops it. For what is
    /// worthless later, such as typing.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn command(&self, command: ClientCommand) -> Result<(), Ended> {
        self.put(Command::Other(Box::new(command))).await
    }

    async fn put(&self, command: Command) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended)
    }
}

/// A connection that stays up. Dropping it ends it.
#[derive(Debug)]
pub struct Live {
    updates: mpsc::Receiver<Update>,
    handle: Handle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<MessageSend>>,
}

/// A [`LiveConfig`] that cannot work.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(&'static str);

impl Live {
    /// Starts connecting; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BadConfig`]: no URL, or a queue without room.
    pub fn start(config: LiveConfig) -> Result<Self, BadConfig> {
        if config.urls.is_empty() {
            return Err(BadConfig("at least one URL is needed"));
        }
        if config.outbox == 0 || config.updates == 0 {
            return Err(BadConfig(
                "the outbox and the queue of updates need room for one",
            ));
        }
        let (commands, command_queue) = mpsc::channel(COMMANDS);
        let (update_queue, updates) = mpsc::channel(config.updates);
        let (stop, stopped) = oneshot::channel();
        let driver = Driver::new(config, command_queue, update_queue);
        let task = tokio::spawn(driver.supervise(stopped));
        Ok(Self {
            updates,
            handle: Handle { commands },
            stop,
            task,
        })
    }

    /// For sending.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The next update; `None` once the connection was ended for good. Safe to cancel.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }

    /// Ends the connection and returns what was never acknowledged: stored or not, it may be sent
    /// again with the same `message_id`.
    pub async fn close(self) -> Vec<MessageSend> {
        drop(self.updates);
        drop(self.stop);
        self.task.await.unwrap_or_default()
    }
}
