//! Carries out a sync's plan, at the pace of the reader.

use rookery_protocol::event::{
    ConversationChanged, MemberChanged, MessageBatch, ServerEvent, SyncDone, SyncStart,
};
use rookery_protocol::message::{Message, MessageStatus, SystemNotice};
use rookery_protocol::{CloseCode, ConversationId, Seq, limits};

use super::plan::{Plan, Replay};
use super::{Stopped, tell};
use crate::gateway::{Gateway, Session, give_up_seat};
use crate::metrics;
use crate::store::LogEntry;

/// Messages in one batch.
const BATCH: i64 = 100;
/// A batch is cut here, so that no frame is larger than a client has to expect.
const BATCH_BYTES: usize = 256 * 1024;

pub(super) async fn run(
    gateway: &Gateway,
    session: &Session,
    plan: Plan,
    reference: Option<String>,
) -> Result<(), Stopped> {
    let start = SyncStart {
        reference: reference.clone(),
        count: plan.count,
    };
    tell(session, &ServerEvent::SyncStart(start)).await?;
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
    let done = SyncDone {
        reference,
        count,
        reset: plan.resets,
    };
    tell(session, &ServerEvent::SyncDone(done)).await
}

/// The socket's user is no member any more.
async fn forget(gateway: &Gateway, session: &Session, id: ConversationId) {
    session.positions().forget(id);
    give_up_seat(gateway, session, id).await;
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
        for message in messages.iter_mut().chain(&mut changed) {
            let own = message.sender_id == session.user_id;
            message.status = own.then_some(MessageStatus::Sent);
        }
        count += messages.len() as i64;
        metrics::delivered_total()
            .resume
            .increment(messages.len() as u64);
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
    let updated = notices.iter().rfind(|(_, notice)| {
        matches!(
            notice,
            SystemNotice::GroupUpdated { .. } | SystemNotice::RoleChanged { .. }
        )
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
