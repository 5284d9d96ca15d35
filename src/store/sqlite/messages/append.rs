//! Storing a batch of sends in one transaction, which is the only writer: it needs no locks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rookery_protocol::{ConversationId, Seq, Timestamp, UserId};
use serde_json::Value;

use super::super::journal::INSERT as INSERT_JOURNAL;
use super::super::{SqliteStore, TRANSACTION_WITHIN, Tx};
use crate::failpoint::{self, Failpoint};
use crate::store::sql::append::{Earlier, Evidence, Head, Plan, Standing, decide};
use crate::store::sql::detached;
use crate::store::sql::journal::pack;
use crate::store::sql::messages::pack_mentions;
use crate::store::{JournalRow, NewMessage, Outcome, Result};

const HEAD: &str =
    "select last_seq, member_version from conversation_heads where conversation_id = $1";

const EARLIER: &str = "select seq, created_at, sender_id, request_hash from messages \
    where conversation_id = $1 and message_id = $2";

const IS_FREE: &str = "select blocked_at is null from members \
    where conversation_id = $1 and user_id = $2 and left_seq is null";

/// Whether `$2` may see message `$3`, a present member.
const IS_MESSAGE: &str = "select exists (select 1 from messages t \
        where t.conversation_id = $1 and t.seq = $3 and t.kind in ('text', 'system')) \
    and exists (select 1 from members p \
        join conversations c on c.conversation_id = p.conversation_id \
        where p.conversation_id = $1 and p.user_id = $2 \
          and (c.history_visible or p.joined_seq < $3))";

const INSERT: &str = "insert into messages (conversation_id, seq, kind, message_id, sender_id, \
        request_hash, content, metadata, reply_to, mentions, created_at) \
    values ($1, $2, 'text', $3, $4, $5, $6, $7, $8, $9, $10)";

const ADVANCE_HEAD: &str =
    "update conversation_heads set last_seq = $2, last_at = $3 where conversation_id = $1";

pub(super) async fn append(
    store: &SqliteStore,
    batch: Arc<[NewMessage]>,
    at: Timestamp,
) -> Result<Vec<Outcome>> {
    let store = store.clone();
    detached(TRANSACTION_WITHIN, async move {
        let mut tx = store.begin().await?;
        let heads = read_heads(&mut tx, &batch).await?;
        let mut evidence = Vec::with_capacity(batch.len());
        for send in batch.iter() {
            evidence.push(gather_evidence(&mut tx, send).await?);
        }
        let plan = decide(&batch, &heads, &evidence, at);
        if plan.entries.is_empty() {
            tx.rollback().await?;
        } else {
            write(&mut tx, &batch, &plan, at).await?;
            failpoint::pass(Failpoint::BeforeCommit).await;
            tx.commit().await?;
            failpoint::pass(Failpoint::AfterCommit).await;
        }
        Ok(plan.outcomes)
    })
    .await
}

async fn read_heads(tx: &mut Tx, batch: &[NewMessage]) -> Result<HashMap<ConversationId, Head>> {
    let mut heads = HashMap::new();
    for send in batch {
        if let Entry::Vacant(unread) = heads.entry(send.conversation_id) {
            let head: Option<(Seq, i64)> = sqlx::query_as(HEAD)
                .bind(send.conversation_id)
                .fetch_optional(&mut **tx)
                .await?;
            if let Some((last_seq, member_version)) = head {
                unread.insert(Head::Locked {
                    last_seq,
                    member_version,
                });
            }
        }
    }
    Ok(heads)
}

async fn gather_evidence(tx: &mut Tx, send: &NewMessage) -> Result<Evidence> {
    let earlier: Option<(Seq, Timestamp, UserId, Option<Vec<u8>>)> = sqlx::query_as(EARLIER)
        .bind(send.conversation_id)
        .bind(send.message_id)
        .fetch_optional(&mut **tx)
        .await?;
    let is_free: Option<bool> = sqlx::query_scalar(IS_FREE)
        .bind(send.conversation_id)
        .bind(send.sender_id)
        .fetch_optional(&mut **tx)
        .await?;
    let replies_to_message = match send.reply_to {
        None => false,
        Some(reply_to) => {
            let asked = sqlx::query_scalar(IS_MESSAGE).bind(send.conversation_id);
            let asked = asked.bind(send.sender_id).bind(reply_to);
            asked.fetch_one(&mut **tx).await?
        }
    };
    let earlier = earlier.map(|(seq, created_at, sender_id, request_hash)| Earlier {
        seq,
        created_at,
        sender_id,
        request_hash,
    });
    Ok(Evidence {
        earlier,
        standing: Standing::of(is_free),
        replies_to_message,
    })
}

async fn write(tx: &mut Tx, batch: &[NewMessage], plan: &Plan, at: Timestamp) -> Result<()> {
    for (place, seq) in &plan.entries {
        let send = &batch[*place];
        let metadata = send.metadata.as_ref();
        sqlx::query(INSERT)
            .bind(send.conversation_id)
            .bind(seq)
            .bind(send.message_id)
            .bind(send.sender_id)
            .bind(send.request_hash.as_slice())
            .bind(send.content.as_bytes())
            .bind(metadata.map(|map| Value::Object(map.clone()).to_string()))
            .bind(send.reply_to)
            .bind(pack_mentions(&send.mentions))
            .bind(at)
            .execute(&mut **tx)
            .await?;
    }
    for (id, end) in &plan.ends {
        sqlx::query(ADVANCE_HEAD)
            .bind(id)
            .bind(end)
            .bind(at)
            .execute(&mut **tx)
            .await?;
    }
    let (kind, payload) = pack(&JournalRow::Entries(plan.ends.clone()));
    sqlx::query(INSERT_JOURNAL)
        .bind(kind)
        .bind(payload)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
