//! How many members of a watched group are online: told when a watch begins, then whenever the
//! number has changed. One look every 5 s for each group that somebody on this node watches,
//! however many watch it.

use std::collections::HashMap;
use std::time::Duration;

use rookery_protocol::ConversationId;
use rookery_protocol::event::{ConversationOnline, ServerEvent};
use tokio::time::MissedTickBehavior;

use super::Gateway;
use super::frame::Frame;
use super::outbox::Lane;
use super::session::Session;

/// A number on a screen: nobody needs it faster.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until the node stops.
pub(super) async fn run(gateway: Gateway) {
    let mut told: HashMap<ConversationId, i64> = HashMap::new();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gateway.tasks.stopping().cancelled() => return,
            _ = ticks.tick() => {}
        }
        let watched = gateway.registry.rooms.watched();
        told.retain(|id, _| watched.contains(id));
        for id in watched {
            let Some(count) = count(&gateway, id).await else {
                continue;
            };
            if told.insert(id, count) != Some(count) {
                gateway.registry.rooms.watchers(id, |watchers| {
                    watchers.iter().for_each(|watcher| tell(watcher, id, count));
                });
            }
        }
    }
}

/// Tells one socket now.
pub(crate) async fn tell_one(gateway: &Gateway, session: &Session, id: ConversationId) {
    if let Some(count) = count(gateway, id).await {
        tell(session, id, count);
    }
}

async fn count(gateway: &Gateway, id: ConversationId) -> Option<i64> {
    // What cannot be read now is told at the next look.
    let list = gateway.fanout.current_list(id).await.ok()??;
    // A number over few is a look at each of them, which blocks and wishes forbid.
    let members = i64::try_from(list.user_ids.len()).ok()?;
    if members <= gateway.options.receipts_max.max(2) {
        return None;
    }
    let online = gateway.appearances.online_among(&list.user_ids).await;
    i64::try_from(online).ok()
}

fn tell(session: &Session, id: ConversationId, online_count: i64) {
    // Who was removed since knows the conversation no more.
    if session.positions().get(id).is_none() {
        return;
    }
    let event = ServerEvent::ConversationOnline(ConversationOnline {
        conversation_id: id,
        online_count,
    });
    if let Some(frame) = Frame::encode(session.format, &event) {
        session.outbox.offer(Lane::Latest, frame);
    }
}
