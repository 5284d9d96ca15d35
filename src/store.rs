//! Stage 4: the truth. Accounts, conversations and their logs, in PostgreSQL or SQLite.
//!
//! In: decided commands from `chat`. Out: what was stored, and pages of what is stored. A store
//! never decides who may do what, except through the rule it is handed ([`GroupRule`]) or where a
//! promise needs the answer behind a lock (membership of a sender).
//!
//! A recipe for a new method: add it to the trait of its noun; write its SQL once if both dialects
//! understand it, else mark the difference with `// dialect:`; call it from the contract suite
//! (`tests/store.rs`), which runs every method against both databases. The rules:
//!
//! 1. Look-ups return `Option`; "not found" is not an error here.
//! 2. Time comes in as a parameter; the store has no clock. Only the journal is aged by the
//!    database's own: nodes may disagree about the time, and all of them remove its rows.
//! 3. A row this version cannot represent is [`StoreError::Corrupt`], by table, column and row.
//! 4. Every transaction runs in a task of its own: dropping the future of a method never leaves a
//!    transaction half-way (sqlx's `begin` is not cancel-safe).
//! 5. Reads that positions, sync or authorisation depend on use the primary; only history may use
//!    a replica.

mod changes;
mod group_commit;
mod marks;
mod migrate;
mod models;
mod postgres;
mod single_node;
mod sql;
mod sqlite;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rookery_protocol::conversation::{Conversation, Member};
use rookery_protocol::message::Message;
use rookery_protocol::rest::MessageReceipt;
use rookery_protocol::user::ChosenStatus;
use rookery_protocol::{ConversationId, Seq, SessionId, Timestamp, UserId};

pub use changes::{
    ChangeEntry, MessageAction, MessageActor, MessageChange, MessageChanged, MessageRule,
    MessageState,
};
pub use group_commit::{CommitError, Committed, GroupCommit, Ticket};
pub use marks::*;
pub use migrate::{migrate, pending};
pub use models::*;
pub use postgres::PostgresStore;
pub use single_node::SingleNode;
pub use sqlite::{BackupError, SqliteStore, back_up, path_in as sqlite_file};

/// Why the store could not answer. None of its texts reach a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, overloaded or restarting: the same call may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Rolled back because another transaction was in the way. The store repeats it where that can
    /// happen; elsewhere it is as good as the one above.
    #[error("another transaction was in the way: {0}")]
    Collided(&'static str),
    /// The user that nodes connect as lacks a right.
    #[error(
        "the user of DATABASE_URL lacks a right: {0}; run `rookery migrate` as the owner of the \
         schema, and grant nodes select, insert, update and delete on all of its tables, and execute \
         on its functions"
    )]
    Denied(String),
    /// A statement failed for a reason that repeating cannot mend.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] sqlx::Error),
    /// A stored row that this version cannot represent.
    #[error("{table}.{column} of row {row} cannot be read")]
    Corrupt {
        table: &'static str,
        column: &'static str,
        row: String,
    },
    /// Migrations cannot be applied, or the schema is of another release.
    #[error("{0}")]
    Schema(String),
    /// It belongs to one node at a time, and another one has it.
    #[error(
        "another node uses this database; set REDIS_URL for all nodes of a cluster, with a \
         postgres:// DATABASE_URL, or stop the other node"
    )]
    InUse,
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// Accounts.
#[async_trait]
pub trait UserStore {
    /// Adds an account, unless its username or e-mail is taken (without regard to case).
    async fn insert_user(&self, user: &NewUser) -> Result<std::result::Result<UserRow, Taken>>;
    async fn user(&self, id: UserId) -> Result<Option<UserRow>>;
    /// Those of `ids` that exist and are not deleted, in no particular order.
    async fn users(&self, ids: &[UserId]) -> Result<Vec<UserRow>>;
    /// The account with this username or e-mail, for a log-in. Deleted accounts are not found.
    async fn credentials(&self, login: &str) -> Result<Option<Credentials>>;
    /// Accounts whose username or full name contains `query` (all when empty; `%` and `_` are
    /// plain characters), by username, after `after`.
    async fn search_users(
        &self,
        query: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<UserRow>>;
    async fn update_profile(&self, id: UserId, change: &ProfileChange) -> Result<Option<UserRow>>;
    /// Replaces the hash of a password, e.g. with one of stronger parameters.
    async fn set_password_hash(&self, id: UserId, password_hash: &str) -> Result<()>;
}

/// Sessions: families of refresh tokens, one a log-in.
#[async_trait]
pub trait SessionStore {
    /// Begins a session, and notes at its user when the last log-in was: in one commit.
    async fn open_session(&self, session: &NewSession) -> Result<()>;
    /// Exchanges a refresh token for its successor, see [`Rotation`] for the outcomes. Atomic
    /// across nodes. Ending a family writes a `Revoked` journal row in the same transaction.
    async fn rotate_session(&self, request: &RotateSession) -> Result<Rotation>;
    /// Sessions of a user that are neither revoked nor expired, the newest first.
    async fn sessions_of(&self, user: UserId, now: Timestamp) -> Result<Vec<SessionRow>>;
    /// Ends one session of this user; false when there was none to end. Writes the journal.
    async fn revoke_session(&self, user: UserId, id: SessionId, at: Timestamp) -> Result<bool>;
    /// Ends all sessions of this user; returns those ended. Writes the journal.
    async fn revoke_sessions_of(&self, user: UserId, at: Timestamp) -> Result<Vec<SessionId>>;
    /// Sessions revoked since `since`: what a starting node must know to refuse their tokens.
    async fn revoked_since(&self, since: Timestamp) -> Result<Vec<SessionId>>;
}

/// Conversations and memberships.
#[async_trait]
pub trait ConversationStore {
    /// Makes the direct conversation of two different users unless it exists. `None`: one of the
    /// two has no account, or `other` blocks `creator`, which must look the same. Making it writes a
    /// `Members` journal row.
    async fn ensure_direct(
        &self,
        creator: UserId,
        other: UserId,
        at: Timestamp,
    ) -> Result<Option<DirectConversation>>;
    /// Makes a group with its first entry (`seq` 1, a `system` message). Repeating it with the same
    /// id by the same creator returns what there is; another creator's id is `Refusal::Conflict`.
    async fn create_group(
        &self,
        group: &NewGroup,
        at: Timestamp,
    ) -> Result<std::result::Result<GroupCreated, Refusal>>;
    /// Changes a group in one transaction behind its head's lock: loads [`GroupState`], asks
    /// `rule`, and, if it agrees, writes the change, its `system` entry and the journal.
    async fn change_group(
        &self,
        change: &GroupChange,
        rule: GroupRule,
        at: Timestamp,
    ) -> Result<std::result::Result<Option<GroupChanged>, Refusal>>;
    /// A user's conversations, newest activity first (ties by id, descending).
    async fn conversations_of(
        &self,
        user: UserId,
        filter: &ConversationFilter,
    ) -> Result<Vec<ListedConversation>>;
    /// One conversation as `user` sees it; `None` when not a (present) member.
    async fn conversation(&self, user: UserId, id: ConversationId) -> Result<Option<Conversation>>;
    /// One conversation as each of `users` sees it, those who are no (present) members left out:
    /// what thousands of members have to be shown is read once for all of them.
    async fn conversation_for(
        &self,
        id: ConversationId,
        users: &[UserId],
    ) -> Result<Vec<(UserId, Conversation)>>;
    /// A membership, present or past.
    async fn membership(&self, user: UserId, id: ConversationId) -> Result<Option<Membership>>;
    /// Memberships of these users, present and past, with their conversations' heads, from the
    /// primary, in one statement.
    async fn memberships_of(&self, users: &[UserId]) -> Result<Vec<Membership>>;
    /// Where the logs of these users' present conversations end, from the primary, in one statement:
    /// every connect reads this of every conversation, so it is no more than that.
    async fn ends_of(&self, users: &[UserId]) -> Result<Vec<LogEnd>>;
    /// Which of `users` are or were members of `id`, with the conversation's head.
    async fn memberships_in(&self, id: ConversationId, users: &[UserId])
    -> Result<Vec<Membership>>;
    /// Those of these members, present or past, that there are, with their conversations' heads, in
    /// no particular order. For many of one conversation [`Self::memberships_in`] costs less.
    async fn memberships_at(&self, members: &[(ConversationId, UserId)])
    -> Result<Vec<Membership>>;
    /// Present members with their names, by user id, after `after`.
    async fn members(
        &self,
        id: ConversationId,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<Member>>;
    /// The named members of `id`, present or past.
    async fn members_by_id(&self, id: ConversationId, users: &[UserId]) -> Result<Vec<Member>>;
    /// Those of these usernames (folded to lower case) that present members of `id` have, in no
    /// particular order.
    async fn members_by_name(
        &self,
        id: ConversationId,
        usernames: &[String],
    ) -> Result<Vec<(String, UserId)>>;
    /// Whom to tell of an entry: present members and the list's version, read in one statement.
    async fn member_lists(&self, ids: &[ConversationId]) -> Result<Vec<MemberList>>;
}

/// Marks of members, and what is derived from them.
#[async_trait]
pub trait ReceiptStore {
    /// Raises delivered and read marks, each in its own order of members so that nodes do not wait
    /// for each other; `read` raises `delivered` too. Returns the members whose marks grew: nothing
    /// is lowered, and a member's marks are left alone together if one is beyond the log's (or the
    /// membership's) end, or if there is no such member.
    async fn raise_marks(&self, marks: &[MarkRaise], at: Timestamp) -> Result<Vec<MarksGrown>>;
    /// How far the furthest of the present members but `user` are; who is beyond `up_to` may be
    /// told as being there.
    async fn furthest_marks(
        &self,
        id: ConversationId,
        user: UserId,
        up_to: Seq,
    ) -> Result<FurthestMarks>;
    /// Who wrote the newest 16 messages of each stretch, in the order of the stretches.
    async fn authors(&self, stretches: &[Stretch]) -> Result<Vec<Vec<UserId>>>;
    /// The read marks of these members, with what is unread behind each; counted as in the list of
    /// conversations.
    async fn read_marks(&self, members: &[(ConversationId, UserId)]) -> Result<Vec<ReadMark>>;
    /// A page of a user's own read marks, of present memberships, by conversation.
    async fn own_reads(&self, of: &OwnReads<'_>) -> Result<Vec<ReadMark>>;
    /// Read marks that the other members of a user's conversations set since then, in conversations
    /// of at most `members_max`: the newest 1,000.
    async fn reads_of_others(
        &self,
        user: UserId,
        since: Timestamp,
        members_max: i64,
    ) -> Result<Vec<OthersRead>>;
    /// A user's memberships, present or past, of these conversations.
    async fn memberships_among(
        &self,
        user: UserId,
        ids: &[ConversationId],
    ) -> Result<Vec<Membership>>;
    /// Who wrote the message at `seq`; `None` if no message is there.
    async fn sender_of(&self, id: ConversationId, seq: Seq) -> Result<Option<UserId>>;
    /// How far present members are with the message at `seq` by `sender`: those who can see it,
    /// but for the sender, by user id, after `after`.
    async fn message_receipts(
        &self,
        id: ConversationId,
        message: (Seq, UserId),
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<MessageReceipt>>;
    /// Mutes a conversation for one of its present members until then; false if there is no such
    /// member.
    async fn mute(
        &self,
        user: UserId,
        id: ConversationId,
        until: Option<Timestamp>,
    ) -> Result<bool>;
}

/// How users want to appear, when they were seen last, and who may know.
#[async_trait]
pub trait PresenceStore {
    /// Notes how a user wants to appear. Of two choices the second gets the later time, whatever
    /// clocks say. `None`: there is no such account.
    async fn choose_status(
        &self,
        user: UserId,
        status: ChosenStatus,
        at: Timestamp,
    ) -> Result<Option<Chosen>>;
    /// Raises when each of these users, named once, was seen last.
    async fn note_last_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<()>;
    /// Those of `users` who are present members of a conversation of which `viewer` is one.
    async fn shares_conversation_with(
        &self,
        viewer: UserId,
        users: &[UserId],
    ) -> Result<Vec<UserId>>;
    /// All others with whom `viewer` shares a conversation now, by id, after `after`.
    async fn acquaintances(
        &self,
        viewer: UserId,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<UserId>>;
}

/// The logs.
#[async_trait]
pub trait MessageStore {
    /// Stores a batch of sends in one transaction (`docs/ARCHITECTURE.md`, group commit), one
    /// outcome each, in order. With `Wait::No`, conversations locked by somebody else come back as
    /// [`Outcome::Held`]; with `Wait::Yes` the lock is waited for (up to the lock time-out).
    /// Sends of one conversation are numbered in the order of the batch.
    async fn append_shared(
        &self,
        batch: Arc<[NewMessage]>,
        wait: Wait,
        at: Timestamp,
    ) -> Result<Vec<Outcome>>;
    /// The same with a copy of the batch: how tests say it.
    async fn append(
        &self,
        batch: &[NewMessage],
        wait: Wait,
        at: Timestamp,
    ) -> Result<Vec<Outcome>> {
        self.append_shared(batch.into(), wait, at).await
    }
    /// Edits or deletes a message, or puts a reaction on it or takes it off, in one transaction
    /// behind the head's lock: loads [`MessageState`], asks `rule`, and, if it agrees and there is
    /// anything to change, writes the change, the entry that it is in the log, and the journal.
    async fn change_message(
        &self,
        change: &MessageChange,
        rule: MessageRule,
        at: Timestamp,
    ) -> Result<std::result::Result<MessageChanged, Refusal>>;
    /// The entries `after < seq <= to` of a log, ascending, at most `limit`, from the primary.
    /// Entries that changed a message come with that message as it is now.
    async fn entries(
        &self,
        id: ConversationId,
        after: Seq,
        to: Seq,
        limit: i64,
    ) -> Result<Vec<LogEntry>>;
    /// The entries of stretches of several logs, as [`Self::entries`] tells them and without another
    /// limit: a log has no holes, so whoever asks knows how many there may be. In the order of the
    /// stretches, which are of different conversations.
    async fn entries_of(&self, stretches: &[Stretch]) -> Result<Vec<Vec<LogEntry>>>;
    /// A page of messages within `after < seq < before`, ascending: the newest of them with
    /// [`Direction::Backward`], the oldest with `Forward`. Uses the replica where there is one and
    /// its copy of the log reaches `known_head`, the primary otherwise.
    async fn history(&self, page: &HistoryPage) -> Result<Vec<Message>>;
    /// How many pages of history the replica should have served and the primary did.
    fn replica_fallbacks(&self) -> u64 {
        0
    }
}

/// Who blocks whom.
#[async_trait]
pub trait BlockStore {
    /// Makes `user` block `other`, or ends it; returns whether that changed anything, `None` if
    /// there is no account `other`. The membership of `other` in the direct conversation of the two
    /// is marked with it, behind its head's lock, where sends look.
    async fn set_block(
        &self,
        user: UserId,
        other: UserId,
        blocked: bool,
        at: Timestamp,
    ) -> Result<Option<bool>>;
    /// Whom `user` blocks, by user id, after `after`.
    async fn blocks_of(
        &self,
        user: UserId,
        after: Option<UserId>,
        limit: i64,
    ) -> Result<Vec<UserId>>;
    /// Those of `users` who block `viewer`, in no particular order.
    async fn blockers_among(&self, viewer: UserId, users: &[UserId]) -> Result<Vec<UserId>>;
    /// The blocks of `users` against `viewers`, each with the one who is blocked, in no particular
    /// order.
    async fn blocks_among(
        &self,
        users: &[UserId],
        viewers: &[UserId],
    ) -> Result<Vec<(UserId, UserId)>>;
}

/// The journal: one row a commit, from which nodes learn what news they lost.
#[async_trait]
pub trait JournalStore {
    /// The rows committed since the look that returned `from`, and the position for the next look;
    /// a row may be told again after a page that did not tell all. `None`: no rows, only the present
    /// position. What could be read within the time is a page, too.
    async fn journal(
        &self,
        from: Option<&JournalPosition>,
        within: Duration,
    ) -> Result<JournalPage>;
    /// Removes rows older than that, by the database's clock, and says how many; after a long stop
    /// not all in one call.
    async fn prune_journal(&self, age: Duration) -> Result<u64>;
    /// Names this incarnation of the database; changes when it was set back.
    async fn epoch(&self) -> Result<String>;
    /// Answers if the primary does.
    async fn ping(&self) -> Result<()>;
    /// The connections to the primary there are right now.
    fn connections(&self) -> Connections;
}

/// All of the port.
pub trait Store:
    UserStore
    + SessionStore
    + ConversationStore
    + PresenceStore
    + ReceiptStore
    + MessageStore
    + BlockStore
    + JournalStore
    + Send
    + Sync
    + 'static
{
}

impl<T> Store for T where
    T: UserStore
        + SessionStore
        + ConversationStore
        + PresenceStore
        + ReceiptStore
        + MessageStore
        + BlockStore
        + JournalStore
        + Send
        + Sync
        + 'static
{
}

/// How to reach the database; filled from the configuration.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `postgres://…` or `sqlite://path`.
    pub url: String,
    /// PostgreSQL: a replica for history.
    pub replica_url: Option<String>,
    pub pool_max: u32,
    /// Prepared statements kept a connection; 0 behind PgBouncer.
    pub statement_cache: usize,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

impl StoreOptions {
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres://") || self.url.starts_with("postgresql://")
    }
}

/// Asks whether the database can be used now; a file always can.
///
/// # Errors
/// [`StoreError::Unavailable`] if it may be worth asking again: nobody answers, the server is
/// starting, is full or is a standby.
pub async fn knock(options: &StoreOptions) -> Result<()> {
    if options.is_postgres() {
        postgres::knock(options).await
    } else {
        Ok(())
    }
}

/// Where PostgreSQL is, without anything secret.
///
/// # Errors
/// The URL cannot be read.
pub fn address(options: &StoreOptions) -> Result<String> {
    postgres::address(options)
}

/// Connects to the database the URL names. Runs no migrations.
///
/// # Errors
/// The URL cannot be read, or the database does not answer.
pub async fn connect(options: &StoreOptions) -> Result<Arc<dyn Store>> {
    if options.is_postgres() {
        Ok(Arc::new(PostgresStore::connect(options).await?))
    } else {
        Ok(Arc::new(SqliteStore::connect(options).await?))
    }
}
