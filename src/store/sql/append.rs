//! What becomes of a batch of sends, decided from what was read behind the locks. The rules of
//! appending stand here once; the databases differ in how they lock, read and write.

use std::collections::HashMap;

use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};

use crate::store::{NewMessage, Outcome, Refusal, Stored};

/// To somebody who is blocked by the other one of a direct conversation.
const BLOCKED: &str = "this user does not take messages from you";

/// A conversation of the batch that exists. What is not among the facts does not.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Head {
    /// Locked by this transaction.
    Locked { last_seq: Seq, member_version: i64 },
    /// Locked by another one.
    Held,
}

/// What the log and the member list say about one send.
#[derive(Clone, Debug)]
pub(in crate::store) struct Evidence {
    /// The entry that carries its `message_id` already.
    pub(in crate::store) earlier: Option<Earlier>,
    pub(in crate::store) standing: Standing,
    /// Its `reply_to` is a message of the log that its sender may see.
    pub(in crate::store) replies_to_message: bool,
}

impl Evidence {
    /// Of a first attempt by a member that replies to nothing.
    pub(in crate::store) const OF_A_MEMBER: Self = Self {
        earlier: None,
        standing: Standing::Member,
        replies_to_message: false,
    };
}

/// What a sender is to the conversation now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Standing {
    Stranger,
    Member,
    /// A member whom the other one of a direct conversation blocks.
    Blocked,
}

impl Standing {
    /// From whether a member is free to write; `None` of who is no member.
    pub(in crate::store) fn of(is_free: Option<bool>) -> Self {
        match is_free {
            None => Self::Stranger,
            Some(true) => Self::Member,
            Some(false) => Self::Blocked,
        }
    }
}

#[derive(Clone, Debug)]
pub(in crate::store) struct Earlier {
    pub(in crate::store) seq: Seq,
    pub(in crate::store) created_at: Timestamp,
    pub(in crate::store) sender_id: UserId,
    pub(in crate::store) request_hash: Option<Vec<u8>>,
}

impl Earlier {
    fn of(send: &NewMessage, seq: Seq, at: Timestamp) -> Self {
        Self {
            seq,
            created_at: at,
            sender_id: send.sender_id,
            request_hash: Some(send.request_hash.to_vec()),
        }
    }
}

/// The decision on a batch: an outcome for each send, and what is to be written.
#[derive(Debug)]
pub(in crate::store) struct Plan {
    pub(in crate::store) outcomes: Vec<Outcome>,
    /// Which sends become entries, by their place in the batch.
    pub(in crate::store) entries: Vec<(usize, Seq)>,
    /// The logs that grow, with their new ends.
    pub(in crate::store) ends: Vec<(ConversationId, Seq)>,
}

impl Plan {
    /// Whether a send is refused.
    pub(in crate::store) fn refuses(&self) -> bool {
        self.outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::Refused(_)))
    }
}

/// Decides on `batch`; `evidence` has one item for each send. Sends are numbered in the order of
/// the batch, each conversation from the end of its log on, without holes.
pub(in crate::store) fn decide(
    batch: &[NewMessage],
    heads: &HashMap<ConversationId, Head>,
    evidence: &[Evidence],
    at: Timestamp,
) -> Plan {
    let mut plan = Plan {
        outcomes: Vec::with_capacity(batch.len()),
        entries: Vec::with_capacity(batch.len()),
        ends: vec![],
    };
    let mut ends: HashMap<ConversationId, Seq> = HashMap::with_capacity(batch.len());
    // Those of this batch, with their places in it and in their logs.
    let mut accepted: HashMap<(ConversationId, MessageId), (usize, Seq)> =
        HashMap::with_capacity(batch.len());
    for (place, (send, evidence)) in batch.iter().zip(evidence).enumerate() {
        let (last_seq, member_version) = match heads.get(&send.conversation_id) {
            None => {
                plan.outcomes.push(Outcome::Refused(Refusal::NotFound));
                continue;
            }
            Some(Head::Held) => {
                plan.outcomes.push(Outcome::Held);
                continue;
            }
            Some(Head::Locked {
                last_seq,
                member_version,
            }) => (*last_seq, *member_version),
        };
        let key = (send.conversation_id, send.message_id);
        let in_batch = || {
            let (place, seq) = accepted.get(&key)?;
            Some(Earlier::of(&batch[*place], *seq, at))
        };
        if let Some(earlier) = &evidence.earlier.clone().or_else(in_batch) {
            plan.outcomes
                .push(repeated(send, earlier, evidence.standing, member_version));
            continue;
        }
        let end = ends.get(&send.conversation_id).copied().unwrap_or(last_seq);
        if let Err(refusal) = permit(send, evidence, (last_seq, end)) {
            plan.outcomes.push(Outcome::Refused(refusal));
            continue;
        }
        let seq = end.next();
        ends.insert(send.conversation_id, seq);
        plan.entries.push((place, seq));
        accepted.insert(key, (place, seq));
        let stored = Stored {
            seq,
            created_at: at,
            member_version,
            duplicate: false,
        };
        plan.outcomes.push(Outcome::Stored(stored));
    }
    plan.ends = ends.into_iter().collect();
    plan
}

/// Numbers a batch from 0 if there is nothing in it but messages by members to logs that are there,
/// none of them a reply or twice in it; whether it is so is for the database to say.
pub(in crate::store) fn plain(batch: &[NewMessage]) -> Option<Plan> {
    if batch.iter().any(|send| send.reply_to.is_some()) {
        return None;
    }
    let head = Head::Locked {
        last_seq: Seq::ZERO,
        member_version: 0,
    };
    let heads = batch.iter().map(|send| (send.conversation_id, head));
    let evidence = vec![Evidence::OF_A_MEMBER; batch.len()];
    let plan = decide(batch, &heads.collect(), &evidence, Timestamp::default());
    (plan.entries.len() == batch.len()).then_some(plan)
}

/// The answer to a send whose `message_id` is taken. Its own sender hears of it also after having
/// left; to a stranger the conversation does not exist.
fn repeated(
    send: &NewMessage,
    earlier: &Earlier,
    standing: Standing,
    member_version: i64,
) -> Outcome {
    let is_own = earlier.sender_id == send.sender_id;
    if is_own && earlier.request_hash.as_deref() == Some(send.request_hash.as_slice()) {
        return Outcome::Stored(Stored {
            seq: earlier.seq,
            created_at: earlier.created_at,
            member_version,
            duplicate: true,
        });
    }
    Outcome::Refused(if is_own || standing != Standing::Stranger {
        Refusal::Conflict("this message_id names another message already")
    } else {
        Refusal::NotFound
    })
}

/// `last_seq` is the log's end in the store, `end` that with what this batch has added.
fn permit(
    send: &NewMessage,
    evidence: &Evidence,
    (last_seq, end): (Seq, Seq),
) -> Result<(), Refusal> {
    match evidence.standing {
        Standing::Stranger => return Err(Refusal::NotFound),
        Standing::Blocked => return Err(Refusal::Forbidden(BLOCKED)),
        Standing::Member => {}
    }
    match send.reply_to {
        None => Ok(()),
        // Everything a batch adds is a message, and in sight of whoever is a member now.
        Some(reply_to) if reply_to > last_seq && reply_to <= end => Ok(()),
        Some(_) if evidence.replies_to_message => Ok(()),
        Some(_) => Err(Refusal::Invalid {
            field: "reply_to",
            reason: "names no message of this conversation",
            allowed: "the seq of an earlier message",
        }),
    }
}

/// The places in the batch of sends that reply; most batches have none, and then nothing is read.
pub(in crate::store) fn replies(batch: &[NewMessage]) -> impl Iterator<Item = (usize, Seq)> {
    let reply = |(place, send): (usize, &NewMessage)| Some((place, send.reply_to?));
    batch.iter().enumerate().filter_map(reply)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_000);

    fn room(number: u128) -> ConversationId {
        ConversationId::from_uuid(Uuid::from_u128(number))
    }

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    fn send(conversation: u128, message: u128) -> NewMessage {
        NewMessage {
            conversation_id: room(conversation),
            message_id: MessageId::from_uuid(Uuid::from_u128(message)),
            sender_id: user(1),
            content: "hi".to_owned(),
            metadata: None,
            reply_to: None,
            mentions: vec![],
            request_hash: [7; 16],
        }
    }

    fn member() -> Evidence {
        Evidence {
            earlier: None,
            standing: Standing::Member,
            replies_to_message: false,
        }
    }

    fn heads(last_seq: i64) -> HashMap<ConversationId, Head> {
        [1, 2]
            .map(|number| {
                (
                    room(number),
                    Head::Locked {
                        last_seq: Seq(last_seq),
                        member_version: 3,
                    },
                )
            })
            .into()
    }

    fn seqs(plan: &Plan) -> Vec<i64> {
        plan.entries.iter().map(|(_, seq)| seq.0).collect()
    }

    #[test]
    fn each_log_is_numbered_densely_in_the_order_of_the_batch() {
        let batch = [send(1, 1), send(2, 2), send(1, 3), send(9, 4), send(1, 5)];
        let plan = decide(&batch, &heads(10), &vec![member(); 5], AT);
        assert_eq!(seqs(&plan), [11, 11, 12, 13]);
        assert!(matches!(
            plan.outcomes[3],
            Outcome::Refused(Refusal::NotFound)
        ));
        let mut ends = plan.ends;
        ends.sort();
        assert_eq!(ends, [(room(1), Seq(13)), (room(2), Seq(11))]);
    }

    #[test]
    fn a_repeat_within_the_batch_gets_the_first_ones_place() {
        let other = NewMessage {
            request_hash: [8; 16],
            ..send(1, 1)
        };
        let plan = decide(
            &[send(1, 1), send(1, 1), other],
            &heads(0),
            &vec![member(); 3],
            AT,
        );
        assert_eq!(seqs(&plan), [1]);
        assert!(matches!(
            plan.outcomes[1],
            Outcome::Stored(Stored {
                seq: Seq(1),
                duplicate: true,
                ..
            })
        ));
        assert!(matches!(
            plan.outcomes[2],
            Outcome::Refused(Refusal::Conflict(_))
        ));
    }

    #[test]
    fn a_refused_send_burns_no_number_and_can_be_followed_by_its_correction() {
        let wrong = NewMessage {
            reply_to: Some(Seq(5)),
            ..send(1, 1)
        };
        let right = NewMessage {
            reply_to: Some(Seq(4)),
            ..send(1, 1)
        };
        let found = Evidence {
            replies_to_message: true,
            ..member()
        };
        let plan = decide(&[wrong, right], &heads(4), &[member(), found], AT);
        assert_eq!(seqs(&plan), [5]);
        assert!(matches!(
            plan.outcomes[0],
            Outcome::Refused(Refusal::Invalid { .. })
        ));
    }

    #[test]
    fn a_reply_may_name_a_message_of_the_same_batch_but_none_to_come() {
        let reply = |to| NewMessage {
            reply_to: Some(Seq(to)),
            ..send(1, 2)
        };
        let plan = decide(&[send(1, 1), reply(1)], &heads(0), &vec![member(); 2], AT);
        assert_eq!(seqs(&plan), [1, 2]);
        for to in [0, 2] {
            let plan = decide(&[send(1, 1), reply(to)], &heads(0), &vec![member(); 2], AT);
            assert_eq!(seqs(&plan), [1]);
        }
    }

    #[test]
    fn who_is_blocked_stores_nothing_and_learns_of_what_was_stored() {
        let blocked = Evidence {
            standing: Standing::of(Some(false)),
            ..member()
        };
        let earlier = Earlier {
            seq: Seq(3),
            created_at: AT,
            sender_id: user(1),
            request_hash: Some(vec![7; 16]),
        };
        let repeat = Evidence {
            earlier: Some(earlier),
            ..blocked.clone()
        };
        let plan = decide(&[send(1, 1), send(1, 2)], &heads(5), &[blocked, repeat], AT);
        assert_eq!(seqs(&plan), [] as [i64; 0]);
        assert!(matches!(
            plan.outcomes[0],
            Outcome::Refused(Refusal::Forbidden(_))
        ));
        assert!(matches!(plan.outcomes[1], Outcome::Stored(stored) if stored.duplicate));
    }

    #[test]
    fn a_repeat_is_answered_after_leaving_and_a_stranger_learns_nothing() {
        let earlier = Earlier {
            seq: Seq(3),
            created_at: AT,
            sender_id: user(1),
            request_hash: Some(vec![7; 16]),
        };
        let gone = Evidence {
            earlier: Some(earlier),
            standing: Standing::Stranger,
            replies_to_message: false,
        };
        let stranger = NewMessage {
            sender_id: user(2),
            ..send(1, 1)
        };
        let plan = decide(
            &[send(1, 1), stranger.clone()],
            &heads(5),
            &vec![gone.clone(); 2],
            AT,
        );
        assert!(matches!(
            plan.outcomes[0],
            Outcome::Stored(Stored {
                seq: Seq(3),
                duplicate: true,
                ..
            })
        ));
        assert!(matches!(
            plan.outcomes[1],
            Outcome::Refused(Refusal::NotFound)
        ));
        let neighbour = Evidence {
            standing: Standing::Member,
            ..gone
        };
        let plan = decide(&[stranger], &heads(5), &[neighbour], AT);
        assert!(matches!(
            plan.outcomes[0],
            Outcome::Refused(Refusal::Conflict(_))
        ));
    }

    #[test]
    fn a_held_conversation_delays_only_itself() {
        let heads = [
            (room(1), Head::Held),
            (
                room(2),
                Head::Locked {
                    last_seq: Seq(0),
                    member_version: 1,
                },
            ),
        ];
        let plan = decide(
            &[send(1, 1), send(2, 2)],
            &heads.into(),
            &vec![member(); 2],
            AT,
        );
        assert!(matches!(plan.outcomes[0], Outcome::Held));
        assert_eq!(seqs(&plan), [1]);
    }
}
