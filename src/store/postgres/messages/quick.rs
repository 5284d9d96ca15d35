//! Storing a batch of plain sends in one round trip: the database's function `append_batch` locks the
//! heads, looks at the senders and writes, as `append.rs` does in five. What makes a batch special
//! (a reply, a repeat, a conversation that is missing or locked, a sender who may not) is left to
//! `append.rs`: then nothing was written.

use std::fmt::Display;
use std::sync::Once;

use rookery_protocol::{ConversationId, MessageId, Seq, Timestamp, UserId};
use serde_json::Value;

use super::super::PostgresStore;
use super::super::primary::One;
use crate::failpoint::{self, Failpoint};
use crate::store::sql::append::plain;
use crate::store::sql::messages::pack_mentions;
use crate::store::{NewMessage, Outcome, Result, StoreError, Stored};

const APPEND: &str = "select append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// What came of it.
pub(super) enum Quick {
    Stored(Vec<Outcome>),
    /// The batch is not plain; nothing was written.
    NotPlain,
    /// The connection broke: it may have been stored.
    InDoubt,
}

/// Only within [`crate::store::sql::detached`].
pub(super) async fn append(
    store: &PostgresStore,
    batch: &[NewMessage],
    at: Timestamp,
) -> Result<Quick> {
    let steps = [Failpoint::BeforeCommit, Failpoint::MembershipBeforeLock];
    if steps.into_iter().any(failpoint::is_set) {
        // There are no such places within one statement.
        return Ok(Quick::NotPlain);
    }
    let Some(columns) = Columns::of(batch) else {
        return Ok(Quick::NotPlain);
    };
    let appended = sqlx::query_scalar(APPEND)
        .bind(&columns.ids)
        .bind(&columns.grows)
        .bind(&columns.places)
        .bind(&columns.nths)
        .bind(columns.message_ids)
        .bind(columns.sender_ids)
        .bind(columns.request_hashes)
        .bind(columns.contents)
        .bind(columns.metadatas)
        .bind(columns.mentions)
        .bind(at);
    let logs: Option<Vec<i64>> = match store.primary.commit_one(appended).await {
        Ok(One::Value(logs)) => logs,
        Ok(One::InDoubt) => return Ok(Quick::InDoubt),
        Err(why @ StoreError::Denied(_)) => {
            tell_once(&why);
            return Ok(Quick::NotPlain);
        }
        Err(StoreError::Refused(why)) if is_missing(&why) => {
            tell_once(&why);
            return Ok(Quick::NotPlain);
        }
        Err(error) => return Err(error),
    };
    let Some(logs) = logs else {
        return Ok(Quick::NotPlain);
    };
    let (last_seqs, member_versions) = logs.split_at(columns.ids.len());
    failpoint::pass(Failpoint::AfterCommit).await;
    let sends = columns.places.iter().zip(&columns.nths);
    let stored = sends.map(|(place, nth)| {
        let log = *place as usize - 1;
        Outcome::Stored(Stored {
            seq: Seq(last_seqs[log] + nth),
            created_at: at,
            member_version: member_versions[log],
            duplicate: false,
        })
    });
    Ok(Quick::Stored(stored.collect()))
}

/// Of a database that was restored without its functions, or hardened.
fn tell_once(why: &dyn Display) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!("sends take longer, since append_batch does not work: {why}");
    });
}

/// Whether there is no such function.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "42883")
}

/// What the function is given, an array a parameter.
struct Columns<'a> {
    ids: Vec<ConversationId>,
    grows: Vec<i64>,
    places: Vec<i32>,
    nths: Vec<i64>,
    message_ids: Vec<MessageId>,
    sender_ids: Vec<UserId>,
    request_hashes: Vec<&'a [u8]>,
    contents: Vec<&'a [u8]>,
    metadatas: Vec<Option<String>>,
    mentions: Vec<Option<Vec<u8>>>,
}

impl<'a> Columns<'a> {
    /// `None` of a batch that is not plain.
    fn of(batch: &'a [NewMessage]) -> Option<Self> {
        let plan = plain(batch)?;
        let mut ends = plan.ends;
        ends.sort_unstable();
        let (ids, grows) = ends.iter().map(|(id, grow)| (*id, grow.0)).unzip();
        let sends = batch.len();
        let mut columns = Self {
            ids,
            grows,
            places: Vec::with_capacity(sends),
            nths: Vec::with_capacity(sends),
            message_ids: Vec::with_capacity(sends),
            sender_ids: Vec::with_capacity(sends),
            request_hashes: Vec::with_capacity(sends),
            contents: Vec::with_capacity(sends),
            metadatas: Vec::with_capacity(sends),
            mentions: Vec::with_capacity(sends),
        };
        for (send, (_, nth)) in batch.iter().zip(&plan.entries) {
            let place = ends.binary_search_by_key(&send.conversation_id, |(id, _)| *id);
            // From 1, as arrays there are.
            columns.places.push(i32::try_from(place.ok()? + 1).ok()?);
            columns.nths.push(nth.0);
            columns.message_ids.push(send.message_id);
            columns.sender_ids.push(send.sender_id);
            columns.request_hashes.push(&send.request_hash);
            columns.contents.push(send.content.as_bytes());
            columns.metadatas.push(metadata_json(send));
            columns.mentions.push(pack_mentions(&send.mentions));
        }
        Some(columns)
    }
}

pub(super) fn metadata_json(send: &NewMessage) -> Option<String> {
    let metadata = send.metadata.as_ref()?;
    Some(Value::Object(metadata.clone()).to_string())
}
