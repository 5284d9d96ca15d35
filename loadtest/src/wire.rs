//! Frames, written and read with as little work as possible: the load test shares its machine with
//! what it measures. Full decoding is for clients.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use rookery_client::socket::RawMessage;
use rookery_oracle::pair::Side;
use rookery_protocol::{ConversationId, Format, MessageId};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

/// The counter's part of an id; its pair has the 25 bits above, far more than there are ports.
const COUNTER_BITS: u32 = 36;

/// Which message of which run this is: stands in the `message_id` and in the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Milliseconds since 1970 at the run's start.
    pub run: u64,
    pub pair: u32,
    pub from: Side,
    pub counter: u64,
}

impl Tag {
    /// A UUIDv7 whose time is the run's start and whose random bits are the rest of the tag.
    pub(crate) fn message_id(self) -> MessageId {
        let low = (u64::from(self.pair) << (COUNTER_BITS + 1))
            | ((self.from as u64) << COUNTER_BITS)
            | self.counter;
        let high = (self.run << 16) | 0x7000;
        let bits = (u128::from(high) << 64) | u128::from(low) | (0b10 << 126 >> 64);
        MessageId::from_uuid(Uuid::from_u128(bits))
    }

    pub(crate) fn of_message_id(text: &str) -> Option<Self> {
        let bits = Uuid::try_parse(text).ok()?.as_u128();
        let low = (bits as u64) & !(0b11 << 62);
        Some(Self {
            run: (bits >> 80) as u64,
            pair: (low >> (COUNTER_BITS + 1)) as u32,
            from: if low >> COUNTER_BITS & 1 == 0 {
                Side::A
            } else {
                Side::B
            },
            counter: low & ((1 << COUNTER_BITS) - 1),
        })
    }
}

/// A `message.send` in Rookery's protocol. Contents have `bytes` bytes, and never fewer than the tag
/// needs.
pub(crate) fn send(
    format: Format,
    tag: Tag,
    conversation: ConversationId,
    bytes: usize,
) -> RawMessage {
    let id = tag.message_id();
    let content = content(tag, bytes);
    let mut json = String::with_capacity(160 + content.len());
    match format {
        Format::Json => {
            // Writing to a string cannot fail.
            let _ = write!(
                json,
                r#"{{"type":"message.send","message_id":"{id}","conversation_id":"{conversation}","content":"{content}"}}"#,
            );
            RawMessage::text(json)
        }
        Format::MsgPack => RawMessage::binary(packed(id, conversation, &content)),
    }
}

/// What a message with this tag says.
pub(crate) fn content(tag: Tag, bytes: usize) -> String {
    let mut content = String::with_capacity(bytes.max(64));
    let side = tag.from as u8;
    let _ = write!(
        content,
        "{:x}:{}:{side}:{}:",
        tag.run, tag.pair, tag.counter
    );
    while content.len() < bytes {
        content.push('.');
    }
    content
}

/// Whether a content is the one of this tag.
fn is_content_of(text: &str, tag: Tag) -> bool {
    let mut parts = text.split(':');
    let mut next = || parts.next().unwrap_or_default();
    u64::from_str_radix(next(), 16) == Ok(tag.run)
        && next().parse() == Ok(tag.pair)
        && next().parse() == Ok(tag.from as u8)
        && next().parse() == Ok(tag.counter)
}

/// A `message.send` in MessagePack, by hand: a map of four short names.
fn packed(id: MessageId, conversation: ConversationId, content: &str) -> Bytes {
    let mut out = Vec::with_capacity(160 + content.len());
    let put = |out: &mut Vec<u8>, text: &str| {
        match text.len() {
            length @ 0..=31 => out.push(0xa0 | length as u8),
            length @ 32..=255 => out.extend([0xd9, length as u8]),
            length => {
                out.push(0xda);
                out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        out.extend(text.as_bytes());
    };
    out.push(0x84);
    put(&mut out, "type");
    put(&mut out, "message.send");
    put(&mut out, "message_id");
    put(&mut out, &id.to_string());
    put(&mut out, "conversation_id");
    put(&mut out, &conversation.to_string());
    put(&mut out, "content");
    put(&mut out, content);
    out.into()
}

/// What is read of a message.
#[derive(Debug, Deserialize)]
pub(crate) struct LightMessage<'a> {
    pub seq: i64,
    pub conversation_id: &'a str,
    pub message_id: &'a str,
    #[serde(borrow)]
    pub content: Cow<'a, str>,
}

impl LightMessage<'_> {
    /// The message's tag, if id and content agree.
    pub(crate) fn tag(&self) -> Option<Tag> {
        Tag::of_message_id(self.message_id).filter(|tag| is_content_of(&self.content, *tag))
    }
}

/// What is read of an event: the fields that any of the interesting ones has.
#[derive(Debug, Deserialize)]
pub(crate) struct Light<'a> {
    #[serde(rename = "type")]
    pub kind: &'a str,
    #[serde(default)]
    pub seq: i64,
    #[serde(default)]
    pub message_id: Option<&'a str>,
    #[serde(borrow, default)]
    pub message: Payload<'a>,
    #[serde(borrow, default)]
    pub messages: Vec<LightMessage<'a>>,
    #[serde(default)]
    pub code: Option<&'a str>,
    /// Of `server.draining`.
    #[serde(default)]
    pub reconnect_after_ms: u64,
}

impl<'a> Light<'a> {
    /// One with nothing but its type.
    pub(crate) fn of(kind: &'a str) -> Self {
        Self {
            kind,
            seq: 0,
            message_id: None,
            message: Payload::None,
            messages: Vec::new(),
            code: None,
            reconnect_after_ms: 0,
        }
    }
}

/// `message` is a message in `message.new` and a sentence in `error`.
#[derive(Debug, Default)]
pub(crate) enum Payload<'a> {
    Message(LightMessage<'a>),
    Sentence(String),
    #[default]
    None,
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    /// By hand: serde's untagged enums would copy the whole message first.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Payload<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a message or a sentence")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Payload::Sentence(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Payload::None)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                LightMessage::deserialize(MapAccessDeserializer::new(map)).map(Payload::Message)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads a frame; `None` for pings and for what is no event.
pub(crate) fn read(frame: &RawMessage) -> Option<Light<'_>> {
    match frame {
        RawMessage::Text(text) => serde_json::from_str(text).ok(),
        RawMessage::Binary(bytes) => rmp_serde::from_slice(bytes).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::command::ClientCommand;
    use rookery_protocol::event::{ErrorEvent, MessageAck, MessageNew, ServerEvent};
    use rookery_protocol::message::{Message, MessageKind, MessageStatus};
    use rookery_protocol::{ErrorCode, Seq, Timestamp, UserId};

    use super::*;

    const TAG: Tag = Tag {
        run: 1_790_000_000_000,
        pair: 1_234,
        from: Side::B,
        counter: 567_890,
    };
    const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(9));

    fn frame(format: Format, event: &ServerEvent) -> RawMessage {
        let bytes = format.encode(event).unwrap();
        match format {
            Format::Json => RawMessage::text(String::from_utf8(bytes).unwrap()),
            Format::MsgPack => RawMessage::binary(bytes),
        }
    }

    fn sent(format: Format, bytes: usize) -> rookery_protocol::command::MessageSend {
        let frame = send(format, TAG, ROOM, bytes).into_data();
        match ClientCommand::decode(format, &frame).unwrap() {
            ClientCommand::MessageSend(send) => send,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tag_survives_its_message_id() {
        let id = TAG.message_id();
        assert_eq!(id.as_uuid().get_version_num(), 7);
        assert_eq!(Tag::of_message_id(&id.to_string()), Some(TAG));
        let largest = Tag {
            pair: (1 << 25) - 1,
            counter: (1 << COUNTER_BITS) - 1,
            ..TAG
        };
        assert_eq!(
            Tag::of_message_id(&largest.message_id().to_string()),
            Some(largest)
        );
    }

    #[test]
    fn sends_are_what_a_server_expects() {
        for format in Format::ALL {
            for bytes in [0, 120, 200, 3_000] {
                let send = sent(format, bytes);
                assert_eq!(send.message_id, TAG.message_id());
                assert_eq!(send.conversation_id, Some(ROOM));
                assert!(send.content.len() >= bytes, "{format:?} {bytes}");
                assert!(is_content_of(&send.content, TAG));
                assert!(!is_content_of(&send.content, Tag { counter: 1, ..TAG }));
            }
        }
    }

    #[test]
    fn events_are_read_lightly() {
        let message = Message {
            message_id: TAG.message_id(),
            conversation_id: ROOM,
            seq: Seq(7),
            sender_id: UserId::from_uuid(Uuid::from_u128(1)),
            kind: MessageKind::Text,
            content: sent(Format::Json, 100).content,
            metadata: None,
            created_at: Timestamp::from_millis(0),
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            mentions: Vec::new(),
            reactions: Vec::new(),
            status: None,
        };
        for format in Format::ALL {
            let new = ServerEvent::MessageNew(MessageNew {
                message: message.clone(),
            });
            let new = frame(format, &new);
            let Some(Light {
                kind: "message.new",
                message: Payload::Message(light),
                ..
            }) = read(&new)
            else {
                panic!("{format:?}")
            };
            assert_eq!((light.seq, light.tag()), (7, Some(TAG)));

            let ack = frame(
                format,
                &ServerEvent::MessageAck(MessageAck {
                    reference: None,
                    message_id: TAG.message_id(),
                    conversation_id: ROOM,
                    seq: Seq(8),
                    created_at: Timestamp::from_millis(0),
                    status: MessageStatus::Sent,
                    duplicate: false,
                }),
            );
            let ack = read(&ack).unwrap();
            assert_eq!((ack.kind, ack.seq), ("message.ack", 8));
            assert_eq!(ack.message_id.and_then(Tag::of_message_id), Some(TAG));

            let error = frame(
                format,
                &ServerEvent::Error(ErrorEvent {
                    reference: None,
                    code: ErrorCode::Conflict,
                    message: "a \"quoted\" sentence".into(),
                    retryable: false,
                    retry_after_ms: None,
                    details: Vec::new(),
                    message_id: Some(TAG.message_id()),
                }),
            );
            let error = read(&error).unwrap();
            assert_eq!(error.code, Some("CONFLICT"));
            assert!(matches!(error.message, Payload::Sentence(text) if text.contains("quoted")));
        }
        assert!(read(&RawMessage::Ping(Bytes::new())).is_none());
    }
}
