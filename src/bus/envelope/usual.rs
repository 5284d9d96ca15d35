//! The usual envelope: a message of text with nothing special about it. It is written as serde writes it and
//! read in the shape in which it was written, for little more than a third of what serde takes. A field more, less
//! or elsewhere is left to serde, so this knows nothing that serde does not.

use rookery_protocol::message::{Message, MessageKind, Plain};
use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::{BusEvent, Envelope, KEY_MARK, USUAL_BYTES, VERSION};

/// `None`: not the usual envelope.
pub(super) fn write(envelope: &Envelope) -> Option<Vec<u8>> {
    // By name, so that a field that is added later cannot be forgotten.
    let Envelope {
        key,
        v: VERSION,
        origin,
        skip,
        at,
        members,
        event: BusEvent::Entry { message },
    } = envelope
    else {
        return None;
    };
    let Plain {
        message_id,
        conversation_id,
        seq,
        sender_id,
        content,
        created_at,
    } = message.plain()?;
    let mut packed = Packed(Vec::with_capacity(USUAL_BYTES));
    packed.put(if skip.is_some() { b"\x87" } else { b"\x86" });
    packed.put(KEY_MARK);
    packed.put(key);
    packed.put(&[0xa1, b'v', VERSION]);
    packed.put(b"\xa6origin");
    packed.text(origin)?;
    if let Some(skip) = skip {
        packed.put(b"\xa4skip");
        packed.integer(*skip);
    }
    packed.put(b"\xa2at");
    packed.time(*at)?;
    packed.put(b"\xa7members");
    packed.integer(u64::try_from(*members).ok()?);
    packed.put(b"\xa5event\x81\xa5entry\x81\xa7message\x89\xaamessage_id");
    packed.uuid(message_id.as_uuid());
    packed.put(b"\xafconversation_id");
    packed.uuid(conversation_id.as_uuid());
    packed.put(b"\xa3seq");
    packed.integer(u64::try_from(seq.0).ok()?);
    packed.put(b"\xa9sender_id");
    packed.uuid(sender_id.as_uuid());
    packed.put(b"\xa4kind\xa4text\xa7content");
    packed.text(content)?;
    packed.put(b"\xaacreated_at");
    packed.time(created_at)?;
    packed.put(b"\xa8mentions\x90\xa9reactions\x90");
    Some(packed.0)
}

/// MessagePack, in the shortest form of each value.
struct Packed(Vec<u8>);

impl Packed {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn integer(&mut self, value: u64) {
        if let Ok(value) = u8::try_from(value) {
            if value > 0x7f {
                self.0.push(0xcc);
            }
            self.0.push(value);
        } else if let Ok(value) = u16::try_from(value) {
            self.0.push(0xcd);
            self.put(&value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.0.push(0xce);
            self.put(&value.to_be_bytes());
        } else {
            self.0.push(0xcf);
            self.put(&value.to_be_bytes());
        }
    }

    fn text(&mut self, text: &str) -> Option<()> {
        if let Ok(length) = u8::try_from(text.len()) {
            match length {
                0..=31 => self.0.push(0xa0 | length),
                _ => self.put(&[0xd9, length]),
            }
        } else {
            let length = u16::try_from(text.len()).ok()?;
            self.0.push(0xda);
            self.put(&length.to_be_bytes());
        }
        self.put(text.as_bytes());
        Some(())
    }

    fn uuid(&mut self, id: &Uuid) {
        let mut text = [0; Hyphenated::LENGTH];
        id.as_hyphenated().encode_lower(&mut text);
        self.put(&[0xd9, Hyphenated::LENGTH as u8]);
        self.put(&text);
    }

    fn time(&mut self, time: Timestamp) -> Option<()> {
        self.0.push(0xb8);
        self.put(&time.usual()?);
        Some(())
    }
}

/// `None`: not the usual envelope, or none at all.
pub(super) fn read(bytes: &[u8]) -> Option<Envelope> {
    let mut rest = Rest(bytes);
    let has_skip = match rest.byte()? {
        0x86 => false,
        0x87 => true,
        _ => return None,
    };
    rest.literal(KEY_MARK)?;
    let key = rest.chunk()?;
    rest.literal(&[0xa1, b'v', VERSION])?;
    rest.literal(b"\xa6origin")?;
    let origin = rest.text()?.to_owned();
    let skip = if has_skip {
        rest.literal(b"\xa4skip")?;
        Some(u64::try_from(rest.integer()?).ok()?)
    } else {
        None
    };
    rest.literal(b"\xa2at")?;
    let at = rest.time()?;
    rest.literal(b"\xa7members")?;
    let members = rest.integer()?;
    rest.literal(b"\xa5event\x81\xa5entry\x81\xa7message")?;
    let message = rest.message()?;
    rest.0.is_empty().then_some(Envelope {
        key,
        v: VERSION,
        origin,
        skip,
        at,
        members,
        event: BusEvent::Entry { message },
    })
}

/// What is still to be read: MessagePack.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Of nine fields: none of those that `sparse_message` leaves out.
    fn message(&mut self) -> Option<Message> {
        self.literal(b"\x89\xaamessage_id")?;
        let message_id = MessageId::from_uuid(self.uuid()?);
        self.literal(b"\xafconversation_id")?;
        let conversation_id = ConversationId::from_uuid(self.uuid()?);
        self.literal(b"\xa3seq")?;
        let seq = Seq(self.integer()?);
        self.literal(b"\xa9sender_id")?;
        let sender_id = UserId::from_uuid(self.uuid()?);
        self.literal(b"\xa4kind\xa4text\xa7content")?;
        let content = self.text()?.to_owned();
        self.literal(b"\xaacreated_at")?;
        let created_at = self.time()?;
        self.literal(b"\xa8mentions\x90\xa9reactions\x90")?;
        Some(Message {
            message_id,
            conversation_id,
            seq,
            sender_id,
            kind: MessageKind::Text,
            content,
            metadata: None,
            created_at,
            edited_at: None,
            deleted_at: None,
            reply_to: None,
            mentions: Vec::new(),
            reactions: Vec::new(),
            status: None,
        })
    }

    fn literal(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_be_bytes)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// Not negative.
    fn integer(&mut self) -> Option<i64> {
        match self.byte()? {
            small @ 0..=0x7f => Some(small.into()),
            0xcc => self.chunk().map(u8::from_be_bytes).map(i64::from),
            0xcd => self.chunk().map(u16::from_be_bytes).map(i64::from),
            0xce => self.chunk().map(u32::from_be_bytes).map(i64::from),
            0xcf => self.chunk().map(u64::from_be_bytes)?.try_into().ok(),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = match self.byte()? {
            short @ 0xa0..=0xbf => (short & 0x1f).into(),
            0xd9 => self.byte()?.into(),
            0xda => self.chunk().map(u16::from_be_bytes)?.into(),
            _ => return None,
        };
        str::from_utf8(self.bytes(length)?).ok()
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.literal(&[0xd9, Hyphenated::LENGTH as u8])?;
        Uuid::try_parse_ascii(self.bytes(Hyphenated::LENGTH)?).ok()
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.literal(&[0xb8])?;
        Timestamp::of_usual(self.bytes(24)?)
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::message::{MessageStatus, Reaction};

    use super::*;

    fn envelope(content: &str) -> Envelope {
        let message = Message {
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
        };
        Envelope {
            key: [7; 16],
            v: VERSION,
            origin: "node-1".into(),
            skip: None,
            at: Timestamp::from_millis(1_790_000_000_456),
            members: 3,
            event: BusEvent::Entry { message },
        }
    }

    fn message(envelope: &mut Envelope) -> &mut Message {
        match &mut envelope.event {
            BusEvent::Entry { message } => message,
            other => panic!("{other:?}"),
        }
    }

    /// Every field of it.
    fn all_of(envelope: &Envelope) -> String {
        format!("{envelope:?}")
    }

    #[test]
    fn the_usual_is_read_as_it_was_written() {
        let lengths = [0, 1, 31, 32, 255, 256, 4_000, 65_535];
        let contents = lengths.map(|length| "x".repeat(length));
        let odd = "\u{0} \" \\ \n žluťoučký 🪺".to_owned();
        for content in contents.iter().chain([&odd]) {
            for number in [0, 1, 127, 128, 255, 256, 65_536, 1 << 40, i64::MAX] {
                let mut envelope = envelope(content);
                message(&mut envelope).seq = Seq(number);
                envelope.members = number;
                for skip in [None, Some(number.unsigned_abs())] {
                    envelope.skip = skip;
                    let bytes = write(&envelope).expect("the usual");
                    assert_eq!(bytes, rmp_serde::to_vec_named(&envelope).unwrap());
                    let back = read(&bytes).expect("the usual");
                    assert_eq!(all_of(&back), all_of(&envelope));
                }
            }
        }
    }

    #[test]
    fn whatever_is_special_is_left_to_serde() {
        type Special = fn(&mut Message);
        let specials: [Special; 11] = [
            |message| message.kind = MessageKind::System,
            |message| message.content = "x".repeat(65_536),
            |message| message.metadata = Some(serde_json::Map::new()),
            |message| message.edited_at = Some(Timestamp::from_millis(5)),
            |message| message.deleted_at = Some(Timestamp::from_millis(5)),
            |message| message.reply_to = Some(Seq(1)),
            |message| message.mentions = vec![message.sender_id],
            |message| message.status = Some(MessageStatus::Sent),
            |message| message.created_at = Timestamp::from_millis(-62_200_000_000_000),
            |message| message.seq = Seq(-1),
            |message| {
                message.reactions = vec![Reaction {
                    emoji: "🪺".into(),
                    user_ids: Vec::new(),
                    count: 1,
                }];
            },
        ];
        for (number, special) in specials.iter().enumerate() {
            let mut envelope = envelope("hi");
            special(message(&mut envelope));
            assert!(write(&envelope).is_none(), "{number}");
            let bytes = envelope.encode().unwrap();
            assert!(read(&bytes).is_none(), "{number}");
            let back = Envelope::decode(&bytes).unwrap();
            assert_eq!(all_of(&back), all_of(&envelope), "{number}");
        }
        let other = Envelope {
            event: BusEvent::Canary { count: 1 },
            ..envelope("hi")
        };
        assert!(write(&other).is_none());
        assert!(read(&other.encode().unwrap()).is_none());
    }

    /// Any byte is changed to any other, and any end cut off: nothing is read that serde does not read, nor
    /// otherwise.
    #[test]
    fn nothing_is_read_that_serde_reads_otherwise() {
        let mut usual = envelope("hi, ů");
        usual.skip = Some(300);
        let bytes = usual.encode().unwrap().to_vec();
        let mut read_all_the_same = 0;
        for place in 0..bytes.len() {
            assert!(read(&bytes[..place]).is_none(), "cut off at {place}");
            for value in 0..=255 {
                let mut bytes = bytes.clone();
                bytes[place] = value;
                let Some(read) = read(&bytes) else { continue };
                let by_serde = Envelope::decode_any(&bytes).expect("what is read is an envelope");
                assert_eq!(all_of(&read), all_of(&by_serde), "{value} at {place}");
                read_all_the_same += 1;
            }
        }
        assert!(read_all_the_same > 1_000, "{read_all_the_same}");
        let longer = [&bytes[..], &[0]].concat();
        assert!(read(&longer).is_none(), "something follows");
    }
}
