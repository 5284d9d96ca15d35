//! Frames to bytes and back, in both subprotocols.
//!
//! A frame that begins with its `type` is read in one pass (`type_first.rs`). Any other, and any that is
//! wrong, goes in two steps: the frame's `type`, then that type's own struct. Failing either step yields
//! a [`DecodeError`] that names the field; the cost of finding the name is paid only by bad frames.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::ErrorDetail;
use crate::{ErrorCode, limits};

mod type_first;
pub(crate) use type_first::Frame;
use type_first::TypeFirst;

/// How frames are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `rookery.v1.json`: text frames.
    #[default]
    Json,
    /// `rookery.v1.msgpack`: binary frames, maps with named fields.
    MsgPack,
}

/// Holds the event of a message of a line or two, so that most frames are written without moving.
pub(crate) const USUAL_BYTES: usize = 640;

impl Format {
    pub const ALL: [Self; 2] = [Self::Json, Self::MsgPack];

    /// The WebSocket subprotocol's name.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "rookery.v1.json",
            Self::MsgPack => "rookery.v1.msgpack",
        }
    }

    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.subprotocol() == name)
    }

    /// Encodes any wire type.
    ///
    /// # Errors
    /// None for the types of this crate: all of them are maps with string keys.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        match self {
            Self::Json => serde_json::to_writer(&mut bytes, value)
                .map_err(|error| EncodeError(error.to_string()))?,
            Self::MsgPack => rmp_serde::encode::write_named(&mut bytes, value)
                .map_err(|error| EncodeError(error.to_string()))?,
        }
        Ok(bytes)
    }

    fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        self.read(bytes).ok_or_else(|| self.explain::<T>(bytes))
    }

    fn read<'a, T: Deserialize<'a>>(self, bytes: &'a [u8]) -> Option<T> {
        match self {
            Self::Json => serde_json::from_slice(bytes).ok(),
            Self::MsgPack => T::deserialize(&mut msgpack(bytes)).ok(),
        }
    }

    /// Whether this could be a map. Serde would also take a list, and its items for the fields.
    fn starts_as_map(self, bytes: &[u8]) -> bool {
        match self {
            Self::Json => bytes.trim_ascii_start().starts_with(b"{"),
            Self::MsgPack => matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf)),
        }
    }

    /// Decodes once more, slowly, to say which field was wrong.
    fn explain<T: DeserializeOwned>(self, bytes: &[u8]) -> DecodeError {
        let (path, message) = match self {
            Self::Json => {
                let mut deserializer = serde_json::Deserializer::from_slice(bytes);
                match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
                    Err(e) => (e.path().to_string(), e.inner().to_string()),
                    Ok(_) => (".".to_owned(), "trailing characters".to_owned()),
                }
            }
            Self::MsgPack => {
                let mut deserializer = msgpack(bytes);
                match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
                    Err(e) => (e.path().to_string(), e.inner().to_string()),
                    Ok(_) => (".".to_owned(), "trailing bytes".to_owned()),
                }
            }
        };
        let detail = detail_of(&path, &message);
        DecodeError::new(
            ErrorCode::Invalid,
            "a field is missing or not allowed",
            vec![detail],
        )
    }
}

/// rmp-serde goes 1,024 levels down by itself, for which a thread's stack may not do; serde_json
/// stops at 128. No frame of ours has more than a handful.
const MSGPACK_DEPTH: usize = 64;

fn msgpack(bytes: &[u8]) -> rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'_, [u8]>> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(MSGPACK_DEPTH);
    deserializer
}

/// A value could not be written as a frame.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode: {0}")]
pub struct EncodeError(String);

/// Why a frame was refused, ready to become an `error` event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    pub code: ErrorCode,
    pub message: String,
    pub details: Vec<ErrorDetail>,
    /// The frame's `ref`, where it could be read.
    pub reference: Option<String>,
}

impl DecodeError {
    fn new(code: ErrorCode, message: &str, details: Vec<ErrorDetail>) -> Self {
        Self {
            code,
            message: message.to_owned(),
            details,
            reference: None,
        }
    }
}

/// Longest field name and reason in an error, in characters.
const DETAIL_CHARS: usize = 120;

/// Turns serde's words into a field, a reason and what is allowed. Also used for REST bodies.
#[must_use]
pub fn detail_of(path: &str, message: &str) -> ErrorDetail {
    // Both may quote the sender at any length.
    let path: &str = &path.chars().take(DETAIL_CHARS).collect::<String>();
    let message = message.split(" at line ").next().unwrap_or(message);
    if let Some(rest) = message.strip_prefix("missing field `") {
        let name = rest.trim_end_matches('`');
        let field = if path == "." {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        return ErrorDetail {
            field,
            reason: "is missing".into(),
            allowed: None,
        };
    }
    let (reason, allowed) = match message.split_once(", expected ") {
        Some((reason, allowed)) => (reason, Some(allowed.to_owned())),
        None => (message, None),
    };
    let reason: String = reason.chars().take(DETAIL_CHARS).collect();
    ErrorDetail {
        field: path.to_owned(),
        reason,
        allowed,
    }
}

/// The part of every frame that is read first.
#[derive(Deserialize)]
pub(crate) struct Head<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
}

/// The part of a refused frame that lets its error find its request.
#[derive(Deserialize)]
struct RefOnly {
    #[serde(rename = "ref", default)]
    reference: Option<String>,
}

/// Reads a frame whose first field is its `type`. `None`: it is not, or something is wrong.
pub(crate) fn decode_type_first<F: Frame>(format: Format, bytes: &[u8]) -> Option<F> {
    let TypeFirst(frame) = format.read(bytes)?;
    Some(frame)
}

pub(crate) fn decode_head(format: Format, bytes: &[u8]) -> Result<Head<'_>, DecodeError> {
    let head = if format.starts_as_map(bytes) {
        format.read(bytes)
    } else {
        None
    };
    head.ok_or_else(|| {
        let allowed = format!("a {} map with a `type`", format.subprotocol());
        let detail = ErrorDetail::new("type", "not a frame of this subprotocol", &allowed);
        DecodeError::new(
            ErrorCode::BadFrame,
            "the frame cannot be read",
            vec![detail],
        )
    })
}

pub(crate) fn decode_body<T: DeserializeOwned>(
    format: Format,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    format.decode(bytes).map_err(|mut error: DecodeError| {
        error.reference = reference_of(format, bytes);
        error
    })
}

pub(crate) fn unknown_type(format: Format, bytes: &[u8], kind: &str) -> DecodeError {
    let shown: String = kind.chars().take(40).collect();
    let mut error = DecodeError::new(
        ErrorCode::UnknownType,
        &format!("there is no type \"{shown}\""),
        vec![ErrorDetail {
            field: "type".into(),
            reason: "unknown".into(),
            allowed: None,
        }],
    );
    error.reference = reference_of(format, bytes);
    error
}

fn reference_of(format: Format, bytes: &[u8]) -> Option<String> {
    let only: Option<RefOnly> = format.read(bytes);
    only?
        .reference
        .filter(|reference| reference.len() <= limits::REF_BYTES)
}

/// Declares an enum of frames: its variants, their `type` on the wire, and decoding by type.
macro_rules! frames {
    ($(#[$doc:meta])* pub enum $name:ident { $($tag:literal => $variant:ident($body:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, serde::Serialize)]
        #[serde(tag = "type")]
        pub enum $name {
            $(#[serde(rename = $tag)] $variant($body),)*
        }

        impl $crate::codec::Frame for $name {
            fn read<'de, D: serde::Deserializer<'de>>(
                kind: &str,
                rest: D,
            ) -> Result<Self, D::Error> {
                match kind {
                    $($tag => <$body as serde::Deserialize>::deserialize(rest).map(Self::$variant),)*
                    _ => Err(serde::de::Error::custom("unknown type")),
                }
            }
        }

        impl $name {
            /// Every `type` of this enum.
            pub const TYPES: &'static [&'static str] = &[$($tag),*];

            /// The frame's `type` on the wire.
            #[must_use]
            pub const fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $tag,)* }
            }

            /// Decodes one frame.
            ///
            /// # Errors
            /// `BAD_FRAME`, `UNKNOWN_TYPE` or `INVALID`, with the field concerned.
            pub fn decode(
                format: $crate::Format,
                bytes: &[u8],
            ) -> Result<Self, $crate::codec::DecodeError> {
                match $crate::codec::decode_type_first(format, bytes) {
                    Some(frame) => Ok(frame),
                    None => Self::decode_in_two(format, bytes),
                }
            }

            /// The `type` wherever it stands, then the rest.
            pub(crate) fn decode_in_two(
                format: $crate::Format,
                bytes: &[u8],
            ) -> Result<Self, $crate::codec::DecodeError> {
                let head = $crate::codec::decode_head(format, bytes)?;
                match head.kind.as_ref() {
                    $($tag => $crate::codec::decode_body(format, bytes).map(Self::$variant),)*
                    other => Err($crate::codec::unknown_type(format, bytes, other)),
                }
            }
        }
    };
}
pub(crate) use frames;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{ClientCommand, Ping};
    use crate::event::{Reply, ServerEvent};

    #[test]
    fn frames_come_back_equal_in_both_formats() {
        for format in Format::ALL {
            let ping = ClientCommand::Ping(Ping {
                reference: Some("7".into()),
            });
            let bytes = format.encode(&ping).unwrap();
            let back = ClientCommand::decode(format, &bytes).unwrap();
            assert_eq!(back.reference(), Some("7"));
            let pong = ServerEvent::Pong(Reply { reference: None });
            let bytes = format.encode(&pong).unwrap();
            assert_eq!(
                ServerEvent::decode(format, &bytes).unwrap().type_name(),
                "pong"
            );
        }
    }

    #[test]
    fn nesting_exhausts_no_stack() {
        let nested = |levels: usize| {
            let fields = [&[0x82, 0xa4][..], b"type", &[0xa4], b"ping", &[0xa1, b'x']].concat();
            let bytes = [fields, vec![0x91; levels], vec![0xc0]].concat();
            ClientCommand::decode(Format::MsgPack, &bytes)
        };
        assert!(nested(20).is_ok());
        for levels in [100, 1_000, 60_000] {
            assert_eq!(nested(levels).unwrap_err().code, ErrorCode::BadFrame);
        }
    }

    #[test]
    fn a_refused_field_is_named() {
        let decode = |text: &str| ClientCommand::decode(Format::Json, text.as_bytes()).unwrap_err();
        let missing = decode(r#"{"type":"message.send","ref":"a","content":"x"}"#);
        assert_eq!(missing.code, ErrorCode::Invalid);
        assert_eq!(missing.details[0].field, "message_id");
        assert_eq!(missing.reference.as_deref(), Some("a"));
        let wrong = decode(r#"{"type":"sync","cursors":{"x":1}}"#);
        assert!(wrong.details[0].field.starts_with("cursors"), "{wrong:?}");
        let id = "00000000-0000-0000-0000-000000000007";
        let wrong = decode(&format!(
            r#"{{"type":"message.send","message_id":"{id}","content":5}}"#
        ));
        assert_eq!(wrong.details[0].field, "content");
        assert_eq!(wrong.details[0].allowed.as_deref(), Some("a string"));
        assert_eq!(decode("[]").code, ErrorCode::BadFrame);
        assert_eq!(
            decode("[\"ping\"]").code,
            ErrorCode::BadFrame,
            "fields have names"
        );
        assert_eq!(decode("{\"type\":\"dance\"}").code, ErrorCode::UnknownType);
        assert_eq!(decode("\u{0}").code, ErrorCode::BadFrame);
    }
}
