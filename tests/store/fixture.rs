//! A migrated database with a store on it, and people who use it.

use std::sync::Arc;
use std::time::Duration;

use rookery::clock::new_id;
use rookery::store::{
    self, GroupAction, GroupChange, GroupChanged, GroupState, JournalPage, JournalPosition,
    LogEntry, MemberList, NewGroup, NewMessage, NewUser, Outcome, Refusal, Store, StoreOptions,
    Stored, Wait,
};
use rookery_protocol::message::{Message, SystemNotice};
use rookery_protocol::user::UserRole;
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;

use rookery_test_support::servers::Postgres;

/// When everything happens, unless a test says otherwise.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// How long a look into the journal may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(10);

/// Emits each test twice: `name::postgres` and `name::sqlite`.
macro_rules! contract {
    ($($(#[$doc:meta])* async fn $name:ident($fixture:ident: Fixture) $body:block)+) => {$(
        $(#[$doc])*
        async fn $name($fixture: crate::fixture::Fixture) $body

        mod $name {
            use crate::fixture::Fixture;

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn postgres() {
                super::$name(Fixture::postgres().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn sqlite() {
                super::$name(Fixture::sqlite().await).await;
            }
        }
    )+};
}
pub(crate) use contract;

pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: StoreOptions,
    _folder: Option<TempDir>,
}

pub(crate) fn options(url: String) -> StoreOptions {
    StoreOptions {
        url,
        replica_url: None,
        pool_max: 5,
        statement_cache: 100,
        application_name: "rookery-test".to_owned(),
    }
}

impl Fixture {
    pub(crate) async fn postgres() -> Self {
        Self::open(
            options(Postgres::shared().await.fresh_database().await),
            None,
        )
        .await
    }

    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("rookery.db").display());
        Self::open(options(url), Some(folder)).await
    }

    pub(crate) async fn open(options: StoreOptions, folder: Option<TempDir>) -> Self {
        store::migrate(&options).await.unwrap();
        let store = store::connect(&options).await.unwrap();
        Self {
            store,
            options,
            _folder: folder,
        }
    }

    /// The same database as another node sees it: through pools of its own.
    pub(crate) async fn another_node(&self) -> Arc<dyn Store> {
        store::connect(&self.options).await.unwrap()
    }

    /// Does what no method of the port does.
    pub(crate) async fn sql(&self, statement: &str) {
        if self.options.is_postgres() {
            self.postgres_connection()
                .await
                .execute(AssertSqlSafe(statement))
                .await
                .unwrap();
        } else {
            self.sqlite_connection()
                .await
                .execute(AssertSqlSafe(statement))
                .await
                .unwrap();
        }
    }

    /// The one number that a statement answers with.
    pub(crate) async fn number(&self, statement: &str) -> i64 {
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement));
        if self.options.is_postgres() {
            query
                .fetch_one(&mut self.postgres_connection().await)
                .await
                .unwrap()
        } else {
            let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement));
            query
                .fetch_one(&mut self.sqlite_connection().await)
                .await
                .unwrap()
        }
    }

    pub(crate) async fn postgres_connection(&self) -> PgConnection {
        PgConnection::connect(&self.options.url).await.unwrap()
    }

    pub(crate) async fn sqlite_connection(&self) -> SqliteConnection {
        let options: sqlx::sqlite::SqliteConnectOptions = self.options.url.parse().unwrap();
        options
            .busy_timeout(Duration::from_secs(5))
            .connect()
            .await
            .unwrap()
    }

    pub(crate) async fn user(&self, name: &str) -> UserId {
        let user = new_user(name);
        self.store.insert_user(&user).await.unwrap().unwrap();
        user.user_id
    }

    pub(crate) async fn direct(&self, one: UserId, other: UserId) -> ConversationId {
        let made = self.store.ensure_direct(one, other, NOW).await.unwrap();
        made.expect("both have accounts").conversation_id
    }

    pub(crate) async fn group(&self, owner: UserId, members: &[UserId]) -> ConversationId {
        let group = new_group(owner, members);
        self.store.create_group(&group, NOW).await.unwrap().unwrap();
        group.conversation_id
    }

    pub(crate) async fn change(
        &self,
        conversation_id: ConversationId,
        actor: UserId,
        action: GroupAction,
    ) -> Result<Option<GroupChanged>, Refusal> {
        let message_id = MessageId::from_uuid(new_id());
        let change = GroupChange {
            conversation_id,
            actor,
            message_id,
            action,
            direct_max: 16,
        };
        self.store
            .change_group(&change, members_may, NOW)
            .await
            .unwrap()
    }

    /// Stores one message; its place.
    pub(crate) async fn send(
        &self,
        conversation_id: ConversationId,
        sender: UserId,
        content: &str,
    ) -> Stored {
        stored(
            &self
                .append(&[message(conversation_id, sender, content)])
                .await[0],
        )
    }

    pub(crate) async fn append(&self, batch: &[NewMessage]) -> Vec<Outcome> {
        self.store.append(batch, Wait::Yes, NOW).await.unwrap()
    }

    /// What the journal tells from `from` on.
    pub(crate) async fn journal(&self, from: &JournalPosition) -> JournalPage {
        self.store.journal(Some(from), WITHIN).await.unwrap()
    }

    /// Where the journal is.
    pub(crate) async fn journal_position(&self) -> JournalPosition {
        self.store.journal(None, WITHIN).await.unwrap().next
    }

    pub(crate) async fn log(&self, conversation_id: ConversationId) -> Vec<Message> {
        self.store
            .entries(conversation_id, Seq(0), Seq(i64::MAX), 100_000)
            .await
            .unwrap()
            .into_iter()
            .filter_map(LogEntry::into_message)
            .collect()
    }

    pub(crate) async fn member_list(&self, conversation_id: ConversationId) -> MemberList {
        let mut lists = self.store.member_lists(&[conversation_id]).await.unwrap();
        assert_eq!(lists.len(), 1);
        lists.remove(0)
    }
}

pub(crate) fn new_user(name: &str) -> NewUser {
    NewUser {
        user_id: UserId::from_uuid(new_id()),
        username: name.to_owned(),
        email: format!("{name}@example.org"),
        password_hash: format!("hash of {name}"),
        full_name: None,
        role: UserRole::User,
        created_at: NOW,
    }
}

pub(crate) fn new_group(owner: UserId, members: &[UserId]) -> NewGroup {
    NewGroup {
        conversation_id: ConversationId::from_uuid(new_id()),
        message_id: MessageId::from_uuid(new_id()),
        creator: owner,
        title: Some("Rooks".to_owned()),
        description: None,
        history_visible: false,
        member_ids: members.to_vec(),
        notice_text: "made the group".to_owned(),
        direct_max: 16,
    }
}

pub(crate) fn message(
    conversation_id: ConversationId,
    sender_id: UserId,
    content: &str,
) -> NewMessage {
    NewMessage {
        conversation_id,
        message_id: MessageId::from_uuid(new_id()),
        sender_id,
        content: content.to_owned(),
        metadata: None,
        reply_to: None,
        mentions: vec![],
        request_hash: [7; 16],
    }
}

pub(crate) fn stored(outcome: &Outcome) -> Stored {
    match outcome {
        Outcome::Stored(stored) => *stored,
        other => panic!("not stored: {other:?}"),
    }
}

pub(crate) fn refusal(outcome: &Outcome) -> &Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn seqs(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| message.seq.0).collect()
}

/// A rule by which every present member may do everything; adding adds whom it can.
pub(crate) fn members_may(
    state: &GroupState,
    change: &GroupChange,
) -> Result<Option<(SystemNotice, String)>, Refusal> {
    if state.actor.is_none() {
        return Err(Refusal::NotFound);
    }
    let notice = match &change.action {
        GroupAction::Update { title, description } => SystemNotice::GroupUpdated {
            title: title.clone().unwrap_or_else(|| state.title.clone()),
            description: description
                .clone()
                .unwrap_or_else(|| state.description.clone()),
        },
        GroupAction::AddMembers { .. } if state.strangers.is_empty() => return Ok(None),
        GroupAction::AddMembers { .. } => SystemNotice::MembersAdded {
            user_ids: state
                .strangers
                .iter()
                .map(|(user_id, _)| *user_id)
                .collect(),
        },
        GroupAction::RemoveMember { .. } | GroupAction::ChangeRole { .. }
            if state.named.is_empty() =>
        {
            return Err(Refusal::NotFound);
        }
        GroupAction::RemoveMember { user_id } if *user_id == change.actor => {
            SystemNotice::MemberLeft { user_id: *user_id }
        }
        GroupAction::RemoveMember { user_id } => SystemNotice::MemberRemoved { user_id: *user_id },
        GroupAction::ChangeRole { user_id, role } => SystemNotice::RoleChanged {
            user_id: *user_id,
            role: *role,
        },
        GroupAction::Delete => SystemNotice::GroupDeleted,
    };
    Ok(Some((notice, "changed the group".to_owned())))
}
