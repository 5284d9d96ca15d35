//! One step of many fills: what some sockets lack of each of some conversations, in few statements,
//! and what only some of these need, in statements for each.

use std::collections::HashMap;

use rookery_protocol::message::SystemNotice;
use rookery_protocol::{ConversationId, Seq, UserId, limits};

use super::super::weight;
use super::{Filled, Request};
use crate::store::{LogEntry, Membership, Result, Store, Stretch};

/// Entries read at once, of all conversations together.
const PAGE: i64 = 100;
/// A step ends when it has so many entries, or so many bytes, of all conversations together.
const STEP_ENTRIES: usize = 500;
const STEP_BYTES: usize = 1024 * 1024;

/// What a step reads of one log.
struct Log {
    conversation_id: ConversationId,
    from: Seq,
    /// What was read ends here.
    at: Seq,
    end: Seq,
    entries: Vec<LogEntry>,
}

impl Log {
    fn new(request: &Request, memberships: &[Membership]) -> Self {
        let from = start_of(request, memberships);
        let visible = memberships.iter().map(Membership::visible_to).max();
        Self {
            conversation_id: request.conversation_id,
            from,
            at: from,
            end: request.target.min(visible.unwrap_or(Seq::ZERO)),
            entries: Vec::new(),
        }
    }

    fn has_more(&self) -> bool {
        self.at < self.end
    }

    /// Nothing of it was read, and something is to be.
    fn is_untouched(&self) -> bool {
        self.at == self.from && self.has_more()
    }

    fn take(&mut self, to: Seq, entries: Vec<LogEntry>) {
        // A log has no holes: when something is missing, that is its end.
        if entries.last().is_none_or(|last| last.seq() < to) {
            self.end = to;
        }
        self.at = to;
        self.entries.extend(entries);
    }
}

/// Reads what one step of each request needs. `None`: the step was full before it came to this one.
/// The first one always gets further.
pub(super) async fn read(
    store: &dyn Store,
    requests: &[&Request],
) -> Result<Vec<Option<(Filled, Extra)>>> {
    let mut memberships = memberships(store, requests).await?;
    let of = |request: &&Request| {
        let of_it = memberships.remove(&request.conversation_id);
        of_it.unwrap_or_default()
    };
    let memberships: Vec<Vec<Membership>> = requests.iter().map(of).collect();
    let logs = requests.iter().zip(&memberships);
    let mut logs: Vec<Log> = logs
        .map(|(request, of_it)| Log::new(request, of_it))
        .collect();
    entries(store, &mut logs).await?;
    let read = requests.iter().zip(memberships).zip(logs);
    let read = read.map(|((request, memberships), log)| {
        let extra = Extra::of(request, &log.entries);
        (!log.is_untouched()).then(|| (filled(request, memberships, log), extra))
    });
    Ok(read.collect())
}

/// Of those who lack something, by conversation.
async fn memberships(
    store: &dyn Store,
    requests: &[&Request],
) -> Result<HashMap<ConversationId, Vec<Membership>>> {
    let found = if let [request] = requests {
        let users: Vec<UserId> = request.lacks.iter().map(|lack| lack.user).collect();
        store
            .memberships_in(request.conversation_id, &users)
            .await?
    } else {
        let members = requests.iter().flat_map(|request| {
            let users = request.lacks.iter().map(|lack| lack.user);
            users.map(|user| (request.conversation_id, user))
        });
        let members: Vec<(ConversationId, UserId)> = members.collect();
        store.memberships_at(&members).await?
    };
    let mut memberships: HashMap<ConversationId, Vec<Membership>> = HashMap::new();
    for membership in found {
        let of_it = memberships.entry(membership.conversation_id).or_default();
        of_it.push(membership);
    }
    Ok(memberships)
}

/// Reads on in all logs, the first ones first, until the step is full.
async fn entries(store: &dyn Store, logs: &mut [Log]) -> Result<()> {
    let (mut count, mut bytes) = (0, 0);
    while count < STEP_ENTRIES && bytes < STEP_BYTES {
        let (places, stretches) = page(logs);
        if stretches.is_empty() {
            return Ok(());
        }
        let read = store.entries_of(&stretches).await?;
        for ((place, stretch), entries) in places.into_iter().zip(&stretches).zip(read) {
            count += entries.len();
            bytes += entries.iter().map(weight).sum::<usize>();
            logs[place].take(stretch.to, entries);
        }
    }
    Ok(())
}

/// What is read next, at most [`PAGE`] entries: which logs, and what of them.
fn page(logs: &[Log]) -> (Vec<usize>, Vec<Stretch>) {
    let mut left = PAGE;
    let unread = logs.iter().enumerate().filter(|(_, log)| log.has_more());
    let stretches = unread.map_while(|(place, log)| {
        let length = (log.end.0 - log.at.0).min(left);
        left -= length;
        let stretch = Stretch {
            conversation_id: log.conversation_id,
            after: log.at,
            to: Seq(log.at.0 + length),
        };
        (length > 0).then_some((place, stretch))
    });
    stretches.unzip()
}

fn filled(request: &Request, memberships: Vec<Membership>, log: Log) -> Filled {
    Filled {
        conversation_id: request.conversation_id,
        path: request.path,
        target: request.target,
        from: log.from,
        more: log.has_more(),
        memberships: memberships.into_iter().map(|m| (m.user_id, m)).collect(),
        users: request.lacks.iter().map(|lack| lack.user).collect(),
        members: HashMap::new(),
        views: HashMap::new(),
        entries: log.entries,
    }
}

/// The lowest position among those concerned. One who does not know the conversation begins at the
/// joining; one who does not know it and has left is told nothing, and must not be read for: a step
/// that brings nobody forward would be read again and again.
fn start_of(request: &Request, memberships: &[Membership]) -> Seq {
    let joined = |user: UserId| {
        let mut present = memberships.iter().filter(|m| m.is_present());
        Some(present.find(|m| m.user_id == user)?.joined_seq)
    };
    let positions = request.lacks.iter().flat_map(|lack| {
        let begins = lack.is_new.then(|| joined(lack.user)).flatten();
        lack.lowest.into_iter().chain(begins)
    });
    positions.min().unwrap_or(request.target)
}

/// Whom telling of membership changes needs beyond the entries: in few fills anybody.
pub(super) struct Extra {
    /// Members named by notices.
    named: Vec<UserId>,
    /// Those who have to be shown the conversation: who did not know it, and everybody when it
    /// changed.
    shown: Vec<UserId>,
}

impl Extra {
    fn of(request: &Request, entries: &[LogEntry]) -> Self {
        let messages = entries.iter().filter_map(LogEntry::message);
        let notices: Vec<SystemNotice> = messages.filter_map(SystemNotice::of).collect();
        let changed = notices.iter().any(|notice| {
            matches!(
                notice,
                SystemNotice::GroupUpdated { .. } | SystemNotice::RoleChanged { .. }
            )
        });
        let shown = request.lacks.iter();
        let shown = shown.filter(|lack| changed || lack.is_new);
        Self {
            named: notices.into_iter().flat_map(named).collect(),
            shown: shown.map(|lack| lack.user).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.shown.is_empty()
    }

    /// Adds it to what was read.
    pub(super) async fn read(self, store: &dyn Store, filled: &mut Filled) -> Result<()> {
        let id = filled.conversation_id;
        if !self.named.is_empty() {
            let members = store.members_by_id(id, &self.named).await?;
            let members = members.into_iter();
            filled.members = members.map(|member| (member.user_id, member)).collect();
        }
        if !self.shown.is_empty() {
            let views = store.conversation_for(id, &self.shown).await?;
            filled.views = views.into_iter().collect();
        }
        Ok(())
    }
}

fn named(notice: SystemNotice) -> Vec<UserId> {
    match notice {
        SystemNotice::MembersAdded { user_ids } if user_ids.len() <= limits::MEMBER_EVENTS => {
            user_ids
        }
        SystemNotice::MemberRemoved { user_id } | SystemNotice::MemberLeft { user_id } => {
            vec![user_id]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::conversation::{ConversationKind, MemberRole};
    use uuid::Uuid;

    use super::super::super::Path;
    use super::super::Lack;
    use super::*;
    use crate::store::FanoutMode;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn membership(n: u128, joined: i64, left: Option<i64>) -> Membership {
        Membership {
            conversation_id: ConversationId::from_uuid(Uuid::nil()),
            user_id: user(n),
            kind: ConversationKind::Group,
            role: MemberRole::Member,
            joined_seq: Seq(joined),
            visible_from: Seq(0),
            left_seq: left.map(Seq),
            delivered_seq: Seq(0),
            read_seq: Seq(0),
            last_seq: Seq(900),
            fanout: FanoutMode::Direct,
        }
    }

    fn start(lacks: &[(u128, Option<i64>, bool)], memberships: &[Membership]) -> Seq {
        let lacks = lacks.iter().map(|(n, lowest, is_new)| Lack {
            user: user(*n),
            lowest: lowest.map(Seq),
            is_new: *is_new,
        });
        let request = Request {
            conversation_id: ConversationId::from_uuid(Uuid::nil()),
            lacks: lacks.collect(),
            target: Seq(900),
            path: Path::Fill,
        };
        start_of(&request, memberships)
    }

    #[test]
    fn a_new_socket_does_not_hide_that_another_of_the_same_user_lacks_more() {
        let returned = [membership(1, 792, None)];
        assert_eq!(start(&[(1, Some(679), true)], &returned), Seq(679));
        assert_eq!(start(&[(1, Some(800), true)], &returned), Seq(792));
    }

    #[test]
    fn nothing_is_read_for_who_does_not_know_the_conversation_and_has_left() {
        let left = membership(1, 10, Some(700));
        let others = [left.clone(), membership(2, 0, None)];
        assert_eq!(
            start(&[(1, None, true), (2, Some(850), false)], &others),
            Seq(850)
        );
        assert_eq!(start(&[(1, None, true)], &[left]), Seq(900));
    }

    fn log(n: u128, from: i64, end: i64) -> Log {
        Log {
            conversation_id: ConversationId::from_uuid(Uuid::from_u128(n)),
            from: Seq(from),
            at: Seq(from),
            end: Seq(end),
            entries: Vec::new(),
        }
    }

    #[test]
    fn a_page_is_shared_by_logs_and_cuts_the_last_one() {
        let logs = [log(1, 0, 30), log(2, 5, 5), log(3, 10, 95), log(4, 0, 1)];
        let (places, stretches) = page(&logs);
        let ends: Vec<_> = stretches.iter().map(|s| (s.after.0, s.to.0)).collect();
        assert_eq!(places, [0, 2]);
        assert_eq!(ends, [(0, 30), (10, 80)]);
    }

    #[test]
    fn a_log_that_is_shorter_than_was_thought_is_at_its_end() {
        let mut log = log(1, 0, 150);
        log.take(Seq(100), vec![LogEntry::Blank { seq: Seq(99) }]);
        assert!(!log.has_more() && !log.is_untouched());
    }
}
