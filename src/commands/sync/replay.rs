//! Carries out a sync's plan, at the pace of the reader.

use rookery_protocol::event::{
    ConversationChanged, ConversationRead, MemberChanged, MessageBatch, Receipt, ServerEvent,
    SyncDone, SyncStart,
};
use rookery_protocol::message::{Message, SystemNotice};
use rookery_protocol::{CloseCode, ConversationId, Seq, Timestamp, limits};

use super::plan::{Plan, Replay};
use super::{Stopped, tell};
use crate::chat::receipts::set_statuses;
use crate::failpoint::{self, Failpoint};
use crate::gateway::{Gateway, Push, Session, give_up_seat, noted};
use crate::metrics;
use crate::store::{LogEntry, OwnReads};
use crate::telemetry::MESSAGE;

/// Read marks looked up at once.
const READ_MARKS: i64 = 200;
/// How far the clocks of two nodes may be apart: a mark is told twice rather than not at all.
const CLOCKS_APART_MS: i64 = 5_000;
/// Messages in one batch.
const BATCH: i64 = 100;
/// A batch is cut here, so that no frame is larger than a client has to expect.
const BATCH_BYTES: usize = 256 * 1024;

pub(super) async fn run(
    gateway: &Gateway,
    session: &Session,
    plan: Plan,
    reference: Option<String>,
    since: Option<Timestamp>,
) -> Result<(), Stopped> {
    begin(gateway, session, &plan, reference.clone()).await?;
    let mut count = 0;
    for replay in &plan.replays {
        if replay.created {
            introduce(gateway, session, replay).await?;
        }
        count += messages(gateway, session, replay, reference.as_ref()).await?;
        if replay.left {
            forget(gateway, session, replay.conversation_id).await;
        }
    }
    read_marks(gateway, session, &plan, since).await?;
    reads_of_others(gateway, session, since).await?;
    let done = SyncDone {
        reference,
        count,
        reset: plan.resets.clone(),
    };
    end(gateway, session, &plan, done).await
}

/// Queues `sync.start` and makes the plan come true, as one step: nothing of a conversation comes
/// before it, and everything the plan counts on is so from then on.
async fn begin(
    gateway: &Gateway,
    session: &Session,
    plan: &Plan,
    reference: Option<String>,
) -> Result<(), Stopped> {
    room(session).await?;
    let newer = {
        let mut positions = session.positions();
        session.send(&ServerEvent::SyncStart(SyncStart {
            reference,
            count: plan.count,
        }));
        plan.apply(&mut positions)
    };
    noted(gateway, session, newer).await;
    Ok(())
}

/// Queues `sync.done` and lets go of what was held for it, as one step too: what the device reads
/// behind `sync.done` goes on from the resets that it names.
async fn end(
    gateway: &Gateway,
    session: &Session,
    plan: &Plan,
    done: SyncDone,
) -> Result<(), Stopped> {
    failpoint::pass(Failpoint::BeforeSyncDone).await;
    room(session).await?;
    let newer = {
        let mut positions = session.positions();
        // First, since whoever has read `sync.done` may ask for the next one, which waits for the
        // positions. A sync that does not get here has closed its socket.
        session.end_sync();
        session.send(&ServerEvent::SyncDone(done));
        plan.release(&mut positions)
    };
    noted(gateway, session, newer).await;
    Ok(())
}

/// Waits until the reader has taken most of what is queued.
async fn room(session: &Session) -> Result<(), Stopped> {
    match session.outbox.room().await {
        Push::Queued | Push::Shed => Ok(()),
        Push::Closed => Err(Stopped::Gone),
    }
}

/// Tells what others have read since the device was last here, where everybody is told of it.
async fn reads_of_others(
    gateway: &Gateway,
    session: &Session,
    since: Option<Timestamp>,
) -> Result<(), Stopped> {
    let Some(since) = since.map(|since| since.plus_millis(-CLOCKS_APART_MS)) else {
        return Ok(());
    };
    let members_max = gateway.options.receipts_max;
    let reads = gateway
        .store
        .reads_of_others(session.user_id, since, members_max);
    for read in reads.await? {
        let receipt = Receipt {
            conversation_id: read.conversation_id,
            user_id: read.user_id,
            seq: read.read_seq,
            at: read.read_at,
        };
        tell(session, &ServerEvent::ReceiptRead(receipt)).await?;
    }
    Ok(())
}

/// The socket's user is no member any more.
async fn forget(gateway: &Gateway, session: &Session, id: ConversationId) {
    session.positions().forget(id);
    give_up_seat(gateway, session, id).await;
}

/// Tells what the user has read on other devices: since the time the device was last here, and in
/// what was replayed.
async fn read_marks(
    gateway: &Gateway,
    session: &Session,
    plan: &Plan,
    since: Option<Timestamp>,
) -> Result<(), Stopped> {
    let replayed: Vec<ConversationId> = plan.replays.iter().map(|r| r.conversation_id).collect();
    if since.is_none() && replayed.is_empty() {
        return Ok(());
    }
    let mut page = OwnReads {
        user_id: session.user_id,
        since: since.map(|since| since.plus_millis(-CLOCKS_APART_MS)),
        among: &replayed,
        after: None,
        limit: READ_MARKS,
    };
    loop {
        let marks = gateway.store.own_reads(&page).await?;
        for mark in &marks {
            let read = ConversationRead {
                conversation_id: mark.conversation_id,
                seq: mark.seq,
                at: mark.at,
                last_seq: mark.last_seq,
                unread_count: mark.unread_count,
                mention_count: mark.mention_count,
            };
            tell(session, &ServerEvent::ConversationRead(read)).await?;
        }
        page.after = marks.last().map(|mark| mark.conversation_id);
        if (marks.len() as i64) < READ_MARKS {
            return Ok(());
        }
    }
}

async fn introduce(gateway: &Gateway, session: &Session, replay: &Replay) -> Result<(), Stopped> {
    let id = replay.conversation_id;
    // Left a moment ago: the end of the membership is told by its entry.
    let Some(conversation) = gateway.store.conversation(session.user_id, id).await? else {
        return Ok(());
    };
    let changed = ConversationChanged {
        conversation_id: id,
        seq: replay.from,
        conversation,
    };
    tell(session, &ServerEvent::ConversationCreated(changed)).await
}

/// Replays one conversation until it is live. Returns the messages sent.
async fn messages(
    gateway: &Gateway,
    session: &Session,
    replay: &Replay,
    reference: Option<&String>,
) -> Result<i64, Stopped> {
    let id = replay.conversation_id;
    let mut position = replay.from;
    let mut target = replay.to;
    let mut count = 0;
    while position < target {
        let entries = gateway.store.entries(id, position, target, BATCH).await?;
        let entries = cut(entries);
        let Some(last) = entries.last() else {
            // Behind the window of one who left meanwhile: nothing more to be had.
            session.positions().synced_to(id, target);
            break;
        };
        let told_before = position;
        position = last.seq();
        let mut messages = Vec::with_capacity(entries.len());
        let mut changed: Vec<Message> = Vec::new();
        for entry in entries {
            match entry {
                LogEntry::Message(message) => messages.push(message),
                LogEntry::Change(change) => {
                    // What this page brings is there as it is now.
                    let older = change.message.seq <= told_before;
                    let visible = change.message.seq > replay.visible_from;
                    if older && visible && !changed.iter().any(|m| m.seq == change.message.seq) {
                        changed.push(change.message);
                    }
                }
                LogEntry::Blank { .. } => {}
            }
        }
        let told = messages.iter_mut().chain(&mut changed);
        set_statuses(gateway.store.as_ref(), session.user_id, id, told).await?;
        count += messages.len() as i64;
        metrics::delivered_total()
            .resume
            .increment(messages.len() as u64);
        tracing::debug!(
            target: MESSAGE,
            conversation_id = %id,
            after = %told_before,
            to = %position,
            connection = session.id,
            "replayed"
        );
        let notices: Vec<(Seq, SystemNotice)> = messages
            .iter()
            .filter_map(|m| Some((m.seq, SystemNotice::of(m)?)))
            .collect();
        let batch = MessageBatch {
            reference: reference.cloned(),
            conversation_id: id,
            messages,
            changed,
            to_seq: position,
            more: position < target,
        };
        tell(session, &ServerEvent::MessageBatch(batch)).await?;
        changes(gateway, session, replay, &notices).await?;
        if position < target || replay.left {
            continue;
        }
        // Asked only after the batch is queued: what passes live from now on comes behind it.
        let raised = session.positions().synced_to(id, position);
        if let Some(raised) = raised {
            target = window_end(gateway, session, replay, position, raised).await?;
            if target <= position {
                forget(gateway, session, id).await;
            }
        }
    }
    Ok(count)
}

/// How far a raised target may be read: one who left and came back meanwhile has a hole in their
/// window on the log, and starts over.
async fn window_end(
    gateway: &Gateway,
    session: &Session,
    replay: &Replay,
    position: Seq,
    raised: Seq,
) -> Result<Seq, Stopped> {
    let id = replay.conversation_id;
    let membership = gateway.store.membership(session.user_id, id).await?;
    match membership {
        Some(membership) if membership.visible_from <= position => {
            Ok(raised.min(membership.visible_to()))
        }
        _ => {
            session.close(CloseCode::Resynchronise);
            Err(Stopped::Gone)
        }
    }
}

/// Shortens a page so that its batch stays a frame of bounded size; at least one message stays.
fn cut(mut entries: Vec<LogEntry>) -> Vec<LogEntry> {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        let message = match entry {
            LogEntry::Message(message) => Some(message),
            LogEntry::Change(change) => Some(&change.message),
            LogEntry::Blank { .. } => None,
        };
        bytes += serde_json::to_vec(&message).map_or(BATCH_BYTES, |encoded| encoded.len());
        bytes <= BATCH_BYTES
    });
    let fits = fits.count().max(1);
    entries.truncate(fits);
    entries
}

/// Tells what the replayed notices changed, as it is now.
async fn changes(
    gateway: &Gateway,
    session: &Session,
    replay: &Replay,
    notices: &[(Seq, SystemNotice)],
) -> Result<(), Stopped> {
    let id = replay.conversation_id;
    let updated = notices.iter().rfind(|(_, notice)| match notice {
        SystemNotice::GroupUpdated { .. } | SystemNotice::RoleChanged { .. } => true,
        // Removed and back again: marks and role are new.
        SystemNotice::MembersAdded { user_ids } => user_ids.contains(&session.user_id),
        _ => false,
    });
    if let Some((seq, _)) = updated
        && !replay.created
        && let Some(conversation) = gateway.store.conversation(session.user_id, id).await?
    {
        let changed = ConversationChanged {
            conversation_id: id,
            seq: *seq,
            conversation,
        };
        tell(session, &ServerEvent::ConversationUpdated(changed)).await?;
    }
    for (seq, notice) in notices {
        let (users, added) = match notice {
            SystemNotice::MembersAdded { user_ids } if user_ids.len() <= limits::MEMBER_EVENTS => {
                (user_ids.clone(), true)
            }
            SystemNotice::MemberRemoved { user_id } | SystemNotice::MemberLeft { user_id } => {
                (vec![*user_id], false)
            }
            _ => continue,
        };
        for member in gateway.store.members_by_id(id, &users).await? {
            let changed = MemberChanged {
                conversation_id: id,
                seq: *seq,
                member,
            };
            let event = if added {
                ServerEvent::MemberAdded(changed)
            } else {
                ServerEvent::MemberRemoved(changed)
            };
            tell(session, &event).await?;
        }
    }
    Ok(())
}
