//! What the store itself shows, held to what was acknowledged and refused.

use super::found::{About, Kind};
use super::second::World;
use crate::state::Stored;

pub(super) fn check(world: &mut World<'_>) {
    sends(world);
    logs(world);
    let (fates, logs) = (world.fates, world.logs);
    for Stored {
        conversation,
        seq,
        message_id,
        ..
    } in &logs.repeated
    {
        let about = About::entry(*conversation, seq.0).with(*message_id);
        let acked = fates.get(*message_id).and_then(|fate| fate.acked);
        let place = acked.map(|(_, place)| place);
        world.found.say(Kind::Duplicated, place, about, || {
            format!("{message_id} is stored twice, once at {seq}")
        });
    }
    world.marks.compare(world.state, &mut world.found);
}

fn sends(world: &mut World<'_>) {
    for (message, fate) in world.fates.each() {
        let stored_at = world.logs.place_of(fate.conversation, message);
        if let (Some(place), Some(seq)) = (fate.refused, stored_at) {
            let about = About::entry(fate.conversation, seq).with(message);
            world.found.say(Kind::Phantom, Some(place), about, || {
                format!("{message} was refused, and is stored at {seq}")
            });
        }
        let Some((seq, place)) = fate.acked else {
            continue;
        };
        let about = About::entry(fate.conversation, seq).with(message);
        match stored_at {
            None => world.found.say(Kind::Lost, Some(place), about, || {
                format!("{message} was acknowledged at {seq} and is not in the store")
            }),
            Some(at) if at != seq => world.found.say(Kind::Disagreeing, Some(place), about, || {
                format!("{message} was acknowledged at {seq} and is stored at {at}")
            }),
            Some(_) => {
                let stored = world.logs.log(fate.conversation).get(seq);
                let other = stored.is_some_and(|it| !it.changed && it.content != fate.content);
                if other {
                    world.found.say(Kind::Disagreeing, Some(place), about, || {
                        format!("{message} is stored with another content than was sent")
                    });
                }
            }
        }
    }
}

fn logs(world: &mut World<'_>) {
    let mut acked = std::collections::HashSet::new();
    for (_, fate) in world.fates.each() {
        acked.extend(fate.acked.map(|(seq, _)| (fate.conversation, seq)));
    }
    for (conversation, log) in world.logs.each() {
        for seq in log.holes() {
            // What was acknowledged there is reported as lost.
            if !acked.contains(&(conversation, seq)) {
                let about = About::entry(conversation, seq);
                world.found.say(Kind::Reordered, None, about, || {
                    format!("the log of {conversation} has nothing at {seq}")
                });
            }
        }
    }
    let state = world.state;
    for stored in &state.messages {
        world.nobody_sent(stored, None);
    }
}
