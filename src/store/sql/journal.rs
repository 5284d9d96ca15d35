//! The journal's rows, packed: ids are 16 bytes, numbers 8, most significant byte first.
//!
//! `entries`: (conversation, last seq) for each log that grew. `members`: the conversation, then
//! the users whose membership began or ended. `revoked`: the user, then the sessions that ended.

use std::collections::HashMap;

use rookery_protocol::{ConversationId, Seq, SessionId, UserId};
use uuid::Uuid;

use super::corrupt;
use crate::store::{JournalPosition, JournalRow, Result};

/// A position that was current longer ago than this is not to be relied on: rows are removed when
/// they are an hour old, and what a look finds must not have begun to go.
const STALE_AFTER_MS: i64 = 50 * 60 * 1_000;

/// Rows of one look: a backlog is read in pages of a few megabytes.
pub(in crate::store) const PAGE_ROWS: i64 = 4_096;

const ID_BYTES: usize = 16;
const ENTRY_BYTES: usize = ID_BYTES + 8;

/// Whether rows written since `position` was current may have been removed by `now`, both by the
/// database's clock.
pub(in crate::store) fn is_stale(position: &JournalPosition, now_ms: i64) -> bool {
    now_ms - position.current_at_ms > STALE_AFTER_MS
}

/// The kind and the payload that store `row`.
pub(in crate::store) fn pack(row: &JournalRow) -> (&'static str, Vec<u8>) {
    match row {
        JournalRow::Entries(ends) => ("entries", pack_entries(ends)),
        JournalRow::Members {
            conversation_id,
            user_ids,
        } => (
            "members",
            pack_ids(
                conversation_id.as_bytes(),
                user_ids.iter().map(UserId::as_bytes),
            ),
        ),
        JournalRow::Revoked {
            user_id,
            session_ids,
        } => (
            "revoked",
            pack_ids(
                user_id.as_bytes(),
                session_ids.iter().map(SessionId::as_bytes),
            ),
        ),
    }
}

pub(in crate::store) fn pack_entries(ends: &[(ConversationId, Seq)]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(ends.len() * ENTRY_BYTES);
    for (conversation_id, seq) in ends {
        payload.extend_from_slice(conversation_id.as_bytes());
        payload.extend_from_slice(&seq.0.to_be_bytes());
    }
    payload
}

fn pack_ids<'a>(first: &[u8; 16], rest: impl Iterator<Item = &'a [u8; 16]>) -> Vec<u8> {
    let mut payload = first.to_vec();
    payload.extend(rest.flatten());
    payload
}

/// Gathers the rows of one look. A log that grew many times is told once, with its furthest end,
/// so that a look after a long absence needs memory for the logs, not for the commits.
#[derive(Default)]
pub(in crate::store) struct Gathering {
    ends: HashMap<ConversationId, Seq>,
    others: Vec<JournalRow>,
}

impl Gathering {
    pub(in crate::store) fn add(&mut self, xid: i64, kind: &str, payload: &[u8]) -> Result<()> {
        match kind {
            "entries" => {
                let (entries, rest) = payload.as_chunks::<ENTRY_BYTES>();
                if !rest.is_empty() {
                    return Err(corrupt("journal", "payload", xid));
                }
                for entry in entries {
                    let (id, end) = unpack_entry(entry);
                    let known = self.ends.entry(id).or_insert(end);
                    *known = (*known).max(end);
                }
            }
            "members" => {
                let (first, rest) = unpack_ids(xid, payload)?;
                self.others.push(JournalRow::Members {
                    conversation_id: ConversationId::from_uuid(first),
                    user_ids: rest.map(UserId::from_uuid).collect(),
                });
            }
            "revoked" => {
                let (first, rest) = unpack_ids(xid, payload)?;
                self.others.push(JournalRow::Revoked {
                    user_id: UserId::from_uuid(first),
                    session_ids: rest.map(SessionId::from_uuid).collect(),
                });
            }
            // Of a later release, while both run: about something this one does not have.
            _ => {}
        }
        Ok(())
    }

    /// Memberships and sessions in the order of their commits, then all logs that grew.
    pub(in crate::store) fn into_rows(self) -> Vec<JournalRow> {
        let mut rows = self.others;
        if !self.ends.is_empty() {
            rows.push(JournalRow::Entries(self.ends.into_iter().collect()));
        }
        rows
    }
}

fn unpack_entry(entry: &[u8; ENTRY_BYTES]) -> (ConversationId, Seq) {
    let (mut id, mut seq) = ([0; ID_BYTES], [0; 8]);
    id.copy_from_slice(&entry[..ID_BYTES]);
    seq.copy_from_slice(&entry[ID_BYTES..]);
    (
        ConversationId::from_uuid(Uuid::from_bytes(id)),
        Seq(i64::from_be_bytes(seq)),
    )
}

fn unpack_ids(xid: i64, payload: &[u8]) -> Result<(Uuid, impl Iterator<Item = Uuid>)> {
    let (ids, rest) = payload.as_chunks::<ID_BYTES>();
    match ids.split_first() {
        Some((first, others)) if rest.is_empty() => Ok((
            Uuid::from_bytes(*first),
            others.iter().map(|id| Uuid::from_bytes(*id)),
        )),
        _ => Err(corrupt("journal", "payload", xid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(number: u128) -> ConversationId {
        ConversationId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn rows_come_back_as_they_were_packed() {
        let rows = [
            JournalRow::Members {
                conversation_id: conversation(1),
                user_ids: vec![UserId::from_uuid(Uuid::from_u128(2))],
            },
            JournalRow::Revoked {
                user_id: UserId::from_uuid(Uuid::from_u128(3)),
                session_ids: vec![SessionId::from_uuid(Uuid::from_u128(4))],
            },
            JournalRow::Entries(vec![(conversation(5), Seq(6))]),
        ];
        let mut gathering = Gathering::default();
        for row in &rows {
            let (kind, payload) = pack(row);
            gathering.add(1, kind, &payload).unwrap();
        }
        assert_eq!(gathering.into_rows(), rows);
    }

    #[test]
    fn a_log_that_grew_twice_is_told_once_with_its_furthest_end() {
        let mut gathering = Gathering::default();
        for seq in [7, 9, 8] {
            let (kind, payload) = pack(&JournalRow::Entries(vec![(conversation(1), Seq(seq))]));
            gathering.add(1, kind, &payload).unwrap();
        }
        assert_eq!(
            gathering.into_rows(),
            [JournalRow::Entries(vec![(conversation(1), Seq(9))])]
        );
    }

    #[test]
    fn a_payload_of_the_wrong_length_is_corrupt() {
        for kind in ["entries", "members", "revoked"] {
            assert!(Gathering::default().add(1, kind, &[0; 17]).is_err());
        }
    }

    #[test]
    fn kinds_of_a_later_release_are_passed_over() {
        let mut gathering = Gathering::default();
        gathering.add(1, "unheard of", &[0; 3]).unwrap();
        assert_eq!(gathering.into_rows(), []);
    }
}
