//! Rookery's events in MessagePack, without parsing them.

/// The first `seq` of an event of this type. Events are maps of names, and their type is the first.
pub(super) fn seq_of(frame: &[u8], kind: &str) -> Option<i64> {
    const TYPE: &[u8] = b"\xa4type";
    const NAME: &[u8] = b"\xa3seq";
    let (map, rest) = frame.split_first()?;
    // Of up to 15 entries, all that events have.
    (map & 0xf0 == 0x80).then_some(())?;
    let (length, rest) = rest.strip_prefix(TYPE)?.split_first()?;
    (usize::from(*length) == 0xa0 | kind.len()).then_some(())?;
    let rest = rest.strip_prefix(kind.as_bytes())?;
    let at = rest.windows(NAME.len()).position(|part| part == NAME)?;
    number(&rest[at + NAME.len()..])
}

/// An integer that is not negative.
fn number(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    let length = match first {
        0..=0x7f => return Some(i64::from(*first)),
        0xcc | 0xd0 => 1,
        0xcd | 0xd1 => 2,
        0xce | 0xd2 => 4,
        0xcf | 0xd3 => 8,
        _ => return None,
    };
    let digits = rest.get(..length)?.iter();
    i64::try_from(digits.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).ok()
}

#[cfg(test)]
mod tests {
    use rookery_protocol::event::{MessageAck, ServerEvent};
    use rookery_protocol::message::MessageStatus;
    use rookery_protocol::{ConversationId, Format, MessageId, Seq, Timestamp};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_place_of_a_message_is_found_without_parsing() {
        for place in [1, 127, 128, 255, 256, 65_536, 1 << 40] {
            let ack = ServerEvent::MessageAck(MessageAck {
                reference: None,
                message_id: MessageId::from_uuid(Uuid::from_u128(1)),
                conversation_id: ConversationId::from_uuid(Uuid::from_u128(2)),
                seq: Seq(place),
                created_at: Timestamp::from_millis(0),
                status: MessageStatus::Sent,
                duplicate: false,
            });
            let frame = Format::MsgPack.encode(&ack).unwrap();
            assert_eq!(seq_of(&frame, "message.ack"), Some(place));
            assert_eq!(seq_of(&frame, "message.new"), None);
        }
        assert_eq!(seq_of(b"", "message.ack"), None);
    }
}
