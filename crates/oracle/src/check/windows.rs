//! Who was a member of what, from which entry to which.
//!
//! The store keeps one membership for each member: who comes back loses the earlier one. The log's own
//! notices tell of all of them. Where they were not given, an entry before the last membership may
//! or may not have been seen rightly, and is not judged.

use std::collections::{BTreeMap, HashMap};

use rookery_protocol::message::SystemNotice;
use rookery_protocol::{ConversationId, UserId};

use crate::state::{EntryKind, FinalState, Member, Stored};

/// The memberships of one user in one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Windows {
    /// `from < seq <= to`, in order; `to` is `i64::MAX` while it lasts.
    list: Vec<(i64, i64)>,
    history_visible: bool,
    /// There may have been others before the first one.
    earlier_unknown: bool,
}

/// Whether an entry was for a user's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Allowed,
    Forbidden,
    Unknown,
}

impl Windows {
    pub(super) fn sight(&self, seq: i64) -> Sight {
        let (Some((first, _)), Some((_, last))) = (self.list.first(), self.list.last()) else {
            return Sight::Forbidden;
        };
        let allowed = if self.history_visible {
            seq <= *last
        } else {
            self.of(seq).is_some()
        };
        match (allowed, seq <= *first && self.earlier_unknown) {
            (true, _) => Sight::Allowed,
            (false, true) => Sight::Unknown,
            (false, false) => Sight::Forbidden,
        }
    }

    /// The membership that an entry belongs to.
    pub(super) fn of(&self, seq: i64) -> Option<(i64, i64)> {
        let after = self.list.partition_point(|(from, _)| *from < seq);
        let (from, to) = *self.list.get(after.checked_sub(1)?)?;
        (seq <= to).then_some((from, to))
    }

    pub(super) fn last(&self) -> Option<(i64, i64)> {
        self.list.last().copied()
    }

    /// Whether one who is told of an entry within the membership that began after `from` may see
    /// the message that it changes.
    pub(super) fn shows(&self, target: i64, from: i64) -> bool {
        self.history_visible || target > from
    }

    fn open(&mut self, from: i64) {
        if self.list.last().is_none_or(|(_, to)| *to != i64::MAX) {
            self.list.push((from, i64::MAX));
        }
    }

    fn close(&mut self, at: i64) {
        match self.list.last_mut() {
            Some((_, to)) if *to == i64::MAX => *to = at,
            // A member from the beginning, of whose joining no notice tells.
            _ => self.list.push((0, at)),
        }
    }

    /// The store's word on the last membership.
    fn settle(&mut self, member: &Member, notices_known: bool) {
        let last = (member.joined.0, member.left.map_or(i64::MAX, |left| left.0));
        self.history_visible = member.history_visible;
        self.list.retain(|(from, _)| *from < last.0);
        for (_, to) in &mut self.list {
            *to = (*to).min(last.0);
        }
        self.list.push(last);
        self.earlier_unknown = last.0 > 0 && !notices_known;
    }
}

/// All memberships.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    windows: HashMap<(ConversationId, UserId), Windows>,
    by_user: HashMap<UserId, Vec<ConversationId>>,
    nobody: Windows,
}

impl Memberships {
    pub(super) fn of(state: &FinalState) -> Self {
        let mut notices: BTreeMap<(ConversationId, i64), &Stored> = BTreeMap::new();
        for entry in &state.messages {
            if entry.kind == EntryKind::System {
                notices.insert((entry.conversation, entry.seq.0), entry);
            }
        }
        let mut all = Self::default();
        let mut untold: HashMap<ConversationId, bool> = HashMap::new();
        for (&(conversation, seq), entry) in &notices {
            match &entry.notice {
                Some(notice) => all.take(conversation, seq, notice),
                None => {
                    untold.insert(conversation, true);
                }
            }
        }
        for member in &state.memberships {
            let key = (member.conversation, member.user);
            let known = !untold.contains_key(&member.conversation);
            all.windows.entry(key).or_default().settle(member, known);
        }
        for (conversation, user) in all.windows.keys() {
            all.by_user.entry(*user).or_default().push(*conversation);
        }
        all
    }

    pub(super) fn windows(&self, conversation: ConversationId, user: UserId) -> &Windows {
        self.windows
            .get(&(conversation, user))
            .unwrap_or(&self.nobody)
    }

    pub(super) fn conversations(&self, user: UserId) -> &[ConversationId] {
        self.by_user.get(&user).map_or(&[], Vec::as_slice)
    }

    fn take(&mut self, conversation: ConversationId, seq: i64, notice: &SystemNotice) {
        match notice {
            SystemNotice::MembersAdded { user_ids } => {
                for user in user_ids {
                    let key = (conversation, *user);
                    self.windows.entry(key).or_default().open(seq - 1);
                }
            }
            SystemNotice::MemberRemoved { user_id } | SystemNotice::MemberLeft { user_id } => {
                let key = (conversation, *user_id);
                self.windows.entry(key).or_default().close(seq);
            }
            // The deletion of a group ends what the store itself says has ended.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::{MessageId, Seq};
    use uuid::Uuid;

    use super::*;
    use crate::event::Fingerprint;

    const ROOM: ConversationId = ConversationId::from_uuid(Uuid::from_u128(1));
    const ANN: UserId = UserId::from_uuid(Uuid::from_u128(2));

    fn notice(seq: i64, notice: Option<SystemNotice>) -> Stored {
        Stored {
            conversation: ROOM,
            seq: Seq(seq),
            message_id: MessageId::from_uuid(Uuid::from_u128(seq as u128)),
            sender: ANN,
            kind: EntryKind::System,
            of: None,
            content: Fingerprint::EMPTY,
            changed: false,
            notice,
        }
    }

    fn member(joined: i64, left: Option<i64>) -> Member {
        Member {
            conversation: ROOM,
            user: ANN,
            joined: Seq(joined),
            left: left.map(Seq),
            history_visible: false,
            delivered: Seq(joined),
            read: Seq(joined),
        }
    }

    fn left(seq: i64) -> Stored {
        notice(seq, Some(SystemNotice::MemberLeft { user_id: ANN }))
    }

    fn added(seq: i64) -> Stored {
        let user_ids = vec![ANN];
        notice(seq, Some(SystemNotice::MembersAdded { user_ids }))
    }

    fn windows(messages: Vec<Stored>, member: Member) -> Windows {
        let state = FinalState {
            messages,
            memberships: vec![member],
            ..FinalState::default()
        };
        Memberships::of(&state).windows(ROOM, ANN).clone()
    }

    #[test]
    fn notices_tell_of_memberships_that_the_store_has_forgotten() {
        let log = vec![left(4), added(7), left(9), added(12)];
        let windows = windows(log, member(11, None));
        assert_eq!(windows.list, [(0, 4), (6, 9), (11, i64::MAX)]);
        let allowed = [1, 4, 7, 9, 12, 50];
        assert!(
            (allowed.iter()).all(|seq| windows.sight(*seq) == Sight::Allowed),
            "{windows:?}"
        );
        let forbidden = [5, 6, 10, 11];
        assert!((forbidden.iter()).all(|seq| windows.sight(*seq) == Sight::Forbidden));
    }

    #[test]
    fn without_notices_what_lies_before_the_last_joining_is_not_known() {
        let windows = windows(vec![notice(4, None)], member(11, Some(13)));
        assert_eq!(windows.sight(11), Sight::Unknown);
        assert_eq!(windows.sight(12), Sight::Allowed);
        assert_eq!(windows.sight(14), Sight::Forbidden);
    }

    #[test]
    fn one_who_was_there_from_the_beginning_has_one_window() {
        let windows = windows(vec![notice(4, None)], member(0, Some(13)));
        assert_eq!(windows.list, [(0, 13)]);
        assert_eq!(windows.sight(14), Sight::Forbidden);
    }

    #[test]
    fn a_stranger_sees_nothing() {
        let nobody = Memberships::default();
        assert_eq!(nobody.windows(ROOM, ANN).sight(1), Sight::Forbidden);
    }
}
