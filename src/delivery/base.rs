//! Where a socket that just connected begins: the ends of all its conversations, read from the
//! primary after its channel was confirmed. Sockets that connect together share the statements.

use std::sync::Arc;

use rookery_protocol::{ConversationId, Seq, UserId};
use tokio::sync::{mpsc, oneshot};

use crate::lifecycle::Tasks;
use crate::store::{FanoutMode, Result, Store, StoreError, UserRow};

/// Connecting sockets that may wait.
const QUEUE: usize = 4_096;
/// Users looked up by one statement.
const BATCH_MAX: usize = 256;

/// What a socket begins with.
#[derive(Clone, Debug)]
pub struct Base {
    pub user: UserRow,
    /// The ends of the user's conversations.
    pub ends: Vec<(ConversationId, Seq)>,
    /// Those of them whose members are told on the conversation's own channel.
    pub rooms: Vec<ConversationId>,
}

type Answer = oneshot::Sender<Result<Option<Base>>>;

/// The entrance to the loading task. Cloning shares it.
#[derive(Clone)]
pub struct BaseLoader {
    requests: mpsc::Sender<(UserId, Answer)>,
}

impl BaseLoader {
    #[must_use]
    pub fn start(store: Arc<dyn Store>, tasks: &Tasks) -> Self {
        let (requests, waiting) = mpsc::channel(QUEUE);
        let stop = tasks.clone();
        tasks.spawn_vital("base-loader", async move {
            tokio::select! {
                () = run(store, waiting) => {}
                () = stop.stopping().cancelled() => {}
            }
        });
        Self { requests }
    }

    /// The base of a user; `None` if there is no such account (any more).
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load(&self, user: UserId) -> Result<Option<Base>> {
        let (answer, answered) = oneshot::channel();
        let stopping = || StoreError::Unavailable("the node is stopping".into());
        self.requests
            .send((user, answer))
            .await
            .map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}

async fn run(store: Arc<dyn Store>, mut waiting: mpsc::Receiver<(UserId, Answer)>) {
    let mut batch = Vec::with_capacity(16);
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut users: Vec<UserId> = batch.iter().map(|(user, _)| *user).collect();
        users.sort_unstable();
        users.dedup();
        let loaded = load(store.as_ref(), &users).await;
        for (user, answer) in batch.drain(..) {
            let result = match &loaded {
                Ok(bases) => Ok(bases.iter().find(|base| base.user.user_id == user).cloned()),
                Err(error) => Err(StoreError::Unavailable(error.to_string())),
            };
            // The socket may be gone by now.
            answer.send(result).ok();
        }
    }
}

async fn load(store: &dyn Store, users: &[UserId]) -> Result<Vec<Base>> {
    let rows = store.users(users).await?;
    let ends = store.ends_of(users).await?;
    let mut bases: Vec<Base> = rows
        .into_iter()
        .map(|user| Base {
            user,
            ends: Vec::new(),
            rooms: Vec::new(),
        })
        .collect();
    bases.sort_unstable_by_key(|base| base.user.user_id);
    for end in ends {
        let found = bases.binary_search_by_key(&end.user_id, |base| base.user.user_id);
        if let Ok(at) = found {
            let id = end.conversation_id;
            bases[at].ends.push((id, end.last_seq));
            if end.fanout == FanoutMode::Channel {
                bases[at].rooms.push(id);
            }
        }
    }
    Ok(bases)
}
