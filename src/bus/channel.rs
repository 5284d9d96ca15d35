//! Channel names; the only place that writes or reads them.
//!
//! `rookery:v1:{p}:user:<uuid>`, and the same with `conv` and `presence`: `p` is the last byte of
//! the uuid & 127 and the braces are literal, a hash tag, so that channels spread over the shards
//! of a Redis Cluster by partition.

use rookery_protocol::{ConversationId, UserId};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

const PREFIX: &str = "rookery:v1:";
const SOCKETS: &str = "sockets";
/// Of a name with a partition, whatever its kind.
pub(super) const LONGEST: usize = PREFIX.len() + "{127}:presence:".len() + Hyphenated::LENGTH;

/// Where news is published.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Everything one user's devices must hear.
    User(UserId),
    /// What all members of a large conversation must hear, once for all of them.
    Conversation(ConversationId),
    /// How a user appears, for the nodes whose sockets watch that user.
    Presence(UserId),
    /// A node's own sign of life, for itself and its neighbours.
    Node(String),
    /// What nodes ask each other of users with too many sockets. Every node hears it.
    Sockets,
}

impl Channel {
    /// The name on the bus.
    #[must_use]
    pub fn name(&self) -> String {
        let mut name = String::with_capacity(LONGEST);
        self.write_name(&mut name);
        name
    }

    /// Appends the name.
    pub(super) fn write_name(&self, name: &mut String) {
        match self {
            Self::User(id) => write_partitioned(name, id.as_uuid(), "user"),
            Self::Conversation(id) => write_partitioned(name, id.as_uuid(), "conv"),
            Self::Presence(id) => write_partitioned(name, id.as_uuid(), "presence"),
            Self::Node(id) => {
                name.push_str(PREFIX);
                name.push_str("node:");
                name.push_str(id);
            }
            Self::Sockets => {
                name.push_str(PREFIX);
                name.push_str(SOCKETS);
            }
        }
    }

    /// The channel of a name; `None` if it is none of this version.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        if let Some(node) = rest.strip_prefix("node:") {
            return Some(Self::Node(node.to_owned()));
        }
        if rest == SOCKETS {
            return Some(Self::Sockets);
        }
        let (_, rest) = rest.split_once(':')?;
        let (kind, id) = rest.split_once(':')?;
        match kind {
            "user" => id.parse().ok().map(Self::User),
            "conv" => id.parse().ok().map(Self::Conversation),
            "presence" => id.parse().ok().map(Self::Presence),
            _ => None,
        }
    }
}

/// Written piece by piece: this is done for every publication, and the machinery of `format!` takes
/// as long as the rest of it.
fn write_partitioned(name: &mut String, id: &Uuid, kind: &str) {
    let partition = id.as_bytes()[15] & 127;
    name.push_str(PREFIX);
    name.push('{');
    for (place, at_least) in [(100, 100), (10, 10), (1, 0)] {
        if partition >= at_least {
            name.push(char::from(b'0' + partition / place % 10));
        }
    }
    name.push_str("}:");
    name.push_str(kind);
    name.push(':');
    name.push_str(id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_a_partition_and_come_back_equal() {
        let user = UserId::from_uuid(Uuid::from_u128(0xff));
        let channel = Channel::User(user);
        assert_eq!(
            channel.name(),
            "rookery:v1:{127}:user:00000000-0000-0000-0000-0000000000ff"
        );
        assert_eq!(Channel::parse(&channel.name()), Some(channel));
        let conversation = Channel::Conversation(ConversationId::from_uuid(Uuid::from_u128(1)));
        assert!(conversation.name().starts_with("rookery:v1:{1}:conv:"));
        assert_eq!(Channel::parse(&conversation.name()), Some(conversation));
        let presence = Channel::Presence(user);
        assert_eq!(Channel::parse(&presence.name()), Some(presence));
        let node = Channel::Node("a:b".into());
        assert_eq!(Channel::parse(&node.name()), Some(node));
        assert_eq!(Channel::Sockets.name(), "rookery:v1:sockets");
        assert_eq!(Channel::parse("rookery:v1:sockets"), Some(Channel::Sockets));
        assert_eq!(Channel::parse("other"), None);
        for last in 0..=u8::MAX {
            let name = Channel::User(UserId::from_uuid(Uuid::from_u128(last.into()))).name();
            let partition = format!("rookery:v1:{{{}}}:user:", last & 127);
            assert!(name.starts_with(&partition), "{name}");
        }
    }
}
