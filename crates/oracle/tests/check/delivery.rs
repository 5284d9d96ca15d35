//! How the model's devices hear of its logs: replays, live delivery, acks.

use std::collections::{BTreeSet, HashMap};

use rookery_oracle::{Event, Resume, Stored, View, Way};
use rookery_protocol::{ConversationId, Seq};

use super::{ROOMS, World, room_id};

impl World {
    pub(super) fn disconnect(&mut self, device: usize) {
        self.devices[device].connected = false;
        self.note(device, Event::Disconnected { code: 1006 });
    }

    pub(super) fn connect(&mut self, device: usize) {
        let first = self.devices[device].position.is_empty();
        let fresh = self.devices[device].view == View::Wire && self.chance(15);
        let named: HashMap<ConversationId, Seq> = self.devices[device]
            .position
            .iter()
            .map(|(room, seq)| (room_id(*room), Seq(*seq)))
            .collect();
        let resume = match self.devices[device].view {
            _ if fresh => Resume::Fresh,
            View::Client if !first => Resume::Kept,
            _ => Resume::Cursors(named),
        };
        let (node, epoch) = ("a".to_owned(), "first".to_owned());
        self.note(
            device,
            Event::Ready {
                node,
                epoch,
                resume,
            },
        );
        self.devices[device].connected = true;
        for room in 0..ROOMS {
            let Some(member) = self.member(room, self.devices[device].user) else {
                continue;
            };
            let head = self.head(room);
            let position = &mut self.devices[device].position;
            if fresh {
                position.insert(room, head);
            } else {
                let cursor = position.entry(room).or_insert(member.joined.0);
                // Nothing before the present membership: the store has forgotten the one before.
                *cursor = member.joined.0.max(*cursor);
                self.replay(device, room);
            }
        }
        if !fresh {
            self.note(device, Event::Synced {});
        }
        for (message_id, room) in self.devices[device].open.clone() {
            self.acknowledge(device, message_id, room, true);
        }
    }

    /// Everything missed, as it is now.
    fn replay(&mut self, device: usize, room: usize) {
        let user = self.devices[device].user;
        let member = self.member(room, user).expect("a member");
        let to = member.left.map_or(self.head(room), |left| left.0);
        let from = self.devices[device].position[&room];
        if to <= from {
            return;
        }
        let mut changed = BTreeSet::new();
        for seq in from + 1..=to {
            let entry = self.rooms[room].log[seq as usize - 1].clone();
            match entry.of {
                None => self.show(device, room, &entry, Way::Batch),
                Some(of) => {
                    changed.insert(of.0);
                }
            }
        }
        let hidden = if member.history_visible {
            0
        } else {
            member.joined.0
        };
        for of in changed.into_iter().filter(|of| *of > hidden && *of <= from) {
            let text = self.rooms[room].log[of as usize - 1].clone();
            self.show_change(device, room, None, &text);
        }
        self.devices[device].position.insert(room, to);
        let (conversation, seq) = (room_id(room), Seq(to));
        self.note(device, Event::CaughtUp { conversation, seq });
    }

    /// The next entries, live.
    pub(super) fn deliver(&mut self, device: usize, room: usize, most: usize) {
        let user = self.devices[device].user;
        let Some(member) = self.member(room, user) else {
            return;
        };
        let to = member.left.map_or(self.head(room), |left| left.0);
        let hidden = if member.history_visible {
            0
        } else {
            member.joined.0
        };
        let from = self.devices[device].position.get(&room).copied();
        let from = from.unwrap_or(member.joined.0);
        for seq in (from + 1..=to).take(most) {
            self.devices[device].position.insert(room, seq);
            let entry = self.rooms[room].log[seq as usize - 1].clone();
            match entry.of {
                None => self.show(device, room, &entry, Way::Live),
                Some(of) if of.0 > hidden => {
                    let text = self.rooms[room].log[of.0 as usize - 1].clone();
                    self.show_change(device, room, Some(entry.seq), &text);
                }
                Some(_) => {}
            }
        }
    }

    fn show(&mut self, device: usize, room: usize, entry: &Stored, way: Way) {
        let held = &self.devices[device];
        let is_open = held.open.iter().any(|(open, _)| *open == entry.message_id);
        if held.view == View::Client && is_open {
            return self.acknowledge(device, entry.message_id, room, true);
        }
        // One's own may come as an ack only, or as both; the client library hands out one.
        let known = held.acked.contains(&(room, entry.seq.0));
        let once = held.view == View::Client || way == Way::Live && self.chance(70);
        if known && once {
            return;
        }
        let event = Event::Arrived {
            conversation: room_id(room),
            seq: entry.seq,
            message_id: entry.message_id,
            content: entry.content,
            way,
        };
        self.note(device, event);
    }

    fn show_change(&mut self, device: usize, room: usize, seq: Option<Seq>, text: &Stored) {
        let event = Event::Changed {
            conversation: room_id(room),
            seq,
            of: text.seq,
            message_id: text.message_id,
            content: text.content,
        };
        self.note(device, event);
    }
}
