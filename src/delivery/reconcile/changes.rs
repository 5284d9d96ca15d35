//! What a look into the journal says that this node should know by now, and telling the sockets that
//! do not.

use std::collections::{HashMap, HashSet};

use rookery_protocol::{ConversationId, Seq, SessionId, UserId};

use super::super::{Behind, Delivery, DeliveryParts, Path};
use crate::store::JournalRow;

/// Sockets looked at before other tasks get a turn.
const SCAN_CHUNK: usize = 512;

/// See the module.
#[derive(Default)]
pub(super) struct Changes {
    ends: HashMap<ConversationId, Seq>,
    members: Vec<(ConversationId, Vec<UserId>)>,
    revoked: Vec<(UserId, Vec<SessionId>)>,
}

impl Changes {
    pub(super) fn of(rows: Vec<JournalRow>) -> Self {
        let mut changes = Self::default();
        for row in rows {
            match row {
                JournalRow::Entries(ends) => {
                    for (id, seq) in ends {
                        let end = changes.ends.entry(id).or_default();
                        *end = seq.max(*end);
                    }
                }
                JournalRow::Members {
                    conversation_id,
                    user_ids,
                } => {
                    changes.members.push((conversation_id, user_ids));
                }
                JournalRow::Revoked {
                    user_id,
                    session_ids,
                } => {
                    changes.revoked.push((user_id, session_ids));
                }
            }
        }
        changes
    }

    /// Tells whoever does not know. Returns how many conversations and sessions had been missed.
    pub(super) async fn tell(&self, parts: &DeliveryParts, delivery: &Delivery) -> usize {
        let revoked = self.revoke(parts);
        // First, since it leaves word with the sockets that cannot be asked yet.
        let lacking = self.scan(parts).await;
        let found = lacking.len();
        self.learn(parts, delivery).await;
        for (id, users) in lacking {
            self.behind(delivery, id, users.into_iter().collect()).await;
        }
        revoked + found
    }

    fn revoke(&self, parts: &DeliveryParts) -> usize {
        let mut found = 0;
        for (user, ended) in &self.revoked {
            parts.auth.revocations.add(ended);
            let sessions = parts.registry.of(*user);
            let is_missed = |s: &&std::sync::Arc<crate::gateway::Session>| {
                ended.contains(&s.session_id) && !s.outbox.is_closing()
            };
            found += sessions.iter().filter(is_missed).count();
            parts.registry.revoke(*user, ended);
        }
        found
    }

    /// Tells the workers of memberships that sockets here do not know. Not counted as found: rows
    /// of memberships that ended look the same, and there is nothing to tell of those.
    async fn learn(&self, parts: &DeliveryParts, delivery: &Delivery) {
        for (conversation_id, user_ids) in &self.members {
            let unaware = |user: &&UserId| {
                let sessions = parts.registry.of(**user);
                sessions.iter().any(|session| {
                    let positions = session.positions();
                    positions.is_based() && positions.get(*conversation_id).is_none()
                })
            };
            let users: Vec<UserId> = user_ids.iter().filter(unaware).copied().collect();
            if !users.is_empty() {
                self.behind(delivery, *conversation_id, users).await;
            }
        }
    }

    /// Whose conversations have grown without them. Sockets whose base is still being read cannot
    /// be asked, and look again themselves: the base may be older than what was found here.
    async fn scan(&self, parts: &DeliveryParts) -> HashMap<ConversationId, HashSet<UserId>> {
        let mut lacking: HashMap<ConversationId, HashSet<UserId>> = HashMap::new();
        if self.ends.is_empty() && self.members.is_empty() {
            return lacking;
        }
        for chunk in parts.registry.all().chunks(SCAN_CHUNK) {
            for session in chunk {
                let mut positions = session.positions();
                positions.pass_over();
                for (id, _) in positions.behind(&self.ends) {
                    lacking.entry(id).or_default().insert(session.user_id);
                }
            }
            tokio::task::yield_now().await;
        }
        lacking
    }

    async fn behind(
        &self,
        delivery: &Delivery,
        conversation_id: ConversationId,
        users: Vec<UserId>,
    ) {
        let target = self.ends.get(&conversation_id).copied();
        delivery
            .behind(Behind {
                conversation_id,
                users,
                target: target.unwrap_or(Seq::ZERO),
                path: Path::Reconcile,
            })
            .await;
    }
}
