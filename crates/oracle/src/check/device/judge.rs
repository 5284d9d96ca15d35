//! What a device was shown, held to the store: whether it was for its user, whether it is what is
//! there, and what it shows in the end.

use super::{Brought, Device};
use crate::check::found::{About, Kind};
use crate::check::order::Step;
use crate::check::people::Truth;
use crate::check::second::World;
use crate::check::windows::Sight;
use crate::event::View;
use crate::history::Place;
use crate::state::Stored;

impl Device {
    /// Whether this user may see it: the entry, and the message that it shows.
    pub(super) fn sight(&self, world: &mut World<'_>, place: Place, brought: Brought, entry: i64) {
        let windows = world.ground(brought.conversation, self.user).windows;
        let sight = match windows.sight(brought.seq) {
            Sight::Allowed => windows.sight(entry),
            other => other,
        };
        let about = About::entry(brought.conversation, brought.seq).with(brought.message);
        match sight {
            Sight::Allowed => {}
            Sight::Unknown => world
                .found
                .cannot_judge("arrivals from before a re-joining", 1),
            Sight::Forbidden => world.found.say(Kind::Leaked, Some(place), about, || {
                format!(
                    "{} got {} of {}, which is none of {}'s",
                    self.name, brought.seq, brought.conversation, self.user
                )
            }),
        }
    }

    /// Judges whether it is what the store has there; returns whether the store has anything.
    pub(super) fn content(
        &mut self,
        world: &mut World<'_>,
        place: Place,
        brought: Brought,
    ) -> bool {
        let Brought {
            conversation,
            seq,
            message,
            content,
        } = brought;
        let about = About::entry(conversation, seq).with(message);
        let name = &self.name;
        let Some(stored) = world.logs.log(conversation).get(seq) else {
            world.found.say(Kind::Phantom, Some(place), about, || {
                format!("{name} got {message} at {seq}, where the store has nothing")
            });
            return false;
        };
        if stored.message_id != message {
            let there = stored.message_id;
            world.found.say(Kind::Disagreeing, Some(place), about, || {
                format!("{name} got {message} at {seq}, the store has {there} there")
            });
            return true;
        }
        world.nobody_sent(stored, Some(place));
        if stored.changed {
            self.shown.insert((conversation, seq), (content, place));
        }
        if !world.may_show(stored, content) {
            world.found.say(Kind::Disagreeing, Some(place), about, || {
                format!("{name} got {seq} with another content than the store has")
            });
        }
        true
    }

    /// The device's own end, with everything at rest.
    pub(super) fn end(&mut self, world: &mut World<'_>, place: Place, connected: bool) {
        if !connected || self.ready.is_none() {
            return;
        }
        for conversation in world.memberships.conversations(self.user) {
            let (replays, view) = (self.replays, self.view);
            let ground = world.ground(*conversation, self.user);
            let order = self.order(world.slack(), *conversation);
            let step = match view {
                View::Client if order.replays != replays => Step::Replayed,
                _ => Step::Live,
            };
            order.end(step, place, ground, &mut world.work);
        }
        self.shows_the_last_state(world);
        self.sees_people(world, place);
    }

    /// Of a message that was changed a device that heard all of its membership since it got the
    /// message shows the last state.
    fn shows_the_last_state(&self, world: &mut World<'_>) {
        for (&(conversation, seq), &(content, place)) in &self.shown {
            let ground = world.ground(conversation, self.user);
            let heard_all = place.line > self.gap_line
                && ground
                    .windows
                    .last()
                    .is_some_and(|(joined, left)| joined < seq && left == i64::MAX);
            let Some(Stored { content: last, .. }) = ground.log.get(seq) else {
                continue;
            };
            if heard_all && *last != content {
                let about = About::entry(conversation, seq);
                world.found.say(Kind::Disagreeing, Some(place), about, || {
                    format!("{} shows {seq} as it was before a change", self.name)
                });
            }
        }
    }

    fn sees_people(&self, world: &mut World<'_>, place: Place) {
        for (user, (status, seen)) in &self.presence {
            let times = (seen.at, place.at);
            let truth =
                world
                    .people
                    .truth(*user, self.user, times, world.options.presence_bound_ms);
            match truth {
                Truth::Status(truth) if truth == *status => {}
                Truth::Status(truth) => {
                    let about = About::default();
                    world.found.say(Kind::Presence, Some(*seen), about, || {
                        format!("{} shows {user} {status:?}, who is {truth:?}", self.name)
                    });
                }
                Truth::Unknown(why) => world.found.cannot_judge(why, 1),
            }
        }
    }
}
