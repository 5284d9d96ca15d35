//! Changing a stored message: edit, deletion, reaction. Each is an entry of the log, written behind
//! the lock of its head together with what it does to the message.

use rookery_protocol::conversation::MemberRole;
use rookery_protocol::{ConversationId, Seq, Timestamp};

use super::conversations::role;
use crate::store::{MessageAction, MessageActor, Result};

/// The conversation, and `$2`'s membership if it is present.
pub(in crate::store) const ACTOR: &str = "select c.kind, c.history_visible, \
        p.role, p.joined_seq, p.blocked_at \
    from conversations c \
    left join members p on p.conversation_id = c.conversation_id and p.user_id = $2 \
                       and p.left_seq is null \
    where c.conversation_id = $1";

pub(in crate::store) const HAS_REACTED: &str = "select exists (select 1 from reactions \
    where conversation_id = $1 and seq = $2 and emoji = $3 and user_id = $4)";

/// Whether a present member joined after message `$2`.
pub(in crate::store) const IS_WINDOWED: &str = "select exists (select 1 from members \
    where conversation_id = $1 and left_seq is null and joined_seq >= $2)";

pub(in crate::store) const EDIT: &str = "update messages set content = $3, mentions = $4, \
    edited_at = $5 where conversation_id = $1 and seq = $2";

/// What was written stays in the row; nothing reads it any more.
pub(in crate::store) const DELETE: &str =
    "update messages set deleted_at = $3 where conversation_id = $1 and seq = $2";

pub(in crate::store) const REACT: &str = "insert into reactions \
    (conversation_id, seq, emoji, user_id, created_at) values ($1, $2, $3, $4, $5)";

pub(in crate::store) const NOTE_REACTIONS: &str = "update messages set has_reactions = true \
    where conversation_id = $1 and seq = $2 and not has_reactions";

pub(in crate::store) const UNREACT: &str = "delete from reactions \
    where conversation_id = $1 and seq = $2 and emoji = $3 and user_id = $4";

pub(in crate::store) const INSERT_CHANGE: &str = "insert into messages \
    (conversation_id, seq, kind, message_id, sender_id, target_seq, content, created_at) \
    values ($1, $2, $3, $4, $5, $6, $7, $8)";

/// `last_at` stays: a conversation does not move to the top of the list for an edit or a reaction.
pub(in crate::store) const ADVANCE_HEAD: &str =
    "update conversation_heads set last_seq = $2, changed_at = $3 where conversation_id = $1";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct ActorRecord {
    pub(in crate::store) kind: String,
    pub(in crate::store) history_visible: bool,
    role: Option<String>,
    joined_seq: Option<Seq>,
    blocked_at: Option<Timestamp>,
}

impl ActorRecord {
    pub(in crate::store) fn actor(&self, id: ConversationId) -> Result<Option<MessageActor>> {
        let (Some(text), Some(joined_seq)) = (&self.role, self.joined_seq) else {
            return Ok(None);
        };
        let role: MemberRole = role(id, text)?;
        Ok(Some(MessageActor {
            role,
            visible_from: if self.history_visible {
                Seq::ZERO
            } else {
                joined_seq
            },
            is_blocked: self.blocked_at.is_some(),
        }))
    }
}

/// The kind and the content of the entry that an action becomes, as
/// [`super::messages`] reads them.
pub(in crate::store) fn entry_of(action: &MessageAction) -> (&'static str, String) {
    match action {
        MessageAction::Edit { .. } => ("edit", String::new()),
        MessageAction::Delete => ("delete", String::new()),
        MessageAction::AddReaction { emoji } => ("reaction", format!("+{emoji}")),
        MessageAction::RemoveReaction { emoji } => ("reaction", format!("-{emoji}")),
    }
}

/// The emoji of an action that is a reaction.
pub(in crate::store) fn emoji(action: &MessageAction) -> Option<&str> {
    match action {
        MessageAction::AddReaction { emoji } | MessageAction::RemoveReaction { emoji } => {
            Some(emoji)
        }
        MessageAction::Edit { .. } | MessageAction::Delete => None,
    }
}

/// Changing a message, step by step; needs `HEAD_LOCKED`, and `MESSAGES_AMONG` and `REACTIONS_ON` of
/// the parent.
macro_rules! message_changes {
    ($store:ty) => {
        use rookery_protocol::message::Message;
        use rookery_protocol::{ConversationId, Seq, Timestamp};

        use super::super::journal::INSERT as INSERT_JOURNAL;
        use super::super::{Tx, numbers};
        use super::{MESSAGES_AMONG, REACTIONS_ON};
        use $crate::store::sql::changes::{self as sql, ActorRecord};
        use $crate::store::sql::conversations::kind;
        use $crate::store::sql::groups::HeadRecord;
        use $crate::store::sql::journal::pack;
        use $crate::store::sql::messages::{MessageRecord, pack_mentions, put_reactions};
        use $crate::store::sql::transact;
        use $crate::store::{
            ChangeEntry, JournalRow, MessageAction, MessageChange, MessageChanged, MessageRule,
            MessageState, Refusal, Result,
        };

        pub(super) async fn change(
            store: &$store,
            change: &MessageChange,
            rule: MessageRule,
            at: Timestamp,
        ) -> Result<std::result::Result<MessageChanged, Refusal>> {
            transact(super::super::TRANSACTION_WITHIN, || {
                let (store, change) = (store.clone(), change.clone());
                async move { run(&store, &change, rule, at).await }
            })
            .await
        }

        async fn run(
            store: &$store,
            change: &MessageChange,
            rule: MessageRule,
            at: Timestamp,
        ) -> Result<std::result::Result<MessageChanged, Refusal>> {
            let (id, target) = (change.conversation_id, change.seq);
            let mut tx = store.begin_on(id).await?;
            let head: Option<HeadRecord> = sqlx::query_as(HEAD_LOCKED)
                .bind(id)
                .fetch_optional(&mut *tx)
                .await?;
            // Later statements than the lock: they see what was committed while it was waited for.
            let known = match &head {
                Some(_) => actor(&mut tx, change).await?,
                None => None,
            };
            let (Some(head), Some(actor)) = (head, known) else {
                tx.rollback().await?;
                return Ok(Err(Refusal::NotFound));
            };
            let state = state(&mut tx, &actor, change).await?;
            let decision = rule(&state, change);
            let (Ok(is_new), Some(message)) = (decision.as_ref(), state.message) else {
                tx.rollback().await?;
                return Ok(Err(decision.err().unwrap_or(Refusal::NotFound)));
            };
            let mut changed = MessageChanged {
                message,
                entry: None,
            };
            if *is_new {
                apply(&mut tx, change, at).await?;
                let seq = head.last_seq.next();
                write(&mut tx, change, seq, at).await?;
                changed.message = read(&mut tx, id, target).await?.unwrap_or(changed.message);
                let is_group = actor.kind == "group";
                let windowed =
                    is_group && !actor.history_visible && is_windowed(&mut tx, id, target).await?;
                changed.entry = Some(ChangeEntry {
                    seq,
                    by: change.actor,
                    kind: change.action.kind(),
                    member_version: head.member_version,
                    windowed,
                });
                tx.commit().await?;
            } else {
                tx.rollback().await?;
            }
            Ok(Ok(changed))
        }

        async fn actor(tx: &mut Tx, change: &MessageChange) -> Result<Option<ActorRecord>> {
            Ok(sqlx::query_as(sql::ACTOR)
                .bind(change.conversation_id)
                .bind(change.actor)
                .fetch_optional(&mut **tx)
                .await?)
        }

        async fn state(
            tx: &mut Tx,
            actor: &ActorRecord,
            change: &MessageChange,
        ) -> Result<MessageState> {
            let id = change.conversation_id;
            let message = read(tx, id, change.seq).await?;
            let has_reacted = match sql::emoji(&change.action) {
                None => false,
                Some(emoji) => {
                    let asked = sqlx::query_scalar(sql::HAS_REACTED).bind(id);
                    let asked = asked.bind(change.seq).bind(emoji).bind(change.actor);
                    asked.fetch_one(&mut **tx).await?
                }
            };
            Ok(MessageState {
                kind: kind(id, &actor.kind)?,
                actor: actor.actor(id)?,
                message,
                has_reacted,
            })
        }

        /// The message at `seq` as it is now, as this transaction sees it.
        async fn read(tx: &mut Tx, id: ConversationId, seq: Seq) -> Result<Option<Message>> {
            let record: Option<MessageRecord> = sqlx::query_as(MESSAGES_AMONG)
                .bind(id)
                .bind(numbers(&[seq.0]))
                .fetch_optional(&mut **tx)
                .await?;
            let Some(record) = record else {
                return Ok(None);
            };
            let reacted = record.has_reactions && record.deleted_at.is_none();
            let mut message = Message::try_from(record)?;
            if reacted {
                let reactions = sqlx::query_as(REACTIONS_ON)
                    .bind(id)
                    .bind(numbers(&[seq.0]))
                    .fetch_all(&mut **tx)
                    .await?;
                put_reactions(std::slice::from_mut(&mut message), reactions);
            }
            Ok(Some(message))
        }

        async fn is_windowed(tx: &mut Tx, id: ConversationId, seq: Seq) -> Result<bool> {
            let asked = sqlx::query_scalar(sql::IS_WINDOWED).bind(id).bind(seq);
            Ok(asked.fetch_one(&mut **tx).await?)
        }

        /// Changes the message.
        async fn apply(tx: &mut Tx, change: &MessageChange, at: Timestamp) -> Result<()> {
            let (id, seq) = (change.conversation_id, change.seq);
            match &change.action {
                MessageAction::Edit { content, mentions } => {
                    let edit = sqlx::query(sql::EDIT).bind(id).bind(seq);
                    let edit = edit.bind(content.as_bytes()).bind(pack_mentions(mentions));
                    edit.bind(at).execute(&mut **tx).await?;
                }
                MessageAction::Delete => {
                    let delete = sqlx::query(sql::DELETE).bind(id).bind(seq);
                    delete.bind(at).execute(&mut **tx).await?;
                }
                MessageAction::AddReaction { emoji } => {
                    let react = sqlx::query(sql::REACT).bind(id).bind(seq).bind(emoji);
                    let react = react.bind(change.actor).bind(at);
                    react.execute(&mut **tx).await?;
                    let note = sqlx::query(sql::NOTE_REACTIONS).bind(id).bind(seq);
                    note.execute(&mut **tx).await?;
                }
                MessageAction::RemoveReaction { emoji } => {
                    let remove = sqlx::query(sql::UNREACT).bind(id).bind(seq).bind(emoji);
                    remove.bind(change.actor).execute(&mut **tx).await?;
                }
            }
            Ok(())
        }

        /// Writes the entry, the log's new end, and the journal.
        async fn write(tx: &mut Tx, change: &MessageChange, seq: Seq, at: Timestamp) -> Result<()> {
            let id = change.conversation_id;
            let (kind, content) = sql::entry_of(&change.action);
            sqlx::query(sql::INSERT_CHANGE)
                .bind(id)
                .bind(seq)
                .bind(kind)
                .bind(change.message_id)
                .bind(change.actor)
                .bind(change.seq)
                .bind(content.into_bytes())
                .bind(at)
                .execute(&mut **tx)
                .await?;
            let head = sqlx::query(sql::ADVANCE_HEAD).bind(id).bind(seq);
            head.bind(at).execute(&mut **tx).await?;
            let (kind, payload) = pack(&JournalRow::Entries(vec![(id, seq)]));
            let journal = sqlx::query(INSERT_JOURNAL).bind(kind).bind(payload);
            journal.execute(&mut **tx).await?;
            Ok(())
        }
    };
}
pub(in crate::store) use message_changes;
