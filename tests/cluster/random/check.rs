//! Compares what each device believes with what the store says.

use std::collections::{BTreeMap, HashMap};

use rookery_client::rest::Span;
use rookery_protocol::conversation::Conversation;
use rookery_protocol::message::Message;
use rookery_protocol::user::PresenceStatus;
use rookery_protocol::{ConversationId, Seq};
use rookery_test_support::Person;

use super::view::{Room, View};
use super::{DEVICES, PEOPLE, World};

/// Everything that does not agree, a line each.
pub(super) async fn disagreements(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for (who, person) in world.people.iter().enumerate() {
        let stored = person.all_conversations().await.expect("the list");
        let mut logs = HashMap::new();
        for conversation in &stored {
            let id = conversation.conversation_id;
            logs.insert(id, log(person, id).await);
        }
        for which in 0..DEVICES {
            if !world.players[who][which].connected {
                continue;
            }
            let view = world.view(who, which);
            let mut say = |what: String| {
                found.push(format!("{}'s device {which}: {what}", person.name()));
            };
            conversations(person, &view, &stored, &logs, &mut say);
            presence(world, who, &view, &mut say).await;
        }
    }
    found
}

/// All messages that a member may see.
async fn log(person: &Person, id: ConversationId) -> BTreeMap<Seq, Message> {
    let mut log = BTreeMap::new();
    let mut after = Seq::ZERO;
    loop {
        let page = person.history(id, Span::After(after), 200).await;
        let page = page.expect("history");
        log.extend(page.items.into_iter().map(|message| (message.seq, message)));
        match log.last_key_value() {
            Some((last, _)) if page.has_more => after = *last,
            _ => return log,
        }
    }
}

fn conversations(
    person: &Person,
    view: &View,
    stored: &[Conversation],
    logs: &HashMap<ConversationId, BTreeMap<Seq, Message>>,
    say: &mut impl FnMut(String),
) {
    for (id, room) in &view.rooms {
        let is_member = stored.iter().any(|c| c.conversation_id == *id);
        if room.present && !is_member {
            say(format!("believes to be a member of {id}"));
        }
    }
    for conversation in stored {
        let id = conversation.conversation_id;
        let nothing = Room::default();
        // A conversation from before this device connected is known by its messages alone.
        let room = view.rooms.get(&id).unwrap_or(&nothing);
        messages(id, room, &logs[&id], say);
        if room.read > conversation.me.read_seq {
            say(format!(
                "has read {id} up to {}, the store says {}",
                room.read, conversation.me.read_seq
            ));
        }
        if !room.present {
            continue;
        }
        if room.read != conversation.me.read_seq {
            say(format!(
                "has read {id} up to {}, the store says {}",
                room.read, conversation.me.read_seq
            ));
        }
        if room.title != conversation.title {
            say(format!(
                "calls {id} {:?}, not {:?}",
                room.title, conversation.title
            ));
        }
        let unread = room.unread(person.id());
        if unread != conversation.unread_count {
            say(format!(
                "counts {unread} unread in {id}, the store {} (read up to {})",
                conversation.unread_count, conversation.me.read_seq
            ));
        }
    }
}

fn messages(
    id: ConversationId,
    room: &Room,
    log: &BTreeMap<Seq, Message>,
    say: &mut impl FnMut(String),
) {
    let first = room.messages.keys().next().copied();
    let from = if room.present {
        room.from.next()
    } else {
        first.unwrap_or(Seq(i64::MAX))
    };
    for (seq, stored) in log.range(from..) {
        match room.messages.get(seq) {
            Some(seen) if same(seen, stored) => {}
            Some(seen) => say(format!(
                "shows {id} {seq} as {seen:?}, the store has {stored:?}"
            )),
            None if room.acked.get(seq) == Some(&stored.message_id) => {}
            None => say(format!("lacks {id} {seq}: {stored:?}")),
        }
    }
    for (seq, seen) in &room.messages {
        if !log.contains_key(seq) && room.present {
            say(format!("shows {id} {seq}, which is not there: {seen:?}"));
        }
    }
}

/// But for the status, which receipts bring up to date.
fn same(seen: &Message, stored: &Message) -> bool {
    let without_status = |message: &Message| Message {
        status: None,
        ..message.clone()
    };
    without_status(seen) == without_status(stored)
}

/// Everybody appears as their sockets, their wish and their blocks have it. What others are to see
/// the store does not know, so REST is asked, and the sockets are counted here.
async fn presence(world: &World, who: usize, view: &View, say: &mut impl FnMut(String)) {
    for other in (0..PEOPLE).filter(|other| *other != who) {
        let person = &world.people[other];
        let Ok(stored) = world.people[who].presence(person.id()).await else {
            // They share no conversation any more.
            continue;
        };
        let connected = world.players[other].iter().any(|player| player.connected);
        if !connected && stored.status != PresenceStatus::Offline {
            say(format!(
                "sees {} online, who is not connected",
                person.name()
            ));
        }
        let seen = view.presence.get(&person.id());
        if seen.is_some_and(|seen| seen.status != stored.status) {
            let seen = seen.map(|seen| seen.status);
            say(format!(
                "sees {} {seen:?}, REST {:?}",
                person.name(),
                stored.status
            ));
        }
    }
}
