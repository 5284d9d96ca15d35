//! A small world that keeps every promise, at random: logs, memberships that begin and end, devices
//! that come and go, delivery at any pace. What its devices would record is a history that is clean.

mod delivery;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rookery_oracle::{
    EntryKind, Event, FinalState, Fingerprint, History, Line, Member, Options, Report, Stored,
    View, check,
};
use rookery_protocol::message::SystemNotice;
use rookery_protocol::user::PresenceStatus;
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use uuid::Uuid;

pub(crate) const ROOMS: usize = 3;
/// Member of no room.
pub(crate) const STRANGER: usize = 0;
const PEOPLE: usize = 5;
/// Of each person: one that records frames, one that is a client library.
const VIEWS: [View; 2] = [View::Wire, View::Client];

pub(crate) fn room_id(room: usize) -> ConversationId {
    ConversationId::from_uuid(Uuid::from_u128(100 + room as u128))
}

fn user_id(user: usize) -> UserId {
    UserId::from_uuid(Uuid::from_u128(1 + user as u128))
}

#[derive(Default)]
struct Room {
    log: Vec<Stored>,
    members: BTreeMap<usize, Member>,
}

struct Device {
    user: usize,
    view: View,
    connected: bool,
    /// Up to where everything of a room was passed on.
    position: HashMap<usize, i64>,
    /// Own messages by their acks, to be passed over.
    acked: BTreeSet<(usize, i64)>,
    /// Sends without an answer.
    open: Vec<(MessageId, usize)>,
}

pub(crate) struct World {
    random: StdRng,
    rooms: Vec<Room>,
    devices: Vec<Device>,
    pub(crate) lines: Vec<Line>,
    now: u64,
    count: u128,
}

/// A finished run.
pub(crate) struct Run {
    pub(crate) lines: Vec<Line>,
    pub(crate) state: FinalState,
}

impl Run {
    pub(crate) fn of(seed: u64, steps: usize) -> Self {
        let mut world = World::new(seed);
        for _ in 0..steps {
            world.step();
        }
        world.end()
    }

    pub(crate) fn check(&self) -> Report {
        let options = Options {
            all_sends_recorded: true,
            ..Options::default()
        };
        let history = History::of_lines("model", self.lines.clone());
        check(&[history], &self.state, &options).expect("histories in memory can be read")
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            rooms: (0..ROOMS).map(|_| Room::default()).collect(),
            devices: Vec::new(),
            lines: Vec::new(),
            now: 0,
            count: 0,
        };
        let name = "model".to_owned();
        let (format, wall_ms) = (1, 5_000_000);
        let process = Event::Process {
            format,
            name,
            wall_ms,
        };
        world.write(0, process);
        for user in 0..PEOPLE {
            for view in VIEWS {
                world.devices.push(Device::new(user, view));
                let name = format!("device {}", world.devices.len());
                let user = user_id(user);
                let number = world.devices.len() - 1;
                world.note(number, Event::Device { name, user, view });
            }
        }
        for room in 0..ROOMS {
            for user in (0..PEOPLE).filter(|user| *user != STRANGER) {
                world.join(room, user, 0);
            }
        }
        for device in 0..world.devices.len() {
            world.connect(device);
        }
        world
    }

    fn write(&mut self, device: u32, event: Event) {
        self.now += 200;
        let t = self.now;
        self.lines.push(Line { t, device, event });
    }

    fn note(&mut self, device: usize, event: Event) {
        self.write(device as u32 + 1, event);
    }

    fn pick(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    fn chance(&mut self, per_cent: u32) -> bool {
        self.random.random_range(0..100) < per_cent
    }

    fn step(&mut self) {
        let (device, room) = (self.pick(self.devices.len()), self.pick(ROOMS));
        match (self.devices[device].connected, self.pick(100)) {
            (true, 0..30) => self.send(device, room),
            (true, 30..36) => self.change(device, room),
            (true, 36..40) => self.disconnect(device),
            (false, 0..40) => self.connect(device),
            (_, 40..43) => self.come_or_go(room),
            (true, 43..) => self.deliver(device, room, 4),
            _ => {}
        }
    }

    fn head(&self, room: usize) -> i64 {
        self.rooms[room].log.len() as i64
    }

    fn member(&self, room: usize, user: usize) -> Option<Member> {
        self.rooms[room].members.get(&user).copied()
    }

    fn is_present(&self, room: usize, user: usize) -> bool {
        self.member(room, user)
            .is_some_and(|member| member.left.is_none())
    }

    fn append(&mut self, room: usize, user: usize, kind: EntryKind) -> &mut Stored {
        self.count += 1;
        let seq = Seq(self.head(room) + 1);
        let message_id = MessageId::from_uuid(Uuid::from_u128(1_000_000 + self.count));
        let log = &mut self.rooms[room].log;
        log.push(Stored {
            conversation: room_id(room),
            seq,
            message_id,
            sender: user_id(user),
            kind,
            of: None,
            content: Fingerprint::of(&format!("notice {}", self.count)),
            changed: false,
            notice: None,
        });
        log.last_mut().expect("one was pushed")
    }

    fn join(&mut self, room: usize, user: usize, joined: i64) {
        let member = Member {
            conversation: room_id(room),
            user: user_id(user),
            joined: Seq(joined),
            left: None,
            history_visible: room == 1,
            delivered: Seq(joined),
            read: Seq(joined),
        };
        self.rooms[room].members.insert(user, member);
    }

    fn come_or_go(&mut self, room: usize) {
        let user = 1 + self.pick(PEOPLE - 1);
        let joined = self.head(room);
        let is_present = self.is_present(room, user);
        if is_present && self.chance(60) {
            return;
        }
        let entry = self.append(room, user, EntryKind::System);
        let (seq, user_id) = (entry.seq, user_id(user));
        let notice = if is_present {
            SystemNotice::MemberRemoved { user_id }
        } else {
            let user_ids = vec![user_id];
            SystemNotice::MembersAdded { user_ids }
        };
        let entry = self.rooms[room].log.last_mut().expect("one was appended");
        entry.notice = Some(notice);
        if is_present {
            let member = self.rooms[room].members.get_mut(&user);
            member.expect("a member").left = Some(seq);
        } else {
            // What is still owed from before is forgotten, as in the store; whoever is connected
            // begins with the joining.
            self.join(room, user, joined);
            for device in self.devices.iter_mut().filter(|device| device.user == user) {
                if device.connected {
                    let position = device.position.entry(room).or_default();
                    *position = joined.max(*position);
                }
            }
        }
    }

    fn send(&mut self, device: usize, room: usize) {
        let user = self.devices[device].user;
        self.count += 1;
        let message_id = MessageId::from_uuid(Uuid::from_u128(2_000_000 + self.count));
        let conversation = room_id(room);
        let content = Fingerprint::of(&format!("text {}", self.count));
        self.note(
            device,
            Event::Send {
                message_id,
                conversation,
                content,
            },
        );
        if !self.is_present(room, user) {
            let code = "NOT_FOUND".to_owned();
            let retryable = false;
            return self.note(
                device,
                Event::Refused {
                    message_id,
                    code,
                    retryable,
                },
            );
        }
        let entry = self.append(room, user, EntryKind::Text);
        (entry.message_id, entry.content) = (message_id, content);
        self.devices[device].open.push((message_id, room));
        if self.chance(10) {
            // The ack is lost with the connection.
            self.disconnect(device);
        } else {
            self.acknowledge(device, message_id, room, false);
        }
    }

    fn acknowledge(&mut self, device: usize, message_id: MessageId, room: usize, duplicate: bool) {
        let entry = self.rooms[room]
            .log
            .iter()
            .find(|entry| entry.message_id == message_id);
        let seq = entry.expect("what is acknowledged is stored").seq;
        let held = &mut self.devices[device];
        held.open.retain(|(open, _)| *open != message_id);
        held.acked.insert((room, seq.0));
        let conversation = room_id(room);
        self.note(
            device,
            Event::Ack {
                message_id,
                conversation,
                seq,
                duplicate,
            },
        );
    }

    /// An edit or a deletion of a text, or a reaction to one.
    fn change(&mut self, device: usize, room: usize) {
        let user = self.devices[device].user;
        let texts = self.rooms[room].log.iter();
        let texts = texts.filter(|entry| entry.kind == EntryKind::Text);
        let texts: Vec<i64> = texts.map(|entry| entry.seq.0).collect();
        if texts.is_empty() || !self.is_present(room, user) {
            return;
        }
        let of = texts[self.pick(texts.len())];
        if self.chance(60) {
            self.count += 1;
            let edited = Fingerprint::of(&format!("edited {}", self.count));
            let content = if self.chance(20) {
                Fingerprint::EMPTY
            } else {
                edited
            };
            let conversation = room_id(room);
            self.note(
                device,
                Event::Edit {
                    conversation,
                    of: Seq(of),
                    content,
                },
            );
            let text = &mut self.rooms[room].log[of as usize - 1];
            (text.content, text.changed) = (content, true);
        }
        let entry = self.append(room, user, EntryKind::Change);
        (entry.of, entry.content) = (Some(Seq(of)), Fingerprint::EMPTY);
    }

    /// Most come back, everything is delivered, and presence comes to rest.
    fn end(mut self) -> Run {
        for device in 0..self.devices.len() {
            if !self.devices[device].connected && self.chance(80) {
                self.connect(device);
            }
        }
        for device in 0..self.devices.len() {
            for room in 0..ROOMS {
                if self.devices[device].connected {
                    self.deliver(device, room, usize::MAX);
                }
            }
        }
        self.now += 60_000;
        for device in 0..self.devices.len() {
            for user in 0..PEOPLE {
                let devices = self.devices.iter().filter(|device| device.user == user);
                let online = devices.clone().any(|device| device.connected);
                let status = if online {
                    PresenceStatus::Online
                } else {
                    PresenceStatus::Offline
                };
                let user = user_id(user);
                if self.devices[device].connected {
                    self.note(device, Event::Presence { user, status });
                }
            }
        }
        for device in 0..self.devices.len() {
            let connected = self.devices[device].connected;
            let open = &self.devices[device].open;
            let outbox = open.iter().map(|(message, _)| *message).collect();
            self.note(device, Event::End { connected, outbox });
        }
        let messages = self.rooms.iter().flat_map(|room| room.log.clone());
        let members = self.rooms.iter().flat_map(|room| room.members.values());
        let state = FinalState {
            epoch: Some("first".to_owned()),
            messages: messages.collect(),
            memberships: members.copied().collect(),
            ..FinalState::default()
        };
        Run {
            lines: self.lines,
            state,
        }
    }
}

impl Device {
    fn new(user: usize, view: View) -> Self {
        Self {
            user,
            view,
            connected: false,
            position: HashMap::new(),
            acked: BTreeSet::new(),
            open: Vec::new(),
        }
    }
}

#[test]
fn a_run_that_keeps_every_promise_is_clean() {
    for seed in 0..100 {
        let run = Run::of(seed, 600);
        let report = run.check();
        let text = report.to_markdown("not clean");
        assert!(report.is_clean(), "seed {seed}: {text}");
        let counts = report.counts;
        assert!(
            counts.arrivals > 200 && counts.connections > 15,
            "{counts:?}"
        );
    }
}

/// Twice the steps make twice the events, and must make twice the work.
#[test]
fn the_work_grows_with_the_events() {
    let per_event = |steps: usize| {
        let report = Run::of(1, steps).check();
        report.work as f64 / report.counts.events as f64
    };
    let (short, long) = (per_event(1_000), per_event(16_000));
    assert!(
        short < 2.0 && long < 2.0,
        "{short} and {long} entries an event"
    );
}
