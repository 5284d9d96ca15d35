//! Storing a batch of sends: one round trip when all of them are plain (`quick.rs`), five and more
//! otherwise, whatever its size.
//!
//! Every writer of a log holds the lock of its head from before it reads the log until its commit
//! is done. So commits of one conversation are in the order of `seq`, and a failed one leaves no
//! hole.
//!
//! Repeats are rare, and looking for them costs a sixth of the work of storing. So a batch is first
//! stored without looking; a repeat in it trips over the unique index, and the transaction is
//! repeated with the look. Repeats come in swarms (clients return after an outage), so for a while
//! from then on every batch looks first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use uuid::Uuid;

use super::super::{PostgresStore, TRANSACTION_WITHIN, Tx};
use super::quick::{self, Quick};
use crate::failpoint::{self, Failpoint};
use crate::store::sql::append::{Earlier, Evidence, Head, Plan, Standing, decide, replies};
use crate::store::sql::journal::pack_entries;
use crate::store::sql::messages::pack_mentions;
use crate::store::sql::transact;
use crate::store::{NewMessage, Outcome, Result, StoreError, Stored, Wait};

/// In the order of ids, so that two batches never wait for each other.
macro_rules! lock_heads {
    ($wait:literal) => {
        concat!(
            "select conversation_id, last_seq, member_version from conversation_heads \
             where conversation_id = any($1) order by conversation_id for update",
            $wait
        )
    };
}
const LOCK_HEADS: &str = lock_heads!("");
const LOCK_FREE_HEADS: &str = lock_heads!(" skip locked");

const EXISTING_HEADS: &str =
    "select conversation_id from conversation_heads where conversation_id = any($1)";

/// How long a batch may take that waits for no lock: ten round trips of half a second on a new
/// connection, with time to get it. All other sends wait meanwhile.
const STRAIGHT_WITHIN: Duration = Duration::from_secs(8);

/// How long batches look for repeats first after one was met. A swarm of repeats makes each node
/// trip once in this time.
const LOOK_FIRST_MS: i64 = 5_000;

/// The sends, by place from 1, whose sender is no member (null) or a blocked one (false). By
/// look-ups, never by a join that the planner might turn round and read a whole table for;
/// `offset 0` keeps it at one look-up a send.
const UNFREE: &str = "
    select place, is_free from (
        select s.place,
               (select p.blocked_at is null from members p
                where p.conversation_id = s.conversation_id and p.user_id = s.sender_id
                  and p.left_seq is null) as is_free
        from unnest($1::uuid[], $2::uuid[])
            with ordinality as s (conversation_id, sender_id, place)
        offset 0) sends
    where is_free is not true";

/// The sends, by place from 1, whose `reply_to` is a message that the sender may see.
const REPLIES: &str = "
    select s.place
    from unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::bigint[])
        as s (place, conversation_id, sender_id, reply_to)
    where (select t.kind in ('text', 'system') from messages t
           where t.conversation_id = s.conversation_id and t.seq = s.reply_to)
      and (select p.joined_seq < s.reply_to
                  or (select c.history_visible from conversations c
                      where c.conversation_id = s.conversation_id)
           from members p
           where p.conversation_id = s.conversation_id and p.user_id = s.sender_id)";

/// The sends whose `message_id` is taken, with the entry that has it.
const REPEATS: &str = "
    select s.place, earlier.seq, earlier.created_at, earlier.sender_id, earlier.request_hash
    from unnest($1::uuid[], $2::uuid[])
        with ordinality as s (conversation_id, message_id, place)
    cross join lateral (
        select m.seq, m.created_at, m.sender_id, m.request_hash from messages m
        where m.conversation_id = s.conversation_id and m.message_id = s.message_id
        limit 1) earlier";

/// The entries, the new ends of their logs, and the journal's row.
const WRITE: &str = "
    with entries as (
        insert into messages (conversation_id, seq, kind, message_id, sender_id, request_hash,
                              content, metadata, reply_to, mentions, created_at)
        select conversation_id, seq, 'text', message_id, sender_id, request_hash,
               content, metadata, reply_to, mentions, $12
        from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bytea[],
                    $6::bytea[], $7::text[], $8::bigint[], $9::bytea[])
                 as e (conversation_id, seq, message_id, sender_id, request_hash,
                       content, metadata, reply_to, mentions)
    ), heads as (
        update conversation_heads h set last_seq = n.last_seq, last_at = $12
        from unnest($10::uuid[], $11::bigint[]) as n (conversation_id, last_seq)
        where h.conversation_id = n.conversation_id
    )
    insert into journal (kind, payload, at)
    values ('entries', $13, (extract(epoch from clock_timestamp()) * 1000)::bigint)";

pub(super) async fn append(
    store: &PostgresStore,
    batch: Arc<[NewMessage]>,
    wait: Wait,
    at: Timestamp,
) -> Result<Vec<Outcome>> {
    let within = match wait {
        Wait::No => STRAIGHT_WITHIN,
        Wait::Yes => TRANSACTION_WITHIN,
    };
    transact(within, || {
        let (store, batch) = (store.clone(), Arc::clone(&batch));
        async move { store_batch(&store, &batch, wait, at).await }
    })
    .await
}

async fn store_batch(
    store: &PostgresStore,
    batch: &[NewMessage],
    wait: Wait,
    at: Timestamp,
) -> Result<Vec<Outcome>> {
    if store.repeats.are_expected(at) {
        return attempt(store, batch, wait, at, Look::First).await;
    }
    let tried = match try_quick(store, batch, wait, at).await {
        Ok(Quick::Stored(outcomes)) => Ok(outcomes),
        Ok(Quick::NotPlain) => attempt(store, batch, wait, at, Look::IfRefused).await,
        Ok(Quick::InDoubt) => {
            let found = attempt(store, batch, wait, at, Look::First).await;
            found.map(|outcomes| outcomes.into_iter().map(|o| first_time(o, at)).collect())
        }
        Err(error) => Err(error),
    };
    match tried {
        Err(StoreError::Refused(sqlx::Error::Database(error))) if error.is_unique_violation() => {
            store.repeats.expect_until(at.plus_millis(LOOK_FIRST_MS));
            attempt(store, batch, wait, at, Look::First).await
        }
        result => result,
    }
}

/// What the statement in doubt has stored is there for the first time, and nobody was told of it.
fn first_time(outcome: Outcome, at: Timestamp) -> Outcome {
    match outcome {
        Outcome::Stored(stored) if stored.created_at == at => Outcome::Stored(Stored {
            duplicate: false,
            ..stored
        }),
        other => other,
    }
}

/// Who waits for a lock has no use for the quick way, which does not.
async fn try_quick(
    store: &PostgresStore,
    batch: &[NewMessage],
    wait: Wait,
    at: Timestamp,
) -> Result<Quick> {
    match wait {
        Wait::No => quick::append(store, batch, at).await,
        Wait::Yes => Ok(Quick::NotPlain),
    }
}

/// When to look for repeats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    First,
    /// Before a send is refused: it may be the repeat of one that was stored.
    IfRefused,
}

async fn attempt(
    store: &PostgresStore,
    batch: &[NewMessage],
    wait: Wait,
    at: Timestamp,
    look: Look,
) -> Result<Vec<Outcome>> {
    let mut tx = store.begin().await?;
    let too_early = if failpoint::leaves_out(Failpoint::MembershipBeforeLock) {
        Some(standings(&mut tx, batch).await?)
    } else {
        None
    };
    let heads = lock_heads(&mut tx, batch, wait).await?;
    // Later statements than the lock: they see what was committed while the lock was waited for,
    // such as the sender's removal.
    let mut evidence = match too_early {
        Some(evidence) => evidence,
        None => standings(&mut tx, batch).await?,
    };
    find_replies(&mut tx, batch, &mut evidence).await?;
    if look == Look::First {
        find_repeats(&mut tx, batch, &mut evidence).await?;
    }
    let mut plan = decide(batch, &heads, &evidence, at);
    if look == Look::IfRefused && plan.refuses() {
        find_repeats(&mut tx, batch, &mut evidence).await?;
        plan = decide(batch, &heads, &evidence, at);
    }
    if plan.entries.is_empty() {
        tx.rollback().await?;
    } else {
        if let Err(error) = write(&mut tx, batch, &plan, at).await {
            // Now, not whenever the pool comes to it: the next attempt needs these locks.
            tx.rollback().await.ok();
            return Err(error);
        }
        failpoint::pass(Failpoint::BeforeCommit).await;
        tx.commit().await?;
        failpoint::pass(Failpoint::AfterCommit).await;
    }
    Ok(plan.outcomes)
}

async fn lock_heads(
    tx: &mut Tx,
    batch: &[NewMessage],
    wait: Wait,
) -> Result<HashMap<ConversationId, Head>> {
    let mut wanted: Vec<Uuid> = batch
        .iter()
        .map(|send| *send.conversation_id.as_uuid())
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let statement = match wait {
        Wait::No => LOCK_FREE_HEADS,
        Wait::Yes => LOCK_HEADS,
    };
    let locked: Vec<(ConversationId, Seq, i64)> = sqlx::query_as(statement)
        .bind(&wanted)
        .fetch_all(&mut **tx)
        .await?;
    let mut heads: HashMap<ConversationId, Head> = locked
        .into_iter()
        .map(|(id, last_seq, member_version)| {
            (
                id,
                Head::Locked {
                    last_seq,
                    member_version,
                },
            )
        })
        .collect();
    if wait == Wait::No && heads.len() < wanted.len() {
        // Passed over: locked by somebody else, or not there at all?
        wanted.retain(|id| !heads.contains_key(&ConversationId::from_uuid(*id)));
        let held: Vec<ConversationId> = sqlx::query_scalar(EXISTING_HEADS)
            .bind(&wanted)
            .fetch_all(&mut **tx)
            .await?;
        heads.extend(held.into_iter().map(|id| (id, Head::Held)));
    }
    Ok(heads)
}

async fn standings(tx: &mut Tx, batch: &[NewMessage]) -> Result<Vec<Evidence>> {
    let unfree: Vec<(i64, Option<bool>)> = sqlx::query_as(UNFREE)
        .bind(column(batch, |send| send.conversation_id.as_uuid()))
        .bind(column(batch, |send| send.sender_id.as_uuid()))
        .fetch_all(&mut **tx)
        .await?;
    let mut evidence = vec![Evidence::OF_A_MEMBER; batch.len()];
    for (place, is_free) in unfree {
        if let Some(send) = at_place(&mut evidence, place) {
            send.standing = Standing::of(is_free);
        }
    }
    Ok(evidence)
}

async fn find_replies(tx: &mut Tx, batch: &[NewMessage], evidence: &mut [Evidence]) -> Result<()> {
    let (places, replies_to): (Vec<i64>, Vec<i64>) = replies(batch)
        .map(|(index, seq)| (index as i64 + 1, seq.0))
        .unzip();
    if places.is_empty() {
        return Ok(());
    }
    let sends = || replies(batch).map(|(index, _)| &batch[index]);
    let conversations: Vec<Uuid> = sends()
        .map(|send| *send.conversation_id.as_uuid())
        .collect();
    let senders: Vec<Uuid> = sends().map(|send| *send.sender_id.as_uuid()).collect();
    let found: Vec<i64> = sqlx::query_scalar(REPLIES)
        .bind(places)
        .bind(conversations)
        .bind(senders)
        .bind(replies_to)
        .fetch_all(&mut **tx)
        .await?;
    for place in found {
        if let Some(send) = at_place(evidence, place) {
            send.replies_to_message = true;
        }
    }
    Ok(())
}

type RepeatRow = (i64, Seq, Timestamp, UserId, Option<Vec<u8>>);

async fn find_repeats(tx: &mut Tx, batch: &[NewMessage], evidence: &mut [Evidence]) -> Result<()> {
    let repeats: Vec<RepeatRow> = sqlx::query_as(REPEATS)
        .bind(column(batch, |send| send.conversation_id.as_uuid()))
        .bind(column(batch, |send| send.message_id.as_uuid()))
        .fetch_all(&mut **tx)
        .await?;
    for (place, seq, created_at, sender_id, request_hash) in repeats {
        if let Some(send) = at_place(evidence, place) {
            send.earlier = Some(Earlier {
                seq,
                created_at,
                sender_id,
                request_hash,
            });
        }
    }
    Ok(())
}

fn column(batch: &[NewMessage], id: fn(&NewMessage) -> &Uuid) -> Vec<Uuid> {
    batch.iter().map(|send| *id(send)).collect()
}

/// Places count from 1.
fn at_place(evidence: &mut [Evidence], place: i64) -> Option<&mut Evidence> {
    usize::try_from(place - 1)
        .ok()
        .and_then(|index| evidence.get_mut(index))
}

/// Whether repeats are about: set when one was met, shared by all batches of this node.
#[derive(Debug, Default)]
pub(in super::super) struct Repeats {
    expected_until_ms: AtomicI64,
}

impl Repeats {
    fn are_expected(&self, at: Timestamp) -> bool {
        at.as_millis() < self.expected_until_ms.load(Ordering::Relaxed)
    }

    fn expect_until(&self, until: Timestamp) {
        self.expected_until_ms
            .fetch_max(until.as_millis(), Ordering::Relaxed);
    }
}

async fn write(tx: &mut Tx, batch: &[NewMessage], plan: &Plan, at: Timestamp) -> Result<()> {
    let columns = Columns::of(batch, plan);
    let (grown, ends): (Vec<Uuid>, Vec<i64>) = plan
        .ends
        .iter()
        .map(|(id, end)| (*id.as_uuid(), end.0))
        .unzip();
    sqlx::query(WRITE)
        .bind(columns.conversation_ids)
        .bind(columns.seqs)
        .bind(columns.message_ids)
        .bind(columns.sender_ids)
        .bind(columns.request_hashes)
        .bind(columns.contents)
        .bind(columns.metadata)
        .bind(columns.replies_to)
        .bind(columns.mentions)
        .bind(grown)
        .bind(ends)
        .bind(at)
        .bind(pack_entries(&plan.ends))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The entries of a plan, an array a column.
#[derive(Default)]
struct Columns<'a> {
    conversation_ids: Vec<ConversationId>,
    seqs: Vec<i64>,
    message_ids: Vec<MessageId>,
    sender_ids: Vec<UserId>,
    request_hashes: Vec<&'a [u8]>,
    contents: Vec<&'a [u8]>,
    metadata: Vec<Option<String>>,
    replies_to: Vec<Option<i64>>,
    mentions: Vec<Option<Vec<u8>>>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [NewMessage], plan: &Plan) -> Self {
        let mut columns = Self::default();
        for (place, seq) in &plan.entries {
            let send = &batch[*place];
            columns.conversation_ids.push(send.conversation_id);
            columns.seqs.push(seq.0);
            columns.message_ids.push(send.message_id);
            columns.sender_ids.push(send.sender_id);
            columns.request_hashes.push(&send.request_hash);
            columns.contents.push(send.content.as_bytes());
            columns.metadata.push(quick::metadata_json(send));
            columns.replies_to.push(send.reply_to.map(|seq| seq.0));
            columns.mentions.push(pack_mentions(&send.mentions));
        }
        columns
    }
}
