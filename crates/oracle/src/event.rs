//! The history: what a device did and saw, a JSON line each.
//!
//! A line is `{"t":…,"d":…,"e":{"<kind>":{…}}}`. `t` counts milliseconds of a monotonic clock since the
//! process began to record; the first line of a file tells what wall time that was, so that files of
//! several processes can be laid side by side. `d` is the device, numbered within the file; 0 is the
//! process itself. Names of fields that stand in most lines are one letter long: `c` conversation,
//! `s` seq, `m` message id, `h` fingerprint of the content.

use std::collections::HashMap;
use std::fmt;

use rookery_protocol::user::{ChosenStatus, PresenceStatus};
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of this format, in the first line of a file.
pub const FORMAT: u32 = 1;

/// The number of the process itself in its own history.
pub const PROCESS: u32 = 0;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the process began to record.
    pub t: u64,
    /// The device, by its number within this file.
    #[serde(rename = "d")]
    pub device: u32,
    #[serde(rename = "e")]
    pub event: Event,
}

/// What happened. Everything but [`Event::Process`], faults and marks is from a device's view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first line of a file: its format, its process, and the wall time (unix milliseconds) of
    /// `t` = 0.
    Process {
        format: u32,
        name: String,
        wall_ms: i64,
    },
    /// The first line of a device: its name, its user and what is recorded of it.
    Device {
        name: String,
        user: UserId,
        view: View,
    },
    /// A connection is ready.
    Ready {
        node: String,
        epoch: String,
        resume: Resume,
    },
    /// The device asks for what it missed, on a connection that may be live already.
    Sync { resume: Resume },
    /// The server begins to answer that.
    SyncStarted {},
    /// Everything missed has arrived; what comes from here on is live.
    Synced {},
    /// The connection ended, or was cut by the device (1006).
    Disconnected { code: u16 },

    /// The device sends a message, or sends it again.
    Send {
        #[serde(rename = "m")]
        message_id: MessageId,
        #[serde(rename = "c")]
        conversation: ConversationId,
        #[serde(rename = "h")]
        content: Fingerprint,
    },
    /// The device asks for another content of a message. A deletion asks for the empty one.
    Edit {
        #[serde(rename = "c")]
        conversation: ConversationId,
        of: Seq,
        #[serde(rename = "h")]
        content: Fingerprint,
    },
    /// A send was acknowledged.
    Ack {
        #[serde(rename = "m")]
        message_id: MessageId,
        #[serde(rename = "c")]
        conversation: ConversationId,
        #[serde(rename = "s")]
        seq: Seq,
        duplicate: bool,
    },
    /// A send was answered with an error.
    Refused {
        #[serde(rename = "m")]
        message_id: MessageId,
        code: String,
        retryable: bool,
    },
    /// The device told its user that a send failed, and will not repeat it.
    GivenUp {
        #[serde(rename = "m")]
        message_id: MessageId,
    },

    /// A message arrived, be it for the first time or again.
    Arrived {
        #[serde(rename = "c")]
        conversation: ConversationId,
        #[serde(rename = "s")]
        seq: Seq,
        #[serde(rename = "m")]
        message_id: MessageId,
        #[serde(rename = "h")]
        content: Fingerprint,
        way: Way,
    },
    /// An older message arrived as it is now.
    Changed {
        #[serde(rename = "c")]
        conversation: ConversationId,
        /// The place of the entry that changed it; none where a replay shows the last state only.
        #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
        seq: Option<Seq>,
        /// The place of the message.
        of: Seq,
        #[serde(rename = "m")]
        message_id: MessageId,
        #[serde(rename = "h")]
        content: Fingerprint,
    },
    /// The replay of a conversation has come up to here.
    CaughtUp {
        #[serde(rename = "c")]
        conversation: ConversationId,
        #[serde(rename = "s")]
        seq: Seq,
    },
    /// Too far behind to replay: what comes after `seq` will arrive.
    Reset {
        #[serde(rename = "c")]
        conversation: ConversationId,
        #[serde(rename = "s")]
        seq: Seq,
    },
    /// The device learnt that somebody, or its own user, became a member.
    Joined {
        #[serde(rename = "c")]
        conversation: ConversationId,
        #[serde(rename = "s")]
        seq: Seq,
        user: UserId,
    },
    /// The device learnt that somebody, or its own user, is no member any more.
    Left {
        #[serde(rename = "c")]
        conversation: ConversationId,
        #[serde(rename = "s")]
        seq: Seq,
        user: UserId,
    },
    /// A member has everything up to `seq`, or has read it.
    Receipt {
        #[serde(rename = "c")]
        conversation: ConversationId,
        #[serde(rename = "s")]
        seq: Seq,
        user: UserId,
        read: bool,
    },
    /// Somebody is shown like this.
    Presence {
        user: UserId,
        status: PresenceStatus,
    },
    /// The device chose how its user appears.
    Appear { status: ChosenStatus },
    /// The last line of a device that was not cut short: whether it was connected to the end, when
    /// everything had come to rest, and which sends were still waiting for an answer.
    End {
        connected: bool,
        outbox: Vec<MessageId>,
    },

    /// A fault began. `id` is what its end will name.
    FaultBegan { id: u64, kind: String, what: String },
    /// A fault is over.
    FaultEnded { id: u64 },
    /// Something worth seeing beside other events.
    Mark { text: String },
}

/// What is recorded of a device, and so what may be expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Frames, as they came. Within a connection nothing may come twice; another one may repeat
    /// what is beyond its cursors.
    Wire,
    /// What the client library handed out: nothing twice, whatever became of connections.
    Client,
}

/// Where a connection begins to hear its conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// At their present ends: without `resume`.
    Fresh,
    /// After what any device of the user has confirmed as delivered: `sync` without cursors.
    Undelivered,
    /// After these cursors; memberships that are not named count from their joining.
    Cursors(HashMap<ConversationId, Seq>),
    /// Where the `sync` says that follows: nothing of conversations comes before its answer.
    Sync,
    /// Where the client library was.
    Kept,
}

/// How a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    Live,
    Batch,
}

/// A content, told apart from others: 64 bits of FNV-1a, which stay the same from release to
/// release. Contents of a run name their sender and a counter, so that no two are alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// What a deleted message shows.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    #[must_use]
    pub fn of(content: &str) -> Self {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(content.as_bytes().iter().fold(Self::EMPTY.0, mix))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a fingerprint has 16 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_line_is_short_and_comes_back_as_it_was() {
        let line = Line {
            t: 12,
            device: 3,
            event: Event::Arrived {
                conversation: ConversationId::from_uuid(Uuid::from_u128(1)),
                seq: Seq(4),
                message_id: MessageId::from_uuid(Uuid::from_u128(2)),
                content: Fingerprint::of("a"),
                way: Way::Live,
            },
        };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(
            text,
            "{\"t\":12,\"d\":3,\"e\":{\"arrived\":{\
             \"c\":\"00000000-0000-0000-0000-000000000001\",\"s\":4,\
             \"m\":\"00000000-0000-0000-0000-000000000002\",\
             \"h\":\"af63dc4c8601ec8c\",\"way\":\"live\"}}}"
        );
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }

    #[test]
    fn cursors_come_back_as_they_were() {
        let room = ConversationId::from_uuid(Uuid::from_u128(1));
        for resume in [Resume::Fresh, Resume::Cursors([(room, Seq(7))].into())] {
            let text = serde_json::to_string(&resume).unwrap();
            assert_eq!(serde_json::from_str::<Resume>(&text).unwrap(), resume);
        }
    }
}
