//! The people of a test's story.

mod changes;
mod device;
mod presence;
mod record;

use std::ops::Deref;
use std::time::Duration;

use rookery_client::{Api, ApiError};
use rookery_protocol::rest::{CreateConversation, Login, Tokens};
use rookery_protocol::user::User;
use rookery_protocol::{ConversationId, Format, MessageId, UserId};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub use device::{Device, SendFailure, Setup};
pub use record::{Record, change_of};

use crate::eventually::PATIENCE;
use crate::node::Node;

/// Everybody's.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// Somebody with an account, logged in. Clones share the log-in.
#[derive(Clone, Debug)]
pub struct Person {
    pub user: User,
    pub tokens: Tokens,
    api: Api,
}

/// The REST interface as this person, through the front of the cluster.
impl Deref for Person {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub enum To {
    Conversation(ConversationId),
    /// The direct conversation with somebody, made if new.
    User(UserId),
}

impl From<ConversationId> for To {
    fn from(id: ConversationId) -> Self {
        Self::Conversation(id)
    }
}

impl From<&ConversationId> for To {
    fn from(id: &ConversationId) -> Self {
        Self::Conversation(*id)
    }
}

impl From<&Person> for To {
    fn from(person: &Person) -> Self {
        Self::User(person.id())
    }
}

/// The id of a message that was never sent before.
#[must_use]
pub fn new_message_id() -> MessageId {
    MessageId::from_uuid(Uuid::now_v7())
}

/// Repeats a call until it is not refused for a while only: nodes give way to their sockets when
/// passwords are hashed on a busy machine.
///
/// # Errors
/// It is refused for good, or too long.
pub async fn patiently<T>(
    mut call: impl AsyncFnMut() -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                sleep(
                    error
                        .retry_after
                        .unwrap_or_default()
                        .min(Duration::from_millis(200)),
                )
                .await;
            }
            outcome => return outcome,
        }
    }
}

impl Person {
    pub(crate) fn new(nobody: &Api, tokens: Tokens) -> Self {
        let api = nobody.with_token(&tokens.access_token);
        Self {
            user: tokens.user.clone(),
            tokens,
            api,
        }
    }

    #[must_use]
    pub fn id(&self) -> UserId {
        self.user.user_id
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.user.username
    }

    /// The direct conversation with somebody, whether it exists yet or not.
    #[must_use]
    pub fn direct(&self, other: &Person) -> ConversationId {
        ConversationId::direct(self.id(), other.id())
    }

    /// The REST interface of one node, as this person.
    #[must_use]
    pub fn at(&self, node: &Node) -> Api {
        self.api.at(&node.url())
    }

    /// The same person, logged in once more: a session of its own.
    ///
    /// # Panics
    /// The server refuses.
    pub async fn log_in_again(&self) -> Self {
        self.log_in_by(&self.api).await
    }

    /// The same, on one node, whose clock is the token's.
    ///
    /// # Panics
    /// The server refuses.
    pub async fn log_in_at(&self, node: &Node) -> Self {
        self.log_in_by(&self.at(node)).await
    }

    async fn log_in_by(&self, api: &Api) -> Self {
        let login = Login {
            login: self.name().into(),
            password: PASSWORD.into(),
            device_name: None,
        };
        let tokens = patiently(async || api.login(&login).await).await;
        let tokens = tokens.unwrap_or_else(|error| panic!("no log-in: {error}"));
        Self::new(api, tokens)
    }

    /// A new group of this person and others.
    ///
    /// # Panics
    /// The server refuses.
    pub async fn group(&self, title: &str, others: &[&Person]) -> ConversationId {
        let members: Vec<UserId> = others.iter().map(|other| other.id()).collect();
        let made = self.api.create_group(title, &members).await;
        made.unwrap_or_else(|error| panic!("no group {title}: {error}"))
            .conversation_id
    }

    /// A new group whose history is hidden from those who join later.
    ///
    /// # Panics
    /// The server refuses.
    pub async fn secretive_group(&self, title: &str, others: &[&Person]) -> ConversationId {
        let group = CreateConversation::Group {
            conversation_id: None,
            title: Some(title.to_owned()),
            description: None,
            history_visible: Some(false),
            member_ids: others.iter().map(|other| other.id()).collect(),
        };
        let made = self.api.create(&group).await;
        made.unwrap_or_else(|error| panic!("no group {title}: {error}"))
            .data
            .conversation_id
    }

    /// A new socket on this node, in JSON, live from now on.
    ///
    /// # Panics
    /// It does not open.
    pub async fn connect(&self, node: &Node) -> Device {
        Device::connect(self, node, Setup::default()).await
    }

    /// A new socket on this node in another format.
    ///
    /// # Panics
    /// It does not open.
    pub async fn connect_in(&self, format: Format, node: &Node) -> Device {
        Device::connect(
            self,
            node,
            Setup {
                format,
                ..Setup::default()
            },
        )
        .await
    }

    /// A new socket that will not hear of conversations before it has sent a `sync`.
    ///
    /// # Panics
    /// It does not open.
    pub async fn connect_resuming(&self, node: &Node) -> Device {
        Device::connect(
            self,
            node,
            Setup {
                resume: true,
                ..Setup::default()
            },
        )
        .await
    }
}
