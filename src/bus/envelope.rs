//! What travels on the bus: MessagePack with named fields, so that nodes of neighbouring versions
//! read each other. An event of the bus is never an event for clients: `delivery` makes those.

mod usual;

use bytes::Bytes;
use rookery_protocol::message::{ChangeKind, Message, MessageKind, MessageStatus, Reaction};
use rookery_protocol::user::PresenceStatus;
use rookery_protocol::{ConversationId, MessageId, Seq, SessionId, Timestamp, UserId};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::store::{Chosen, MarkKind};

/// The version this node writes. A node skips versions it does not know and reconciles.
pub const VERSION: u8 = 1;

/// Holds a message of a line or two.
const USUAL_BYTES: usize = 640;

/// An event with what the receiving node needs to judge it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// What the receiver spreads its work by: the conversation, or the user. Written first, as
    /// bytes, so that it can be read without reading the rest.
    #[serde(with = "key_bytes", default)]
    pub key: [u8; 16],
    pub v: u8,
    /// The publishing node.
    pub origin: String,
    /// The socket (of the origin) that has this already as its ack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<u64>,
    /// When it was published, for the lag metric.
    pub at: Timestamp,
    /// Version of the member list it was addressed by.
    #[serde(default)]
    pub members: i64,
    pub event: BusEvent,
}

/// News between nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusEvent {
    /// A log has a new entry: this message.
    Entry {
        #[serde(serialize_with = "sparse_message")]
        message: Message,
    },
    /// A log has a new entry that changed this message.
    Changed {
        /// Of the entry.
        seq: Seq,
        by: UserId,
        kind: ChangeKind,
        /// The message as it is now; its `status` is for its sender only.
        message: Message,
        /// Some members do not see the message, only the log behind it: whoever receives this
        /// reads their windows first.
        windowed: bool,
    },
    /// Marks of members grew.
    Receipts { receipts: Vec<BusReceipt> },
    /// The receiving user's own read marks grew.
    OwnRead { reads: Vec<OwnRead> },
    /// The receiving user changed its own settings of a conversation.
    OwnSettings { conversation_id: ConversationId },
    /// A member writes, or ceased to.
    Typing {
        conversation_id: ConversationId,
        user_id: UserId,
        active: bool,
        /// On the conversation's channel: only for those who watch.
        watched_only: bool,
    },
    /// A user appears otherwise than before.
    Presence(BusPresence),
    /// The receiving user chose how to appear.
    Chosen { user_id: UserId, chosen: Chosen },
    /// Whether `by` blocks the receiving user.
    Blocked { by: UserId, blocked: bool },
    /// The receiving user has a new direct conversation.
    DirectCreated { conversation_id: ConversationId },
    /// Sessions of a user were ended.
    Revoked {
        user_id: UserId,
        session_ids: Vec<SessionId>,
    },
    /// A node's sign of life.
    Canary { count: u64 },
    /// The open sockets that the publishing node has of a user who has too many on all nodes
    /// together. `ask`: the others are to tell theirs.
    Sockets {
        user_id: UserId,
        ask: bool,
        sockets: Vec<BusSocket>,
    },
}

/// A socket of the publishing node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusSocket {
    /// On that node.
    pub id: u64,
    /// When its client was heard last, by that node's clock. Never goes back.
    pub heard_at: Timestamp,
}

/// How far a member is in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusReceipt {
    pub conversation_id: ConversationId,
    pub user_id: UserId,
    pub kind: MarkKind,
    pub seq: Seq,
    pub at: Timestamp,
}

/// How far the receiving user has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRead {
    pub conversation_id: ConversationId,
    pub seq: Seq,
    pub at: Timestamp,
    /// The log's end when this was counted.
    pub last_seq: Seq,
    pub unread_count: i64,
    pub mention_count: i64,
}

/// How a user appears to those who may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusPresence {
    pub user_id: UserId,
    pub status: PresenceStatus,
    pub online_since: Option<Timestamp>,
    pub last_seen_at: Option<Timestamp>,
    /// When the user chose to appear so: news of an older choice may come after that of a newer.
    #[serde(default)]
    pub chosen_at: Timestamp,
}

impl BusPresence {
    #[must_use]
    pub fn offline(user_id: UserId, last_seen_at: Option<Timestamp>) -> Self {
        Self {
            user_id,
            status: PresenceStatus::Offline,
            online_since: None,
            last_seen_at,
            chosen_at: Timestamp::default(),
        }
    }

    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.status == PresenceStatus::Offline
    }
}

/// Something arrived that is no envelope of this version.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("not an envelope")]
    Unreadable,
    #[error("version {0} is not known")]
    UnknownVersion(u8),
}

/// Read first, so that a newer version's event need not be understood to be skipped.
#[derive(Deserialize)]
struct VersionOnly {
    v: u8,
}

/// How an envelope starts, behind its one-byte map header: the name `key`, 16 bytes follow.
const KEY_MARK: &[u8] = &[0xa3, b'k', b'e', b'y', 0xc4, 16];

impl Envelope {
    /// The key of encoded bytes, without decoding them; zeros if they do not start with one.
    #[must_use]
    pub fn key_of(bytes: &[u8]) -> [u8; 16] {
        let behind_mark = bytes.get(1..).and_then(|rest| rest.strip_prefix(KEY_MARK));
        behind_mark
            .and_then(|rest| rest.first_chunk().copied())
            .unwrap_or_default()
    }

    /// The bytes to publish; `None` only if the event cannot be written, which the types rule out.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        if let Some(bytes) = usual::write(self) {
            return Some(bytes.into());
        }
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        rmp_serde::encode::write_named(&mut bytes, self).ok()?;
        Some(bytes.into())
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// The bytes are no envelope, or one of a version this node does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if let Some(envelope) = usual::read(bytes) {
            return Ok(envelope);
        }
        Self::decode_any(bytes)
    }

    fn decode_any(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if let Ok(envelope) = rmp_serde::from_slice::<Self>(bytes)
            && envelope.v == VERSION
        {
            return Ok(envelope);
        }
        match rmp_serde::from_slice::<VersionOnly>(bytes) {
            Ok(VersionOnly { v }) if v != VERSION => Err(EnvelopeError::UnknownVersion(v)),
            _ => Err(EnvelopeError::Unreadable),
        }
    }
}

/// Writes of a message what it has: fields that are left out are read as none. Most messages have
/// none of these five, and a message is published once for each member.
fn sparse_message<S: Serializer>(message: &Message, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Sparse<'a> {
        message_id: MessageId,
        conversation_id: ConversationId,
        seq: Seq,
        sender_id: UserId,
        kind: MessageKind,
        content: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Map<String, Value>>,
        created_at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        edited_at: Option<Timestamp>,
        #[serde(skip_serializing_if = "Option::is_none")]
        deleted_at: Option<Timestamp>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<Seq>,
        mentions: &'a [UserId],
        reactions: &'a [Reaction],
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<MessageStatus>,
    }
    // Taken apart by name, so that a field that is added later cannot be forgotten here.
    let Message {
        message_id,
        conversation_id,
        seq,
        sender_id,
        kind,
        content,
        metadata,
        created_at,
        edited_at,
        deleted_at,
        reply_to,
        mentions,
        reactions,
        status,
    } = message;
    let sparse = Sparse {
        message_id: *message_id,
        conversation_id: *conversation_id,
        seq: *seq,
        sender_id: *sender_id,
        kind: *kind,
        content,
        metadata: metadata.as_ref(),
        created_at: *created_at,
        edited_at: *edited_at,
        deleted_at: *deleted_at,
        reply_to: *reply_to,
        mentions,
        reactions,
        status: *status,
    };
    sparse.serialize(to)
}

mod key_bytes {
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(key: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        from.deserialize_bytes(KeyVisitor)
    }

    struct KeyVisitor;

    impl de::Visitor<'_> for KeyVisitor {
        type Value = [u8; 16];

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("16 bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; 16], E> {
            bytes
                .try_into()
                .map_err(|_| E::invalid_length(bytes.len(), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_come_back_and_strangers_are_told_apart() {
        let envelope = Envelope {
            key: [9; 16],
            v: VERSION,
            origin: "a".into(),
            skip: None,
            at: Timestamp::from_millis(1),
            members: 3,
            event: BusEvent::Canary { count: 7 },
        };
        let bytes = envelope.encode().unwrap();
        assert_eq!(Envelope::key_of(&bytes), [9; 16]);
        assert_eq!(Envelope::key_of(b"junk"), [0; 16]);
        let back = Envelope::decode(&bytes).unwrap();
        assert_eq!(back.key, [9; 16]);
        assert!(matches!(back.event, BusEvent::Canary { count: 7 }));
        let newer = Envelope { v: 2, ..envelope };
        let error = Envelope::decode(&newer.encode().unwrap()).unwrap_err();
        assert!(matches!(error, EnvelopeError::UnknownVersion(2)));
        assert!(matches!(
            Envelope::decode(b"junk"),
            Err(EnvelopeError::Unreadable)
        ));
    }

    #[test]
    fn a_message_comes_back_equal_whether_it_has_everything_or_little() {
        let id = uuid::Uuid::from_u128(7);
        let user = UserId::from_uuid(id);
        let at = Timestamp::from_millis(1_790_000_000_123);
        let little = Message {
            message_id: MessageId::from_uuid(id),
            conversation_id: ConversationId::from_uuid(id),
            seq: Seq(3),
            sender_id: user,
            kind: MessageKind::Text,
            content: "hello".into(),
            metadata: None,
            created_at: at,
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            mentions: vec![],
            reactions: vec![],
            status: None,
        };
        let everything = Message {
            metadata: Some(Map::from_iter([("a".to_owned(), Value::from(1))])),
            edited_at: Some(at),
            deleted_at: Some(at),
            reply_to: Some(Seq(2)),
            mentions: vec![user],
            reactions: vec![Reaction {
                emoji: "+".into(),
                user_ids: vec![user],
                count: 1,
            }],
            status: Some(MessageStatus::Read),
            ..little.clone()
        };
        for message in [little, everything] {
            let envelope = Envelope {
                key: [9; 16],
                v: VERSION,
                origin: "a".into(),
                skip: Some(4),
                at,
                members: 3,
                event: BusEvent::Entry {
                    message: message.clone(),
                },
            };
            let back = Envelope::decode(&envelope.encode().unwrap()).unwrap();
            let BusEvent::Entry { message: read } = back.event else {
                panic!("another event");
            };
            assert_eq!(read, message);
            // As the version before writes it, with every field.
            let whole = rmp_serde::to_vec_named(&message).unwrap();
            assert_eq!(rmp_serde::from_slice::<Message>(&whole).unwrap(), message);
        }
    }
}
