//! What each message makes, its ack and its news, written in JSON by hand: the same bytes as serde writes, for a
//! third of what serde takes. A message with something special about it is left to serde.

use serde::Serialize;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::{MessageAck, MessageNew};
use crate::Timestamp;
use crate::codec::USUAL_BYTES;
use crate::message::Plain;

/// `None`: not the usual ack.
pub(super) fn message_ack(ack: &MessageAck) -> Option<Vec<u8>> {
    // By name, so that a field that is added later cannot be forgotten.
    let MessageAck {
        reference,
        message_id,
        conversation_id,
        seq,
        created_at,
        status,
        duplicate,
    } = ack;
    let mut json = Json::new();
    json.put(r#"{"type":"message.ack","ref":"#);
    json.value(reference)?;
    json.put(r#","message_id":"#);
    json.id(message_id.as_uuid());
    json.put(r#","conversation_id":"#);
    json.id(conversation_id.as_uuid());
    json.put(r#","seq":"#);
    json.value(seq)?;
    json.put(r#","created_at":"#);
    json.time(*created_at)?;
    json.put(r#","status":"#);
    json.value(status)?;
    json.put(match duplicate {
        true => r#","duplicate":true}"#,
        false => r#","duplicate":false}"#,
    });
    Some(json.0)
}

/// `None`: not a message of text without anything special.
pub(super) fn message_new(new: &MessageNew) -> Option<Vec<u8>> {
    let Plain {
        message_id,
        conversation_id,
        seq,
        sender_id,
        content,
        created_at,
    } = new.message.plain()?;
    let mut json = Json::new();
    json.put(r#"{"type":"message.new","message":{"message_id":"#);
    json.id(message_id.as_uuid());
    json.put(r#","conversation_id":"#);
    json.id(conversation_id.as_uuid());
    json.put(r#","seq":"#);
    json.value(&seq)?;
    json.put(r#","sender_id":"#);
    json.id(sender_id.as_uuid());
    json.put(r#","kind":"text","content":"#);
    json.value(&content)?;
    json.put(r#","metadata":null,"created_at":"#);
    json.time(created_at)?;
    json.put(r#","edited_at":null,"deleted_at":null,"reply_to":null,"mentions":[],"reactions":[],"status":null}}"#);
    Some(json.0)
}

struct Json(Vec<u8>);

impl Json {
    fn new() -> Self {
        Self(Vec::with_capacity(USUAL_BYTES))
    }

    fn put(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// In quotes; nothing in it has to be escaped.
    fn quoted(&mut self, text: &[u8]) {
        self.0.push(b'"');
        self.0.extend_from_slice(text);
        self.0.push(b'"');
    }

    fn id(&mut self, id: &Uuid) {
        let mut text = [0; Hyphenated::LENGTH];
        id.as_hyphenated().encode_lower(&mut text);
        self.quoted(&text);
    }

    fn time(&mut self, time: Timestamp) -> Option<()> {
        self.quoted(&time.usual()?);
        Some(())
    }

    fn value<T: Serialize>(&mut self, value: &T) -> Option<()> {
        serde_json::to_writer(&mut self.0, value).ok()
    }
}

#[cfg(test)]
mod tests {
    use crate::event::ServerEvent;
    use crate::message::{Message, MessageKind, MessageStatus, Reaction};
    use crate::{ConversationId, Format, MessageId, Seq, UserId};

    use super::*;

    fn message(content: &str) -> Message {
        Message {
            message_id: MessageId::from_uuid(Uuid::from_u128(0xfeed_0001)),
            conversation_id: ConversationId::from_uuid(Uuid::from_u128(u128::MAX)),
            seq: Seq(7),
            sender_id: UserId::from_uuid(Uuid::from_u128(0xabcd << 99)),
            kind: MessageKind::Text,
            content: content.to_owned(),
            metadata: None,
            created_at: Timestamp::from_millis(1_790_000_000_123),
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            mentions: Vec::new(),
            reactions: Vec::new(),
            status: None,
        }
    }

    /// The event is written as serde writes it; says whether it was written by hand.
    fn is_usual(event: &ServerEvent) -> bool {
        for format in Format::ALL {
            let (written, by_serde) =
                (event.encode(format).unwrap(), format.encode(event).unwrap());
            assert_eq!(
                String::from_utf8_lossy(&written),
                String::from_utf8_lossy(&by_serde)
            );
        }
        event.by_hand().is_some()
    }

    #[test]
    fn what_is_written_by_hand_is_what_serde_writes() {
        let every_ascii: String = (0..=127_u8).map(char::from).collect();
        let odd = ["", "žluťoučký 🪺 \u{2028}", &every_ascii];
        for content in odd {
            for seq in [1, 99, i64::MAX, -1] {
                let message = Message {
                    seq: Seq(seq),
                    ..message(content)
                };
                assert!(is_usual(&ServerEvent::MessageNew(MessageNew { message })));
            }
            for (reference, status, duplicate) in [
                (None, MessageStatus::Sent, false),
                (Some(content.to_owned()), MessageStatus::Delivered, true),
                (Some("7".to_owned()), MessageStatus::Read, false),
            ] {
                assert!(is_usual(&ServerEvent::MessageAck(MessageAck {
                    reference,
                    message_id: message("").message_id,
                    conversation_id: message("").conversation_id,
                    seq: Seq(12),
                    created_at: Timestamp::from_millis(1),
                    status,
                    duplicate,
                })));
            }
        }
    }

    #[test]
    fn whatever_is_special_is_left_to_serde() {
        type Special = fn(&mut Message);
        let specials: [Special; 9] = [
            |message| message.kind = MessageKind::System,
            |message| message.metadata = Some(serde_json::Map::new()),
            |message| message.edited_at = Some(Timestamp::from_millis(5)),
            |message| message.deleted_at = Some(Timestamp::from_millis(5)),
            |message| message.reply_to = Some(Seq(1)),
            |message| message.mentions = vec![message.sender_id],
            |message| message.status = Some(MessageStatus::Sent),
            |message| message.created_at = Timestamp::from_millis(-62_200_000_000_000),
            |message| {
                message.reactions = vec![Reaction {
                    emoji: "🪺".into(),
                    user_ids: Vec::new(),
                    count: 1,
                }];
            },
        ];
        for (number, special) in specials.iter().enumerate() {
            let mut message = message("hi");
            special(&mut message);
            let event = ServerEvent::MessageNew(MessageNew { message });
            assert!(!is_usual(&event), "{number}");
        }
    }
}
