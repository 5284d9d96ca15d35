//! Messages, frames and sockets as they are on a node: a line of text, no attachments, ten
//! conversations a user.

use std::sync::Arc;

use bytes::Bytes;
use rookery::auth::Access;
use rookery::bus::{BusEvent, Envelope, VERSION};
use rookery::gateway::Session;
use rookery_protocol::command::{ClientCommand, MessageSend};
use rookery_protocol::event::{MessageNew, ServerEvent};
use rookery_protocol::message::{Message, MessageKind};
use rookery_protocol::user::UserRole;
use rookery_protocol::{ConversationId, Format, MessageId, Seq, SessionId, Timestamp, UserId};
use uuid::Uuid;

/// 120 bytes, as the load test sends them.
const CONTENT: &str = "The nest in the old elm is inhabited again this spring; come and look before \
    the leaves are out and hide it all from us.";
/// Conversations of a user, beside the one that is measured.
const CONVERSATIONS: u128 = 9;
/// Of all samples: a fixed moment, so that each run writes the same digits.
pub const AT: Timestamp = Timestamp::from_millis(1_790_000_000_123);
/// Who writes; nobody with a socket, unless a benchmark says so.
pub const SENDER: u128 = 0xa11ce;
/// The node that the samples come from; not the one that they reach.
pub const ORIGIN: &str = "node-7f3a";

/// An id that looks like others: its bits are spread, as a hash map expects of ids.
#[must_use]
fn id(namespace: u128, n: u128) -> Uuid {
    let spread = (namespace << 64 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Uuid::from_u128(spread)
}

#[must_use]
pub fn user(n: u128) -> UserId {
    UserId::from_uuid(id(1, n))
}

#[must_use]
pub fn conversation(n: u128) -> ConversationId {
    ConversationId::from_uuid(id(2, n))
}

#[must_use]
pub fn message_id(n: u128) -> MessageId {
    MessageId::from_uuid(id(3, n))
}

/// A message of a conversation; the number is its `seq`.
#[must_use]
pub fn message(conversation_id: ConversationId, seq: usize) -> Message {
    Message {
        message_id: message_id(seq as u128),
        conversation_id,
        seq: Seq(seq as i64),
        sender_id: user(SENDER),
        kind: MessageKind::Text,
        content: CONTENT.to_owned(),
        metadata: None,
        created_at: AT,
        edited_at: None,
        deleted_at: None,
        reply_to: None,
        mentions: Vec::new(),
        reactions: Vec::new(),
        status: None,
    }
}

/// The event of a message, as everybody but its sender sees it.
#[must_use]
pub fn event() -> ServerEvent {
    ServerEvent::MessageNew(MessageNew {
        message: message(conversation(0), 100_000),
    })
}

/// What a node publishes of a message.
#[must_use]
pub fn envelope(conversation_id: ConversationId, seq: usize) -> Envelope {
    Envelope {
        key: *conversation_id.as_bytes(),
        v: VERSION,
        origin: ORIGIN.to_owned(),
        skip: Some(17),
        at: AT,
        members: 3,
        event: BusEvent::Entry {
            message: message(conversation_id, seq),
        },
    }
}

/// The same in bytes, as it arrives.
///
/// # Panics
/// Never: an envelope can be encoded.
#[must_use]
pub fn payload(conversation_id: ConversationId, seq: usize) -> Bytes {
    let encoded = envelope(conversation_id, seq).encode();
    encoded.expect("an envelope can be encoded")
}

/// A client's frame that sends a message; the number makes it another message each time.
///
/// # Panics
/// Never: a frame can be encoded.
#[must_use]
pub fn send_frame(format: Format, conversation_id: ConversationId, n: usize) -> Vec<u8> {
    let command = ClientCommand::MessageSend(MessageSend {
        reference: Some("c-10417".to_owned()),
        message_id: message_id(n as u128),
        content: CONTENT.to_owned(),
        conversation_id: Some(conversation_id),
        recipient_id: None,
        reply_to: None,
        metadata: None,
    });
    let encoded = format.encode(&command);
    encoded.expect("a frame can be encoded")
}

/// A socket of a user that is live in a conversation from its beginning, and in nine others.
#[must_use]
pub fn session(
    number: u64,
    user_id: UserId,
    format: Format,
    conversation_id: ConversationId,
) -> Arc<Session> {
    let access = Access {
        user_id,
        session_id: SessionId::from_uuid(id(4, u128::from(number))),
        username: "robin".to_owned(),
        role: UserRole::User,
        auth_version: 1,
        expires_at: AT,
    };
    let session = Session::new(number, &access, format, 0, Arc::default());
    let others = (0..CONVERSATIONS).map(|n| (conversation(1_000_000 + n), Seq(5)));
    let mut ends: Vec<_> = others.collect();
    ends.push((conversation_id, Seq::ZERO));
    session.positions().set_base(&ends);
    Arc::new(session)
}
