//! What goes into the store and comes out of it.

use rookery_protocol::conversation::{Conversation, ConversationKind, MemberRole};
use rookery_protocol::message::{ChangeKind, Message, SystemNotice};
use rookery_protocol::user::{ChosenStatus, UserRole};
use rookery_protocol::{ConversationId, MessageId, Seq, SessionId, Timestamp, UserId};
use serde_json::{Map, Value};

#[derive(Clone, Debug)]
pub struct NewUser {
    pub user_id: UserId,
    /// Folded to lower case, as `email`.
    pub username: String,
    pub email: String,
    pub password_hash: String,
    pub full_name: Option<String>,
    pub role: UserRole,
    pub created_at: Timestamp,
}

/// Which unique field of an account is in use already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Username,
    Email,
}

#[derive(Clone, Debug)]
pub struct UserRow {
    pub user_id: UserId,
    pub username: String,
    pub email: String,
    pub full_name: Option<String>,
    pub avatar_url: Option<String>,
    pub role: UserRole,
    /// Counts role, ban and password changes; tokens carry it.
    pub auth_version: i64,
    pub banned_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub last_seen_at: Option<Timestamp>,
    pub chosen: Chosen,
}

/// How a user wants to appear, and since when. Of two choices the one with the later time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Chosen {
    pub status: ChosenStatus,
    /// Zero where nothing was ever chosen.
    pub at: Timestamp,
}

#[derive(Clone, Debug)]
pub struct Credentials {
    pub user: UserRow,
    pub password_hash: String,
}

/// `None` leaves a field, `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct ProfileChange {
    pub full_name: Option<Option<String>>,
    pub avatar_url: Option<Option<String>>,
}

/// SHA-256 of a refresh token.
pub type TokenHash = [u8; 32];

#[derive(Clone, Debug)]
pub struct NewSession {
    pub session_id: SessionId,
    pub user_id: UserId,
    pub token_hash: TokenHash,
    pub device_name: Option<String>,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug)]
pub struct RotateSession {
    pub session_id: SessionId,
    pub presented: TokenHash,
    pub successor: TokenHash,
    pub now: Timestamp,
    /// The new end of the session if it is rotated.
    pub expires_at: Timestamp,
    /// How long the immediate predecessor may be repeated while its successor is unused.
    pub grace_ms: i64,
}

/// What became of a presented refresh token.
#[derive(Clone, Debug)]
pub enum Rotation {
    /// It was the current one, or its immediate predecessor within the grace: `successor` is
    /// current now.
    Rotated(UserRow),
    /// No such session, or it is revoked or expired, or its user is deleted or banned.
    Refused,
    /// An older token of the family: somebody else has a copy. The family is ended now.
    Reused(UserId),
}

#[derive(Clone, Debug)]
pub struct SessionRow {
    pub session_id: SessionId,
    pub device_name: Option<String>,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub created_at: Timestamp,
    pub last_used_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Why a decided command was not carried out; each maps to one error code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Does not exist, or is not the actor's to see.
    NotFound,
    Forbidden(&'static str),
    /// Contradicts what is stored.
    Conflict(&'static str),
    /// The field and what is allowed in it.
    Invalid {
        field: &'static str,
        reason: &'static str,
        allowed: &'static str,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct DirectConversation {
    pub conversation_id: ConversationId,
    /// False when it existed already.
    pub created: bool,
}

#[derive(Clone, Debug)]
pub struct NewGroup {
    pub conversation_id: ConversationId,
    /// Names the first entry; made by the server.
    pub message_id: MessageId,
    pub creator: UserId,
    pub title: Option<String>,
    pub description: Option<String>,
    pub history_visible: bool,
    /// Without the creator, without repeats.
    pub member_ids: Vec<UserId>,
    /// Content of the first entry.
    pub notice_text: String,
    /// More members than this are told on the conversation's channel.
    pub direct_max: i64,
}

#[derive(Clone, Debug)]
pub struct GroupCreated {
    /// The first entry; `None` when the group existed already.
    pub entry: Option<Message>,
    pub members: MemberList,
}

/// A wanted change of a group.
#[derive(Clone, Debug)]
pub struct GroupChange {
    pub conversation_id: ConversationId,
    pub actor: UserId,
    /// Names the entry that reports the change; made by the server.
    pub message_id: MessageId,
    pub action: GroupAction,
    /// More members than this are told on the conversation's channel.
    pub direct_max: i64,
}

#[derive(Clone, Debug)]
pub enum GroupAction {
    /// `None` leaves a field, `Some(None)` clears it.
    Update {
        title: Option<Option<String>>,
        description: Option<Option<String>>,
    },
    AddMembers {
        user_ids: Vec<UserId>,
    },
    /// By the member itself: leaving.
    RemoveMember {
        user_id: UserId,
    },
    ChangeRole {
        user_id: UserId,
        role: MemberRole,
    },
    /// Ends the group for all: every membership ends with the entry that reports it.
    Delete,
}

/// What a [`GroupRule`] may look at; read behind the lock.
#[derive(Clone, Debug)]
pub struct GroupState {
    pub kind: ConversationKind,
    pub title: Option<String>,
    pub description: Option<String>,
    pub member_count: i64,
    pub owner_count: i64,
    /// The actor, if a present member.
    pub actor: Option<GroupMember>,
    /// Those of the users named by the action who are present members.
    pub named: Vec<GroupMember>,
    /// Accounts among the users named by the action who are not present members.
    pub strangers: Vec<(UserId, String)>,
}

#[derive(Clone, Debug)]
pub struct GroupMember {
    pub user_id: UserId,
    pub username: String,
    pub role: MemberRole,
}

/// Decides on a change: the entry that reports it, `None` if there is nothing to do.
/// For `AddMembers` the notice's `user_ids` are those that are added.
pub type GroupRule =
    fn(&GroupState, &GroupChange) -> Result<Option<(SystemNotice, String)>, Refusal>;

#[derive(Clone, Debug)]
pub struct GroupChanged {
    pub entry: Message,
    pub notice: SystemNotice,
    /// Present members after the change, with the version that it made.
    pub members: MemberList,
    /// Members whose membership the change ended; they hear of this entry, and of no later one.
    pub removed: Vec<UserId>,
}

#[derive(Clone, Debug, Default)]
pub struct ConversationFilter {
    /// Title, or the other's username or full name in a direct conversation, contains this.
    pub query: Option<String>,
    /// Only those with an entry at or after this time.
    pub changed_since: Option<Timestamp>,
    /// Continue after this conversation of the list.
    pub before: Option<(Timestamp, ConversationId)>,
    pub limit: i64,
}

#[derive(Clone, Debug)]
pub struct ListedConversation {
    pub conversation: Conversation,
    /// Time of the last entry, or of the creation: what the list is ordered by.
    pub last_at: Timestamp,
}

/// One user's window on one log. Sees `visible_from < seq <= left_seq`.
#[derive(Clone, Debug)]
pub struct Membership {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub kind: ConversationKind,
    pub role: MemberRole,
    /// Cursor of someone who just joined.
    pub joined_seq: Seq,
    /// `joined_seq`, or 0 where the history is visible.
    pub visible_from: Seq,
    pub left_seq: Option<Seq>,
    pub delivered_seq: Seq,
    pub read_seq: Seq,
    /// The log's end.
    pub last_seq: Seq,
    /// How the conversation's members are told.
    pub fanout: FanoutMode,
}

impl Membership {
    /// The last entry this user may see.
    #[must_use]
    pub fn visible_to(&self) -> Seq {
        self.left_seq.unwrap_or(self.last_seq)
    }

    /// Whether this user may be told of an entry within the window: what a change shows is its
    /// message, which may stand before the window.
    #[must_use]
    pub fn sees(&self, entry: &LogEntry) -> bool {
        match entry {
            LogEntry::Message(message) => message.seq > self.visible_from,
            LogEntry::Change(change) => change.message.seq > self.visible_from,
            LogEntry::Blank { .. } => false,
        }
    }

    #[must_use]
    pub fn is_present(&self) -> bool {
        self.left_seq.is_none()
    }
}

/// The present members of a conversation as of `version`.
#[derive(Clone, Debug)]
pub struct MemberList {
    pub conversation_id: ConversationId,
    /// Grows with every change of the list.
    pub version: i64,
    pub user_ids: Vec<UserId>,
    /// Of a direct conversation, whom the other one blocks, as of the reading of the list.
    pub blocked: Vec<UserId>,
    pub fanout: FanoutState,
}

/// Where a log ends that a user reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    pub user_id: UserId,
    pub conversation_id: ConversationId,
    pub last_seq: Seq,
    pub fanout: FanoutMode,
}

/// How the members of a conversation are told of its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FanoutMode {
    /// On the channel of each of them.
    #[default]
    Direct,
    /// Once, on the channel of the conversation.
    Channel,
}

impl FanoutMode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Channel => "channel",
        }
    }

    /// The stored text of a mode, `None` when it is none of this version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "direct" => Some(Self::Direct),
            "channel" => Some(Self::Channel),
            _ => None,
        }
    }
}

/// The mode of a conversation, and since when. It changes only with the list of members, behind
/// the same lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FanoutState {
    pub mode: FanoutMode,
    /// Zero where it never changed.
    pub changed_at: Timestamp,
}

impl FanoutState {
    /// The state of a new conversation: nobody has heard of it in another mode, so there is nothing
    /// to change over from.
    #[must_use]
    pub fn of_new(member_count: i64, direct_max: i64) -> Self {
        let never = Timestamp::default();
        Self {
            changed_at: never,
            ..Self::default().after(member_count, direct_max, never)
        }
    }

    /// The state after the list of members became this long: `Channel` above `direct_max`, and
    /// `Direct` again below three quarters of it, so that a member who comes and goes changes
    /// nothing.
    #[must_use]
    pub fn after(self, member_count: i64, direct_max: i64, at: Timestamp) -> Self {
        let mode = if member_count > direct_max {
            FanoutMode::Channel
        } else if member_count * 4 < direct_max * 3 {
            FanoutMode::Direct
        } else {
            self.mode
        };
        let changed_at = if mode == self.mode {
            self.changed_at
        } else {
            at
        };
        Self { mode, changed_at }
    }
}

/// One entry of a log, with the message that it is or that it changed, as that is now.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEntry {
    Message(Message),
    Change(Change),
    /// Of a later release, or about a message that is no more: it has a place, and nothing to tell.
    Blank {
        seq: Seq,
    },
}

/// An entry that changed an earlier message.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Of the entry.
    pub seq: Seq,
    pub by: UserId,
    pub kind: ChangeKind,
    /// The message as it is now.
    pub message: Message,
}

impl LogEntry {
    #[must_use]
    pub fn seq(&self) -> Seq {
        match self {
            Self::Message(message) => message.seq,
            Self::Change(change) => change.seq,
            Self::Blank { seq } => *seq,
        }
    }

    /// Known from the message that the entry is about.
    #[must_use]
    pub fn conversation_id(&self) -> Option<ConversationId> {
        match self {
            Self::Message(message) => Some(message.conversation_id),
            Self::Change(change) => Some(change.message.conversation_id),
            Self::Blank { .. } => None,
        }
    }

    /// The message, if the entry is one.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Change(_) | Self::Blank { .. } => None,
        }
    }

    #[must_use]
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            Self::Change(_) | Self::Blank { .. } => None,
        }
    }
}

/// A send, checked for shape, not yet for permission.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub conversation_id: ConversationId,
    pub message_id: MessageId,
    pub sender_id: UserId,
    pub content: String,
    pub metadata: Option<Map<String, Value>>,
    pub reply_to: Option<Seq>,
    pub mentions: Vec<UserId>,
    /// Of everything the request asked for: tells a repeat from a conflict.
    pub request_hash: [u8; 16],
}

/// Whether to wait for a conversation that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    No,
    Yes,
}

/// What became of one send of a batch.
#[derive(Clone, Debug)]
pub enum Outcome {
    Stored(Stored),
    /// Somebody else holds the conversation's lock; nothing was stored.
    Held,
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub seq: Seq,
    pub created_at: Timestamp,
    /// Version of the member list at this entry.
    pub member_version: i64,
    /// It had been stored before; nobody needs to be told again.
    pub duplicate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Backward,
    Forward,
}

#[derive(Clone, Copy, Debug)]
pub struct HistoryPage {
    pub conversation_id: ConversationId,
    pub after: Seq,
    pub before: Seq,
    pub direction: Direction,
    pub limit: i64,
    /// The log's end as the primary told: a replica that is not there yet is not asked.
    pub known_head: Seq,
}

/// Where a look into the journal ended; opaque outside the store. The default is before all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalPosition {
    /// Commits with this number or a greater one are not told yet.
    pub(in crate::store) next: i64,
    /// Nor are those of the earlier ones that were still open.
    pub(in crate::store) open: Vec<i64>,
    /// When everything committed until then had been told, by the database's clock.
    pub(in crate::store) current_at_ms: i64,
    /// How much trouble the connection had been in: see `postgres/journal.rs`.
    pub(in crate::store) troubles: u64,
}

#[derive(Clone, Debug)]
pub struct JournalPage {
    pub rows: Vec<JournalRow>,
    pub next: JournalPosition,
    /// There is more to tell at once.
    pub more: bool,
    /// Commits since the position may be in no row any more: it is too old, or the database was set
    /// back. What depends on having been told everything has to begin anew.
    pub lost: bool,
}

/// What commits changed. A look tells memberships and sessions commit by commit, then all logs that
/// grew in one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalRow {
    /// Logs that grew, each once, with its furthest end.
    Entries(Vec<(ConversationId, Seq)>),
    /// Memberships that began or ended.
    Members {
        conversation_id: ConversationId,
        user_ids: Vec<UserId>,
    },
    /// Sessions that were ended.
    Revoked {
        user_id: UserId,
        session_ids: Vec<SessionId>,
    },
}

/// Connections of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Lent out.
    pub used: usize,
    /// Open, and nobody's.
    pub idle: usize,
    pub max: usize,
}
