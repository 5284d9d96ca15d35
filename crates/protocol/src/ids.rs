//! Identifiers. On the wire every id is a hyphenated lower-case UUID string, in JSON and in
//! MessagePack alike, so that JavaScript clients need no binary handling.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that is known to name one of these.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }

            /// The 16 bytes in network order, as stored and hashed.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
                serializer.serialize_str(self.0.as_hyphenated().encode_lower(&mut buffer))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(UuidVisitor).map(Self)
            }
        }
    };
}

struct UuidVisitor;

impl Visitor<'_> for UuidVisitor {
    type Value = Uuid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Uuid, E> {
        Uuid::try_parse(text)
            .map_err(|_| E::invalid_value(de::Unexpected::Other("other text"), &self))
    }
}

id_type!(
    /// A person's account. UUIDv7, made by the server.
    UserId
);
id_type!(
    /// A conversation. UUIDv7 for groups (made by the server or, for a repeatable creation, by the
    /// client); derived from its two users for direct conversations, see [`ConversationId::direct`].
    ConversationId
);
id_type!(
    /// A message as its sender named it. Made by the client; the key that makes sending repeatable.
    MessageId
);
id_type!(
    /// A log-in on one device: the family of refresh tokens that came from it.
    SessionId
);

/// Namespace of derived ids of direct conversations. Never changes: stored ids depend on it.
const DIRECT_NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_0c9e_52aa_5a1b_9d3e_7a40_c8e2_11d7);

impl ConversationId {
    /// The direct conversation of two users: a UUIDv5 of both ids, the smaller first, so that either
    /// side names the same conversation without a look-up and it can be made only once.
    #[must_use]
    pub fn direct(one: UserId, other: UserId) -> Self {
        let (first, second) = if one <= other {
            (one, other)
        } else {
            (other, one)
        };
        let mut name = [0; 32];
        name[..16].copy_from_slice(first.as_bytes());
        name[16..].copy_from_slice(second.as_bytes());
        Self(Uuid::new_v5(&DIRECT_NAMESPACE, &name))
    }
}

/// An entry's place in its conversation's log: 1, 2, 3 … without holes, assigned in commit order.
/// As a cursor, 0 means "nothing yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
#[serde(transparent)]
pub struct Seq(pub i64);

impl Seq {
    /// The cursor of someone who has nothing yet.
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0 - 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_conversation_has_one_id_from_both_sides() {
        let one = UserId::from_uuid(Uuid::from_u128(1));
        let other = UserId::from_uuid(Uuid::from_u128(2));
        assert_eq!(
            ConversationId::direct(one, other),
            ConversationId::direct(other, one)
        );
        assert_ne!(
            ConversationId::direct(one, other),
            ConversationId::direct(one, one)
        );
    }

    #[test]
    fn ids_are_strings_in_both_formats() {
        let id = MessageId::from_uuid(Uuid::from_u128(7));
        let text = "00000000-0000-0000-0000-000000000007";
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        let packed = rmp_serde::to_vec_named(&id).unwrap();
        assert_eq!(rmp_serde::from_slice::<String>(&packed).unwrap(), text);
        assert_eq!(rmp_serde::from_slice::<MessageId>(&packed).unwrap(), id);
        assert!(serde_json::from_str::<MessageId>("\"nonsense\"").is_err());
    }
}
