//! One conversation as many of its members see it: what they share is read once, and unread
//! messages are counted here, from one pass over the newest entries.

use std::collections::HashMap;

use rookery_protocol::conversation::{Conversation, OwnMembership};
use rookery_protocol::{ConversationId, Seq, Timestamp, UserId, limits};

use super::role;
use crate::store::Result;
use crate::store::sql::messages::unpack_mentions;

/// Counting looks at the newest entries only, as in the list of conversations.
const COUNTED_MAX: i64 = 5_000;

/// The present members `$2` of conversation `$1`.
macro_rules! seats {
    ($among:literal) => {
        concat!(
            "select user_id, role, joined_seq, delivered_seq, read_seq, muted_until from members \
             where conversation_id = $1 and left_seq is null and user_id ",
            $among
        )
    };
}
pub(in crate::store) use seats;

pub(in crate::store) const WRITTEN: &str = "select seq, sender_id from messages \
    where conversation_id = $1 and seq > $2 and kind = 'text' order by seq";

pub(in crate::store) const MENTIONING: &str = "select seq, sender_id, mentions from messages \
    where conversation_id = $1 and seq > $2 and kind = 'text' and mentions is not null \
      and deleted_at is null order by seq";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct SeatRecord {
    pub(in crate::store) user_id: UserId,
    role: String,
    joined_seq: Seq,
    delivered_seq: Seq,
    read_seq: Seq,
    muted_until: Option<Timestamp>,
}

/// From where on unread messages are counted for the one who has read least.
pub(in crate::store) fn counted_from(seats: &[SeatRecord], last_seq: Seq) -> Seq {
    let read = seats.iter().map(|seat| seat.read_seq).min();
    read.unwrap_or(last_seq).max(Seq(last_seq.0 - COUNTED_MAX))
}

/// What was written beyond some place of a log.
#[derive(Default)]
pub(in crate::store) struct Written {
    all: Vec<Seq>,
    by_sender: HashMap<UserId, Vec<Seq>>,
    mentions: HashMap<UserId, Vec<Seq>>,
}

impl Written {
    pub(in crate::store) fn of(
        texts: Vec<(Seq, UserId)>,
        mentioning: Vec<(Seq, UserId, Vec<u8>)>,
    ) -> Self {
        let mut written = Self::default();
        for (seq, sender) in texts {
            written.all.push(seq);
            written.by_sender.entry(sender).or_default().push(seq);
        }
        for (seq, sender, packed) in mentioning {
            let others = unpack_mentions(&packed).unwrap_or_default();
            for user in others.into_iter().filter(|user| *user != sender) {
                written.mentions.entry(user).or_default().push(seq);
            }
        }
        written
    }

    /// The conversation as the member of this seat sees it; `seen` is how somebody else does.
    pub(in crate::store) fn view(
        &self,
        seen: &Conversation,
        seat: SeatRecord,
    ) -> Result<Conversation> {
        let none = Vec::new();
        let beyond = |seqs: &[Seq]| seqs.len() - seqs.partition_point(|seq| *seq <= seat.read_seq);
        let own = self.by_sender.get(&seat.user_id).unwrap_or(&none);
        let mentions = self.mentions.get(&seat.user_id).unwrap_or(&none);
        let capped = |count: usize| limits::UNREAD_MAX.min(count as i64);
        let id: ConversationId = seen.conversation_id;
        let hidden = !seen.history_visible;
        let mut last_message = seen.last_message.clone();
        if let Some(message) = last_message
            .as_mut()
            .filter(|m| m.sender_id != seat.user_id)
        {
            message.status = None;
        }
        Ok(Conversation {
            unread_count: capped(beyond(&self.all) - beyond(own)),
            mention_count: capped(beyond(mentions)),
            me: OwnMembership {
                role: role(id, &seat.role)?,
                joined_seq: if hidden { seat.joined_seq } else { Seq::ZERO },
                delivered_seq: seat.delivered_seq,
                read_seq: seat.read_seq,
                muted_until: seat.muted_until,
            },
            last_message,
            ..seen.clone()
        })
    }
}
