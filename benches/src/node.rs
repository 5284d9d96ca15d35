//! A node without its network: the real stages from the bus to the sockets, and from a send to the
//! bus, over a store in SQLite. Everything runs on one thread but SQLite itself.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use rookery::auth::{Auth, AuthOptions};
use rookery::bus::{Bus, Channel, Ingress, MemoryBus, Sink};
use rookery::chat::fanout::Fanout;
use rookery::chat::messages::{Answer, Messages, SendRequest};
use rookery::clock::Clock;
use rookery::delivery::{Delivery, DeliveryParts, Seating, Watchers};
use rookery::gateway::{Registry, Session, Surplus, serve_silent};
use rookery::lifecycle::Tasks;
use rookery::presence::{Directory, MemoryPresence, Roster};
use rookery::store::{self, NewUser, Store, StoreOptions};
use rookery_protocol::command::ClientCommand;
use rookery_protocol::event::{MessageAck, ServerEvent};
use rookery_protocol::message::MessageStatus;
use rookery_protocol::user::UserRole;
use rookery_protocol::{ConversationId, Format, MessageId, UserId};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::sample;
use crate::silent_client::{Arrivals, SilentClient};

/// A user's sockets, more than any sample has.
const SOCKETS_MAX: usize = 2_000;

/// See the module.
pub struct Node {
    pub registry: Arc<Registry>,
    messages: Messages,
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    sink: Sink,
    tasks: Tasks,
    arrivals: Arrivals,
    /// Whoever asks it for a seat must not find it gone.
    _seating: Seating,
    _folder: TempDir,
}

impl Node {
    /// Starts one without users, and the runtime of one thread that it lives in.
    ///
    /// # Errors
    /// There is no room for the store's file.
    pub fn start() -> anyhow::Result<(Runtime, Self)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let node = runtime.block_on(Self::start_here())?;
        Ok((runtime, node))
    }

    async fn start_here() -> anyhow::Result<Self> {
        let folder = TempDir::new().context("no temporary folder")?;
        let options = StoreOptions {
            url: format!("sqlite://{}/rookery.db", folder.path().display()),
            replica_url: None,
            pool_max: 1,
            statement_cache: 100,
            application_name: "benches".to_owned(),
        };
        store::migrate(&options).await?;
        let store = store::connect(&options).await?;
        let (clock, tasks) = (Clock::system(), Tasks::new());
        let registry = Arc::new(Registry::default());
        let parts = delivery_parts(&store, &registry, &clock, &tasks)?;
        let (delivery, seating) = Delivery::start(&parts, 1);
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(delivery.sink()));
        let fanout = Fanout::new(
            &parts.node_id,
            Arc::clone(&store),
            Arc::clone(&bus),
            clock.clone(),
        );
        let messages = Messages::start(Arc::clone(&store), Arc::new(fanout), clock, &tasks);
        Ok(Self {
            registry,
            messages,
            bus,
            store,
            sink: delivery.sink(),
            tasks,
            arrivals: Arrivals::default(),
            _seating: seating,
            _folder: folder,
        })
    }

    /// Connects a user, who hears a conversation from its beginning on.
    pub fn connect(&self, user: UserId, format: Format, id: ConversationId) -> Arc<Session> {
        let session = sample::session(self.registry.next_id(), user, format, id);
        self.registry.join(Arc::clone(&session), SOCKETS_MAX);
        let client = SilentClient::new(self.arrivals.clone());
        let served = Arc::clone(&session);
        self.tasks.spawn("socket", async move {
            serve_silent(client, &served).await;
        });
        session
    }

    /// Makes the accounts of two users and their conversation, and has the bus carry their news.
    ///
    /// # Errors
    /// The store does not take them.
    pub async fn make_direct(&self, users: [UserId; 2]) -> anyhow::Result<ConversationId> {
        for user_id in users {
            let user = NewUser {
                user_id,
                username: format!("user{user_id}"),
                email: format!("{user_id}@example.org"),
                password_hash: "none".to_owned(),
                full_name: None,
                role: UserRole::User,
                created_at: sample::AT,
            };
            let taken = self.store.insert_user(&user).await?.is_err();
            anyhow::ensure!(!taken, "the name of {user_id} is taken");
        }
        let [one, other] = users;
        let made = self.store.ensure_direct(one, other, sample::AT).await?;
        anyhow::ensure!(made.is_some(), "the users cannot write to each other");
        self.bus
            .subscribe(&users.map(Channel::User))
            .await
            .context("the bus is down")?;
        Ok(ConversationId::direct(one, other))
    }

    /// Takes news as if the bus had brought it.
    pub fn hear(&self, channel: &Channel, payload: Bytes) {
        let channel = channel.clone();
        (self.sink)(Ingress::Message { channel, payload });
    }

    /// Carries a client's frame with a message out, as the socket's task does.
    ///
    /// # Errors
    /// The message is refused.
    pub async fn send(&self, session: &Arc<Session>, frame: &[u8]) -> anyhow::Result<()> {
        let command = ClientCommand::decode(session.format, frame)?;
        let ClientCommand::MessageSend(command) = command else {
            anyhow::bail!("not a frame that sends a message");
        };
        let request = SendRequest {
            message_id: command.message_id,
            conversation_id: command.conversation_id,
            recipient_id: command.recipient_id,
            content: command.content,
            reply_to: command.reply_to,
            metadata: command.metadata,
        };
        let answer = answer(Arc::clone(session), command.reference, command.message_id);
        let submitted = self
            .messages
            .submit(session.user_id, request, Some(session.id), answer)
            .await;
        submitted.map_err(|error| anyhow::anyhow!("{}", error.message))
    }

    /// Waits until there were so many writes to sockets since the last call.
    pub async fn written(&self, writes: usize) {
        self.arrivals.wait_for(writes).await;
    }
}

/// The ack, as `message.send` gives it.
fn answer(session: Arc<Session>, reference: Option<String>, message_id: MessageId) -> Answer {
    Box::new(move |outcome| {
        let sent = match outcome {
            Ok(sent) => sent,
            Err(error) => {
                // Its ack is waited for, and will never come.
                eprintln!("a message was refused: {}", error.message);
                std::process::exit(1);
            }
        };
        let ack = ServerEvent::MessageAck(MessageAck {
            reference,
            message_id,
            conversation_id: sent.message.conversation_id,
            seq: sent.message.seq,
            created_at: sent.message.created_at,
            status: sent.message.status.unwrap_or(MessageStatus::Sent),
            duplicate: sent.duplicate,
        });
        session.send(&ack);
    })
}

fn delivery_parts(
    store: &Arc<dyn Store>,
    registry: &Arc<Registry>,
    clock: &Clock,
    tasks: &Tasks,
) -> anyhow::Result<DeliveryParts> {
    let roster = Arc::new(Roster::default());
    let directory = Directory::new(Arc::clone(&roster), Arc::new(MemoryPresence));
    let keys = vec![("benches".to_owned(), vec![7; 32])];
    let auth = Auth::new(
        AuthOptions::new(keys),
        Arc::clone(store),
        clock.clone(),
        tasks,
    )?;
    Ok(DeliveryParts {
        node_id: "node-1".to_owned(),
        store: Arc::clone(store),
        registry: Arc::clone(registry),
        auth: Arc::new(auth),
        roster,
        watchers: Watchers::start(Arc::new(directory), Arc::clone(store), tasks),
        surplus: Surplus::queue().0,
        clock: clock.clone(),
        tasks: tasks.clone(),
    })
}
