//! A frame that says its `type` before anything else, as all clients of ours do, is read in one pass. Any other,
//! and any that is wrong, is read again in two, which says what is the matter with it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{CowStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// An enum of frames, whose variants are told apart by `type`.
pub(crate) trait Frame: Sized {
    /// Reads what follows the `type`.
    fn read<'de, D: Deserializer<'de>>(kind: &str, rest: D) -> Result<Self, D::Error>;
}

/// Reads a frame whose first field is `type`.
pub(crate) struct TypeFirst<F>(pub(crate) F);

impl<'de, F: Frame> Deserialize<'de> for TypeFirst<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_map(Reader(PhantomData))
            .map(TypeFirst)
    }
}

struct Reader<F>(PhantomData<F>);

impl<'de, F: Frame> Visitor<'de> for Reader<F> {
    type Value = F;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a map whose first field is `type`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<F, A::Error> {
        match map.next_key()? {
            Some(Text(name)) if name == "type" => {}
            _ => return Err(A::Error::custom("`type` is not the first field")),
        }
        let Text(kind) = map.next_value()?;
        F::read(&kind, MapAccessDeserializer::new(Rest(map)))
    }
}

/// Borrowed where the frame has it without escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields behind the `type`, which does not come again.
struct Rest<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(OtherThanType(seed))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

struct OtherThanType<K>(K);

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for OtherThanType<K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        let Text(name) = Text::deserialize(deserializer)?;
        if name == "type" {
            return Err(D::Error::duplicate_field("type"));
        }
        self.0.deserialize(CowStrDeserializer::new(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use crate::codec::decode_type_first;
    use crate::command::ClientCommand;
    use crate::{ErrorCode, Format};

    const ID: &str = "00000000-0000-0000-0000-000000000007";

    fn in_one_pass(format: Format, bytes: &[u8]) -> Option<ClientCommand> {
        decode_type_first(format, bytes)
    }

    /// A frame of each kind of field, with its `type` in front.
    fn frames() -> Vec<Value> {
        vec![
            json!({"type": "ping"}),
            json!({"type": "ping", "ref": "7", "what": {"type": ["not", "known"]}}),
            json!({"type": "message.send", "message_id": ID, "content": "a \"quote\", ů", "recipient_id": ID,
                "metadata": {"type": "inner"}, "reply_to": 3}),
            json!({"type": "sync", "cursors": {ID: 5}, "since": "2026-01-01T00:00:00.000Z"}),
            json!({"type": "presence.subscribe", "user_ids": [ID, ID]}),
            json!({"type": "message.read", "conversation_id": ID, "seq": i64::MAX}),
            json!({"type": "typing", "conversation_id": ID, "active": true}),
            json!({"type": "presence.set", "status": "dnd"}),
        ]
    }

    /// The fields in this order, whatever order a `Value` would have.
    fn written(format: Format, fields: &[(&str, &Value)]) -> Vec<u8> {
        match format {
            Format::Json => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| format!("\"{name}\": {value}"));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(", ")).into_bytes()
            }
            Format::MsgPack => {
                let mut bytes = vec![0x80 | u8::try_from(fields.len()).unwrap()];
                for (name, value) in fields {
                    bytes.extend(rmp_serde::to_vec_named(name).unwrap());
                    bytes.extend(rmp_serde::to_vec_named(value).unwrap());
                }
                bytes
            }
        }
    }

    fn fields(frame: &Value) -> (Value, Map<String, Value>) {
        let mut rest = frame.as_object().unwrap().clone();
        let kind = rest.remove("type").unwrap();
        (kind, rest)
    }

    #[test]
    fn where_the_type_stands_makes_no_difference() {
        for format in Format::ALL {
            for frame in frames() {
                let (kind, rest) = fields(&frame);
                let rest: Vec<_> = rest
                    .iter()
                    .map(|(name, value)| (name.as_str(), value))
                    .collect();
                let first = [&[("type", &kind)], &rest[..]].concat();
                let last = [&rest[..], &[("type", &kind)]].concat();
                let (first, last) = (written(format, &first), written(format, &last));

                let by_one = in_one_pass(format, &first).expect("the type is first");
                let by_two = ClientCommand::decode(format, &last).unwrap();
                assert_eq!(format!("{by_one:?}"), format!("{by_two:?}"));
                assert_eq!(
                    in_one_pass(format, &last).is_some(),
                    rest.is_empty(),
                    "{frame}"
                );
            }
        }
    }

    /// Reads in two passes whatever one pass reads, and the same from it. Says whether one did.
    fn as_two_passes_read(format: Format, bytes: &[u8]) -> bool {
        let Some(by_one) = in_one_pass(format, bytes) else {
            return false;
        };
        let by_two = ClientCommand::decode_in_two(format, bytes).expect("what one pass reads");
        assert_eq!(format!("{by_one:?}"), format!("{by_two:?}"));
        true
    }

    /// Any byte is changed to any other.
    #[test]
    fn one_pass_reads_nothing_that_two_do_not() {
        for format in Format::ALL {
            let mut read = 0;
            for frame in frames() {
                let (kind, rest) = fields(&frame);
                let rest = rest.iter().map(|(name, value)| (name.as_str(), value));
                let fields: Vec<_> = std::iter::once(("type", &kind)).chain(rest).collect();
                let usual = written(format, &fields);
                for place in 0..usual.len() {
                    for value in 0..=255 {
                        let mut bytes = usual.clone();
                        bytes[place] = value;
                        read += usize::from(as_two_passes_read(format, &bytes));
                    }
                }
            }
            assert!(read > 10_000, "{read}");
        }
    }

    #[test]
    fn keys_of_other_kinds_are_read_alike() {
        let ping = b"\xa4type\xa4ping";
        let keys: [(&[u8], bool); 5] = [
            (b"\xc4\x03ref", true),
            (b"\xc4\x04type", false),
            (b"\x00", false),
            (b"\xc0", false),
            (b"\xa1\xff", false),
        ];
        for (key, is_read) in keys {
            let bytes = [b"\x82", &ping[..], key, b"\xa1x"].concat();
            assert_eq!(
                as_two_passes_read(Format::MsgPack, &bytes),
                is_read,
                "{key:x?}"
            );
        }
        let by_number = b"\x81\x00\xa4ping";
        assert!(!as_two_passes_read(Format::MsgPack, by_number));
    }

    #[test]
    fn what_two_passes_refuse_one_does_not_read() {
        let refused = [
            r#"{"type":"ping","type":"ping"}"#,
            r#"{"type":"ping","ref":"1","ty\u0070e":"sync"}"#,
            r#"{"type":{"ping":null}}"#,
            r#"{"type":["ping"]}"#,
            r#"{"type":null}"#,
            r#"{"type":"ping"} {}"#,
            r#"{"type":"ping""#,
            r#"["ping"]"#,
            r#"{}"#,
        ];
        for text in refused {
            assert!(
                in_one_pass(Format::Json, text.as_bytes()).is_none(),
                "{text}"
            );
            let error = ClientCommand::decode(Format::Json, text.as_bytes()).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadFrame, "{text}");
        }
        let ping = json!("ping");
        let twice = written(Format::MsgPack, &[("type", &ping), ("type", &ping)]);
        assert!(in_one_pass(Format::MsgPack, &twice).is_none());
        let error = ClientCommand::decode(Format::MsgPack, &twice).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadFrame);
    }
}
