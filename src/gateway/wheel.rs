//! When which socket is to be looked at: a wheel with a slot for each second that a look can be away, so that
//! a second costs what is due in it, however many sockets there are.

use rookery_protocol::UserId;

use super::HEARTBEAT_SECONDS;

/// A look is at most a heartbeat away.
const SLOTS: u32 = HEARTBEAT_SECONDS + 1;

/// A socket on the wheel, found in the registry by this. One that has gone is dropped at its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub user_id: UserId,
    pub id: u64,
    /// When its next ping is due, in seconds of the node's life.
    pub ping_at: u32,
}

impl Due {
    /// A socket that has come since this second.
    pub(super) fn first(user_id: UserId, id: u64, since: u32) -> Self {
        Self {
            user_id,
            id,
            ping_at: next_ping(id, since),
        }
    }

    /// Whether a ping is due; then the next one is due a heartbeat later.
    pub(super) fn takes_ping(&mut self, now: u32) -> bool {
        let is_due = now >= self.ping_at;
        if is_due {
            self.ping_at = next_ping(self.id, now);
        }
        is_due
    }
}

/// The second behind this one in which a socket is pinged: sockets that came at once are not pinged at once.
fn next_ping(id: u64, now: u32) -> u32 {
    let place = (u64::from(now) + id) % u64::from(HEARTBEAT_SECONDS);
    // Below 25, so it fits.
    now + HEARTBEAT_SECONDS - place as u32
}

#[derive(Debug)]
pub(super) struct Wheel {
    slots: [Vec<Due>; SLOTS as usize],
    /// The last second that was taken.
    now: u32,
}

impl Wheel {
    pub(super) fn new(now: u32) -> Self {
        Self {
            slots: std::array::from_fn(|_| Vec::new()),
            now,
        }
    }

    /// The last second that was taken.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// To be looked at in the second `at`: behind the last one that was taken, and not a turn of the wheel away.
    pub(super) fn put(&mut self, at: u32, due: Due) {
        let at = at.clamp(self.now + 1, self.now + SLOTS);
        self.slots[(at % SLOTS) as usize].push(due);
    }

    /// What is due until `now`. A busy node looks late, and skips no second.
    pub(super) fn take(&mut self, now: u32) -> Vec<Due> {
        let mut due = Vec::new();
        for at in (self.now + 1..=now).take(SLOTS as usize) {
            due.append(&mut std::mem::take(&mut self.slots[(at % SLOTS) as usize]));
        }
        self.now = now;
        due
    }
}

#[cfg(test)]
impl Wheel {
    pub(super) fn len(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(id: u64, now: u32) -> Due {
        Due::first(UserId::from_uuid(uuid::Uuid::nil()), id, now)
    }

    #[test]
    fn each_socket_is_pinged_once_in_a_heartbeat_however_late_the_looks_are() {
        for looks in [
            (1..=200).collect::<Vec<u32>>(),
            (7..=200).step_by(7).collect(),
            vec![3, 24, 49, 50, 75, 99, 120, 145, 170, 195, 200],
        ] {
            for id in 0..50 {
                let mut wheel = Wheel::new(0);
                let first = due(id, 0);
                wheel.put(first.ping_at, first);
                let mut pings = 0;
                for &now in &looks {
                    for mut due in wheel.take(now) {
                        pings += u64::from(due.takes_ping(now));
                        wheel.put(due.ping_at, due);
                    }
                }
                let last = u64::from(*looks.last().unwrap());
                assert_eq!(pings, (last + id) / 25 - id / 25, "socket {id}, {looks:?}");
            }
        }
    }

    #[test]
    fn what_was_put_comes_in_its_second_and_once() {
        let mut wheel = Wheel::new(100);
        for at in 101..=100 + SLOTS {
            wheel.put(at, due(u64::from(at), 100));
        }
        for at in 101..=100 + SLOTS {
            let ids: Vec<_> = wheel.take(at).iter().map(|due| due.id).collect();
            assert_eq!(ids, [u64::from(at)]);
        }
        assert!(wheel.take(100 + 3 * SLOTS).is_empty());
    }

    #[test]
    fn what_is_asked_for_too_early_or_too_late_is_not_lost() {
        let mut wheel = Wheel::new(100);
        wheel.put(90, due(1, 100));
        wheel.put(u32::MAX, due(2, 100));
        assert_eq!(wheel.take(101).len(), 1);
        assert_eq!(wheel.take(100 + 2 * SLOTS).len(), 1, "after a standstill");
    }
}
