//! A device: one socket at a time, everything it received, and expectations of what it should.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rookery_client::socket::ABNORMAL;
use rookery_client::{Connect, ConnectError, Socket, SocketError};
use rookery_protocol::command::{ClientCommand, Mark, MessageSend, Ping, Sync};
use rookery_protocol::event::{ErrorEvent, MessageAck, Ready, ServerEvent, SyncDone};
use rookery_protocol::message::Message;
use rookery_protocol::{ConversationId, Format, MessageId, Seq, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::record::Record;
use super::{Person, To, new_message_id};
use crate::eventually::PATIENCE;
use crate::node::Node;

/// Commands that may wait for the socket; a story sends them one by one.
const OUTGOING: usize = 1_024;

/// How a device connects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    pub format: Format,
    pub resume: bool,
}

/// Why a send was not acknowledged.
#[derive(Clone, Debug)]
pub enum SendFailure {
    Refused(Box<ErrorEvent>),
    /// The socket is gone, with this code: the message may be stored or not.
    Closed(u16),
}

/// Somebody's device. Clones are the same device; the last one dropped cuts its connection.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    person: Person,
    format: Format,
    shared: Arc<Shared>,
    /// To the task of the present connection.
    outgoing: Mutex<mpsc::Sender<Order>>,
}

/// What the device and the task of its connection share.
struct Shared {
    record: Mutex<Record>,
    /// Told after each change of the record.
    changed: watch::Sender<()>,
}

enum Order {
    Send(Box<ClientCommand>),
    Close,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record());
        self.changed.send_replace(());
    }
}

impl Device {
    pub(super) async fn connect(person: &Person, node: &Node, setup: Setup) -> Self {
        let shared = Shared {
            record: Mutex::new(Record::new()),
            changed: watch::Sender::new(()),
        };
        let device = Self(Arc::new(Inner {
            person: person.clone(),
            format: setup.format,
            shared: Arc::new(shared),
            outgoing: Mutex::new(mpsc::channel(1).0),
        }));
        device
            .open(&node.url(), setup.resume)
            .await
            .unwrap_or_else(|error| {
                panic!(
                    "{} cannot connect to {}: {error}",
                    person.name(),
                    node.name()
                )
            });
        device.ready().await;
        device
    }

    async fn open(&self, url: &str, resume: bool) -> Result<(), ConnectError> {
        let inner = &self.0;
        let token = &inner.person.tokens.access_token;
        let how = Connect {
            resume,
            format: inner.format,
            ..Connect::with_token(token)
        };
        let socket = Socket::connect(url, &how).await?;
        let (sender, orders) = mpsc::channel(OUTGOING);
        *inner
            .outgoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = sender;
        let mut connection = 0;
        inner
            .shared
            .change(|record| connection = record.begin(resume));
        tokio::spawn(serve(socket, orders, Arc::clone(&inner.shared), connection));
        Ok(())
    }

    /// Leaves the present connection, if there is one, and comes back on this node with the cursors
    /// of what was received so far. Returns how the sync ended.
    ///
    /// # Panics
    /// The node does not take it, or the sync does not come to its end.
    pub async fn resume_on(&self, node: &Node) -> SyncDone {
        self.try_resume_at(&node.url())
            .await
            .unwrap_or_else(|error| {
                panic!(
                    "{} cannot come back on {}: {error}",
                    self.name(),
                    node.name()
                )
            })
    }

    /// As [`Device::resume_on`], at an address that may be closed.
    ///
    /// # Errors
    /// Nobody takes the connection.
    ///
    /// # Panics
    /// The sync does not come to its end.
    pub async fn try_resume_at(&self, url: &str) -> Result<SyncDone, ConnectError> {
        let cursors = self.read(Record::cursors);
        self.open(url, true).await?;
        self.ready().await;
        Ok(self.sync(Some(cursors)).await)
    }

    /// As [`Device::resume_on`], told what was read on other devices since this time.
    ///
    /// # Panics
    /// As there.
    pub async fn resume_since(&self, node: &Node, since: Timestamp) -> SyncDone {
        let cursors = self.read(Record::cursors);
        self.open(&node.url(), true)
            .await
            .unwrap_or_else(|error| panic!("{} cannot come back: {error}", self.name()));
        self.ready().await;
        self.sync_since(Some(cursors), Some(since)).await
    }

    /// Sends a `sync` and waits for its end.
    ///
    /// # Panics
    /// It does not come to its end.
    pub async fn sync(&self, cursors: Option<HashMap<ConversationId, Seq>>) -> SyncDone {
        self.sync_since(cursors, None).await
    }

    async fn sync_since(
        &self,
        cursors: Option<HashMap<ConversationId, Seq>>,
        since: Option<Timestamp>,
    ) -> SyncDone {
        let reference = Some(new_message_id().to_string());
        self.command(ClientCommand::Sync(Sync {
            reference: reference.clone(),
            cursors,
            since,
        }));
        self.expect("the end of the sync", |event| match event {
            ServerEvent::SyncDone(done) if done.reference == reference => Some(done.clone()),
            _ => None,
        })
        .await
    }

    #[must_use]
    pub fn person(&self) -> &Person {
        &self.0.person
    }

    fn name(&self) -> &str {
        self.0.person.name()
    }

    /// A look at what was received.
    pub fn read<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.0.shared.record())
    }

    /// Queues a command; what becomes of it is seen in the record.
    ///
    /// # Panics
    /// More commands wait than any story needs.
    pub fn command(&self, command: ClientCommand) {
        let me = self.0.person.id();
        self.0.shared.record().say(me, &command);
        let order = Order::Send(Box::new(command));
        let outgoing = self
            .0
            .outgoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Err(mpsc::error::TrySendError::Full(_)) = outgoing.try_send(order) {
            panic!("{} says more than the socket takes", self.name());
        }
    }

    /// Sends text under a new `message_id` and waits for the ack.
    ///
    /// # Panics
    /// It is refused, or not answered.
    pub async fn send(&self, to: impl Into<To>, text: &str) -> MessageAck {
        let sent = self.try_send(new_message_id(), to, text).await;
        sent.unwrap_or_else(|failure| panic!("{} cannot send {text:?}: {failure:?}", self.name()))
    }

    /// Sends text under this `message_id` and waits for the answer.
    ///
    /// # Errors
    /// The server refuses it, or the socket closes.
    ///
    /// # Panics
    /// It is not answered.
    pub async fn try_send(
        &self,
        message_id: MessageId,
        to: impl Into<To>,
        text: &str,
    ) -> Result<MessageAck, SendFailure> {
        let connection = self.read(Record::connection);
        // By its ref: a repeated message_id has answers to earlier attempts in the record.
        let reference = self.post(message_id, to, text);
        self.until(&format!("an answer to {text:?}"), PATIENCE, |record| {
            if record.connection() > connection {
                return Some(Err(SendFailure::Closed(ABNORMAL)));
            }
            let answer = record.events().find_map(|event| match event {
                ServerEvent::MessageAck(ack) if ack.reference.as_ref() == Some(&reference) => {
                    Some(Ok(ack.clone()))
                }
                ServerEvent::Error(error) if error.reference.as_ref() == Some(&reference) => {
                    Some(Err(SendFailure::Refused(Box::new(error.clone()))))
                }
                _ => None,
            });
            answer.or_else(|| {
                record
                    .close_code()
                    .map(|code| Err(SendFailure::Closed(code)))
            })
        })
        .await
    }

    /// Sends text without waiting; returns the `ref` that its answer will carry.
    pub fn post(&self, message_id: MessageId, to: impl Into<To>, text: &str) -> String {
        let (conversation_id, recipient_id) = match to.into() {
            To::Conversation(id) => (Some(id), None),
            To::User(id) => (None, Some(id)),
        };
        let reference = new_message_id().to_string();
        self.command(ClientCommand::MessageSend(MessageSend {
            reference: Some(reference.clone()),
            message_id,
            content: text.to_owned(),
            conversation_id,
            recipient_id,
            reply_to: None,
            metadata: None,
        }));
        reference
    }

    /// Marks everything up to `seq` as delivered.
    pub fn mark_delivered(&self, conversation_id: ConversationId, seq: Seq) {
        let mark = Mark {
            reference: None,
            conversation_id,
            seq,
        };
        self.command(ClientCommand::MessageDelivered(mark));
    }

    /// Marks everything up to `seq` as read.
    pub fn mark_read(&self, conversation_id: ConversationId, seq: Seq) {
        let mark = Mark {
            reference: None,
            conversation_id,
            seq,
        };
        self.command(ClientCommand::MessageRead(mark));
    }

    /// Asks for a sign of life and waits for it: everything queued for this socket before has
    /// arrived then.
    ///
    /// # Panics
    /// There is none.
    pub async fn ping(&self) {
        let reference = Some(new_message_id().to_string());
        self.command(ClientCommand::Ping(Ping {
            reference: reference.clone(),
        }));
        self.expect("a pong", |event| match event {
            ServerEvent::Pong(pong) => (pong.reference == reference).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Waits for the present connection's `ready`.
    ///
    /// # Panics
    /// It does not come.
    pub async fn ready(&self) -> Ready {
        self.expect("ready", |event| match event {
            ServerEvent::Ready(ready) => Some(ready.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until a message of this text has been received, live or replayed, on any connection.
    ///
    /// # Panics
    /// It does not come.
    pub async fn expect_message(&self, text: &str) -> Message {
        self.expect_message_within(text, PATIENCE).await
    }

    /// As [`Device::expect_message`], within a time that is promised.
    ///
    /// # Panics
    /// It does not come within that time.
    pub async fn expect_message_within(&self, text: &str, within: Duration) -> Message {
        self.until(&format!("the message {text:?}"), within, |record| {
            record
                .messages()
                .find(|message| message.content == text)
                .cloned()
        })
        .await
    }

    /// Waits for an event on the present connection, received or to come.
    ///
    /// # Panics
    /// It does not come.
    pub async fn expect<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&ServerEvent) -> Option<T>,
    ) -> T {
        self.until(what, PATIENCE, |record| record.events().find_map(&mut look))
            .await
    }

    /// Waits until the present connection is closed; returns the code.
    ///
    /// # Panics
    /// It stays open.
    pub async fn expect_close(&self) -> u16 {
        self.expect_close_within(PATIENCE).await
    }

    /// As [`Device::expect_close`], within a time that is promised.
    ///
    /// # Panics
    /// It stays open for longer.
    pub async fn expect_close_within(&self, within: Duration) -> u16 {
        self.until("a close", within, Record::close_code).await
    }

    /// Waits until there is a connection, perhaps a new one.
    ///
    /// # Panics
    /// There is none.
    pub async fn expect_open(&self) {
        self.until("a new connection", PATIENCE, |record| {
            record.close_code().is_none().then_some(())
        })
        .await;
    }

    /// Waits until this device knows all entries of a conversation up to `seq`, from `first` on.
    ///
    /// # Panics
    /// Some do not come.
    pub async fn expect_all(&self, id: ConversationId, first: Seq, last: Seq) {
        self.until(
            &format!("the entries {first} to {last} of {id}"),
            PATIENCE,
            |record| {
                let known = record.known(id);
                (first.0..=last.0)
                    .all(|seq| known.contains_key(&Seq(seq)))
                    .then_some(())
            },
        )
        .await;
    }

    /// Whether a message of this text has been received, on any connection.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        self.read(|record| record.messages().any(|message| message.content == text))
    }

    /// Checks that nothing of a conversation came twice or out of order on any connection.
    ///
    /// # Panics
    /// Something did.
    pub fn seen_once_in_order(&self, id: ConversationId) {
        self.read(|record| {
            if let Err(wrong) = record.check_order(id) {
                panic!(
                    "{} saw {id} wrongly: {wrong}; it received\n{record}",
                    self.name()
                );
            }
        });
    }

    /// Waits until `look` finds what it looks for.
    ///
    /// # Panics
    /// With `what` and all that was received, when it does not within this time.
    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Record) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        let mut changed = self.0.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(found) = self.read(&mut look) {
                return found;
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                self.read(|record| {
                    panic!("{} did not get {what}; it received\n{record}", self.name())
                });
            }
        }
    }

    /// Says good-bye and waits until the connection is closed.
    pub async fn close(&self) {
        let outgoing = self
            .0
            .outgoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if outgoing.send(Order::Close).await.is_ok() {
            self.expect_close().await;
        }
    }

    /// Cuts the connection without a word.
    pub async fn cut(&self) {
        *self
            .0
            .outgoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = mpsc::channel(1).0;
        self.expect_close().await;
    }
}

/// Runs one connection to its end.
async fn serve(
    mut socket: Socket,
    mut orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    connection: usize,
) {
    let (code, reason) = loop {
        tokio::select! {
            event = socket.recv() => match event {
                Ok(event) => shared.change(|record| record.note(connection, event)),
                Err(SocketError::Closed { code, reason }) => break (code, reason),
                Err(error) => break (ABNORMAL, error.to_string()),
            },
            order = orders.recv() => match order {
                // If the socket is closed, receiving tells the code.
                Some(Order::Send(command)) => drop(socket.send(&command).await),
                Some(Order::Close) => {
                    socket.close().await;
                    break (1000, "closed by the test".to_owned());
                }
                None => {
                    drop(socket);
                    break (ABNORMAL, "cut by the test".to_owned());
                }
            },
        }
    };
    shared.change(|record| record.end(connection, code, reason));
}
