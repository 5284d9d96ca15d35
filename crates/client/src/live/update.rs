//! What a [`Live`](super::Live) tells the application.

use std::time::Duration;

use rookery_protocol::conversation::{Conversation, Member};
use rookery_protocol::event::{
    ConversationRead, ErrorEvent, MessageAck, Receipt, ResetCursor, ServerEvent,
};
use rookery_protocol::message::Message;
use rookery_protocol::rest::Tokens;
use rookery_protocol::user::User;
use rookery_protocol::{ConversationId, MessageId, Seq, SessionId, Timestamp};

/// What happened, in the order in which an application should learn of it.
///
/// **Cursors.** An application that keeps cursors for its next start keeps, of each conversation,
/// the highest `seq` named by [`Update::Message`], [`Update::Changed`] (its `cursor`),
/// [`Update::Cursor`] and [`Update::Reset`] (which may go back), and by an [`Update::Acked`] only if
/// that is the very next one. All before it has been handed out.
///
/// **The way.** What comes between [`Update::Connected`] and [`Update::Synced`] was missed and is
/// caught up on; what comes later is news. Whoever must tell more, say each attempt of a send or an
/// event that arrived twice, looks on through a [`Tap`](super::Tap).
#[derive(Clone, Debug)]
pub enum Update {
    /// `ready`: what was missed follows, then [`Update::Synced`].
    Connected {
        url: String,
        node_id: String,
        user: User,
        session_id: SessionId,
        /// Keep it with the cursors, for [`LiveConfig::epoch`](super::LiveConfig::epoch).
        epoch: String,
        /// Keep it, with what has passed since by one's own clock, for
        /// [`LiveConfig::since`](super::LiveConfig::since).
        server_time: Timestamp,
    },
    /// Everything missed has been handed out.
    Synced { messages: i64 },
    /// A message that was not sent through this [`Live`](super::Live): once, in `seq` order.
    Message(Box<Message>),
    /// An older message as it is now: it was edited or deleted, or somebody reacted to it. Replace
    /// what is kept of it.
    Changed {
        /// Up to here everything of the conversation has been handed out.
        cursor: Seq,
        message: Box<Message>,
    },
    /// Up to here everything of a conversation has been handed out, or is not for this user.
    Cursor {
        conversation_id: ConversationId,
        seq: Seq,
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
    /// Too far behind: drop what is kept of this conversation and fetch its history up to `seq`;
    /// what comes after `seq` is handed out here. Now `seq` is the cursor, also where it was beyond.
    Reset(ResetCursor),
    /// The database was set back: drop everything that is kept, cursors first. An
    /// [`Update::Reset`] for each conversation follows.
    EpochChanged { epoch: String },
    /// New tokens: keep them, the old refresh token is used up.
    Refreshed(Box<Tokens>),
    /// The node goes away soon; the connection moves by itself.
    Draining { reconnect_after: Duration },
    /// An event that needs no state here: presence, typing and the like.
    Event(Box<ServerEvent>),
    /// The connection, or the attempt at one, ended; the next attempt is under way.
    Disconnected {
        /// The close code, 1006 if there was none.
        code: u16,
        reason: String,
        retry_in: Duration,
    },
    /// The connection ended for good: refused or revoked credentials, or a rule broken. Last.
    Stopped { code: u16, reason: String },
}
