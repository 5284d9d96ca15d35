//! What a sync will do with each conversation. Pure: from memberships and cursors to a plan.

use std::collections::HashMap;

use rookery_protocol::event::ResetCursor;
use rookery_protocol::{ConversationId, Seq, limits};

use crate::gateway::Positions;
use crate::store::Membership;

/// One conversation to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replay {
    pub(super) conversation_id: ConversationId,
    /// The cursor: entries after it are sent.
    pub(super) from: Seq,
    /// The log's (or the membership's) end as read; a live log may reach further by now.
    pub(super) to: Seq,
    /// The start of the window on the log: nothing up to it may be shown.
    pub(super) visible_from: Seq,
    /// The device has not heard of the conversation yet.
    pub(super) created: bool,
    /// The membership has ended.
    pub(super) left: bool,
}

/// A whole sync.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) replays: Vec<Replay>,
    /// Too far behind to replay.
    pub(super) resets: Vec<ResetCursor>,
    /// Up to date: live from here, as soon as the sync has begun.
    live: Vec<(ConversationId, Seq)>,
    /// Live from here once the device was told so: of those that are reset by `sync.done`, of those
    /// that are new to it by `conversation.created`.
    held: Vec<(ConversationId, Seq)>,
    /// Entries to be replayed, as far as known now.
    pub(super) count: i64,
}

/// Plans what `cursors` ask for; without them, what no device has confirmed as delivered.
pub(super) fn make(
    memberships: &[Membership],
    cursors: Option<&HashMap<ConversationId, Seq>>,
) -> Plan {
    let mut plan = Plan::default();
    for membership in memberships {
        let id = membership.conversation_id;
        let named = cursors.and_then(|cursors| cursors.get(&id).copied());
        let from = match (cursors, named) {
            (None, _) => membership.delivered_seq.max(membership.joined_seq),
            (Some(_), None) => membership.joined_seq,
            // Not before the window on the log.
            (Some(_), Some(cursor)) => cursor.max(membership.visible_from),
        };
        let left = !membership.is_present();
        // Of what one has left, a device hears only if it knew of it and not of the end.
        let unaware = cursors.is_some() && named.is_none();
        if left && (unaware || from >= membership.visible_to()) {
            continue;
        }
        let created = match cursors {
            Some(_) => named.is_none(),
            None => membership.delivered_seq <= membership.joined_seq,
        };
        plan.add(membership, from, created && !left);
    }
    plan
}

impl Plan {
    fn add(&mut self, membership: &Membership, from: Seq, created: bool) {
        let (conversation_id, to) = (membership.conversation_id, membership.visible_to());
        let behind = to.0 - from.0;
        let too_far = behind > limits::REPLAY_PER_CONVERSATION
            || self.count + behind.max(0) > limits::REPLAY_TOTAL;
        // A cursor beyond the end comes from a database that was set back since.
        let reset = too_far || behind < 0;
        if reset {
            self.resets.push(ResetCursor {
                conversation_id,
                seq: to,
            });
        }
        let replayed = !too_far && behind > 0;
        if membership.is_present() && !replayed {
            let begin = if reset || created {
                &mut self.held
            } else {
                &mut self.live
            };
            begin.push((conversation_id, to));
        }
        if replayed {
            self.count += behind;
        }
        if replayed || created || !membership.is_present() {
            let from = if replayed { from } else { to };
            let left = !membership.is_present();
            self.replays.push(Replay {
                conversation_id,
                from,
                to,
                visible_from: membership.visible_from,
                created,
                left,
            });
        }
    }

    /// Hands the conversations to be replayed to this sync, holds those of which the device has to
    /// be told something first, and sets the others live. Returns those of which something was
    /// noted that none of these will reach.
    ///
    /// A reset must be held: a device that is cut off before it was told of the reset has not seen
    /// anything beyond it, or it would take that for its cursor and never ask for what lies between.
    pub(super) fn apply(&self, positions: &mut Positions) -> Vec<(ConversationId, Seq)> {
        let noted = positions.begin_base();
        for replay in self.replays.iter().filter(|replay| replay.from < replay.to) {
            positions.begin_sync(replay.conversation_id, replay.from, replay.to);
        }
        for (id, seq) in &self.held {
            positions.hold(*id, *seq);
        }
        positions.set_live(&self.live);
        positions.lacking(&noted)
    }

    /// Sets the conversations that were held live. Returns those that have grown meanwhile.
    pub(super) fn release(&self, positions: &mut Positions) -> Vec<(ConversationId, Seq)> {
        positions.release(self.held.iter().map(|(id, _)| *id))
    }
}

#[cfg(test)]
mod tests {
    use crate::store::FanoutMode;
    use rookery_protocol::UserId;
    use rookery_protocol::conversation::{ConversationKind, MemberRole};
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> ConversationId {
        ConversationId::from_uuid(Uuid::from_u128(n))
    }

    fn membership(n: u128, joined: i64, last: i64) -> Membership {
        Membership {
            conversation_id: id(n),
            user_id: UserId::from_uuid(Uuid::nil()),
            kind: ConversationKind::Group,
            role: MemberRole::Member,
            joined_seq: Seq(joined),
            visible_from: Seq(0),
            left_seq: None,
            delivered_seq: Seq(0),
            read_seq: Seq(0),
            last_seq: Seq(last),
            fanout: FanoutMode::Direct,
        }
    }

    #[test]
    fn a_cursor_is_continued_and_an_unnamed_conversation_is_introduced() {
        let cursors = HashMap::from([(id(1), Seq(3)), (id(2), Seq(5))]);
        let memberships = [
            membership(1, 0, 7),
            membership(2, 0, 5),
            membership(3, 2, 4),
        ];
        let plan = make(&memberships, Some(&cursors));
        assert_eq!(plan.count, 6);
        assert_eq!(plan.replays.len(), 2);
        assert_eq!(
            (plan.replays[0].from, plan.replays[0].created),
            (Seq(3), false)
        );
        assert_eq!(
            (plan.replays[1].from, plan.replays[1].created),
            (Seq(2), true)
        );
        assert_eq!(plan.live, [(id(2), Seq(5))]);
    }

    #[test]
    fn what_is_too_far_behind_or_from_another_epoch_is_reset() {
        let far = limits::REPLAY_PER_CONVERSATION + 1;
        let cursors = HashMap::from([(id(1), Seq(0)), (id(2), Seq(9))]);
        let plan = make(
            &[membership(1, 0, far), membership(2, 0, 5)],
            Some(&cursors),
        );
        assert!(plan.replays.is_empty());
        let resets: Vec<_> = plan
            .resets
            .iter()
            .map(|reset| (reset.conversation_id, reset.seq))
            .collect();
        assert_eq!(resets, [(id(1), Seq(far)), (id(2), Seq(5))]);
    }

    #[test]
    fn what_is_reset_is_live_only_after_it_was_released() {
        let far = limits::REPLAY_PER_CONVERSATION + 1;
        let cursors = HashMap::from([(id(1), Seq(0)), (id(2), Seq(5))]);
        let memberships = [
            membership(1, 0, far),
            membership(2, 0, 5),
            membership(3, 4, 4),
        ];
        let plan = make(&memberships, Some(&cursors));
        let mut positions = Positions::pending();
        plan.apply(&mut positions);
        let live = |positions: &Positions| [1, 2, 3].map(|n| positions.live(id(n)));
        assert_eq!(live(&positions), [None, Some(Seq(5)), None]);
        positions.advance(id(1), Seq(far + 1));
        assert_eq!(plan.release(&mut positions), [(id(1), Seq(far + 1))]);
        assert_eq!(
            live(&positions),
            [Some(Seq(far)), Some(Seq(5)), Some(Seq(4))]
        );
    }

    #[test]
    fn one_who_left_is_told_up_to_the_end_once() {
        let left = Membership {
            left_seq: Some(Seq(6)),
            ..membership(1, 0, 9)
        };
        let told = |cursor| {
            make(
                std::slice::from_ref(&left),
                Some(&HashMap::from([(id(1), Seq(cursor))])),
            )
        };
        let plan = told(4);
        assert_eq!((plan.replays[0].to, plan.replays[0].left), (Seq(6), true));
        assert!(plan.live.is_empty());
        assert_eq!(told(6), Plan::default());
        assert_eq!(make(&[left], Some(&HashMap::new())), Plan::default());
    }

    #[test]
    fn without_cursors_delivered_marks_count() {
        let marked = Membership {
            delivered_seq: Seq(6),
            ..membership(1, 2, 9)
        };
        let plan = make(&[marked, membership(2, 2, 9)], None);
        assert_eq!(
            (plan.replays[0].from, plan.replays[0].created),
            (Seq(6), false)
        );
        assert_eq!(
            (plan.replays[1].from, plan.replays[1].created),
            (Seq(2), true)
        );
    }
}
