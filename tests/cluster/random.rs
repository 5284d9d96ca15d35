//! People who do whatever people do, at random, on three nodes; in the end every device must agree
//! with the store.
//!
//! The plan of a seed is always the same; what becomes of it depends on the moment, since most of it
//! is done without waiting for answers. A failure names its seed:
//! `ROOKERY_RANDOM_SEED=7 cargo test --test cluster random`. `make random` runs 20 seeds of 10,000
//! operations.

mod check;
mod plan;
mod verdict;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rookery_protocol::command::{
    ClientCommand, Mark, MessageDelete, MessageEdit, MessageSend, PresenceSet, PresenceWatch,
    ReactionChange, Typing,
};
use rookery_protocol::conversation::MemberRole;
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{ConversationId, MessageId, Seq, UserId};
use rookery_test_support::{
    Device, Person, Record, TestCluster, eventually_within, new_message_id,
};

use self::plan::{Op, Step};
use self::view::View;
use crate::ROOKERY;

const PEOPLE: usize = 8;
const DEVICES: usize = 2;
/// Steps of one device after which it waits until the server has followed.
const PACE: usize = 10;
/// For everything to settle, on a busy machine.
const REST: std::time::Duration = std::time::Duration::from_secs(60);
/// Messages of a conversation that are written about.
const RECENT: usize = 12;
const EMOJIS: [&str; 2] = ["👍", "❤️"];

/// One of a person's devices, and what it has done of which no event tells.
struct Player {
    device: Device,
    connected: bool,
    /// Marks sent, by their `ref`.
    marks: HashMap<String, (ConversationId, Seq)>,
    steps: usize,
    recent: Recent,
}

/// The newest messages that a device has heard of, by conversation, and whether they are its user's.
#[derive(Default)]
struct Recent {
    looked_at: usize,
    messages: HashMap<ConversationId, VecDeque<(Seq, bool)>>,
}

impl Recent {
    fn look(&mut self, me: UserId, record: &Record) {
        for event in record.all_events().skip(self.looked_at) {
            self.looked_at += 1;
            match event {
                ServerEvent::MessageAck(ack) => self.note(ack.conversation_id, ack.seq, true),
                ServerEvent::MessageNew(new) => {
                    let message = &new.message;
                    let own = message.sender_id == me;
                    self.note(message.conversation_id, message.seq, own);
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, id: ConversationId, seq: Seq, own: bool) {
        let recent = self.messages.entry(id).or_default();
        recent.push_back((seq, own));
        if recent.len() > RECENT {
            recent.pop_front();
        }
    }

    /// One of them, of one's own if asked for and if there is any; now and then one that is not
    /// there.
    fn choose(&self, id: ConversationId, own: bool, number: usize) -> Seq {
        let none = VecDeque::new();
        let recent = self.messages.get(&id).unwrap_or(&none);
        let mine: Vec<Seq> = recent
            .iter()
            .filter(|(_, is_own)| *is_own)
            .map(|m| m.0)
            .collect();
        match (recent.len(), mine.len()) {
            (0, _) => Seq(number as i64 % 5),
            _ if number.is_multiple_of(25) => Seq(number as i64),
            (_, 1..) if own => mine[number % mine.len()],
            (count, _) => recent[number % count].0,
        }
    }
}

struct World {
    began: std::time::Instant,
    cluster: TestCluster,
    people: Vec<Person>,
    players: Vec<Vec<Player>>,
    rooms: Vec<Room>,
    number: usize,
}

/// A conversation, as far as the plan knows it.
struct Room {
    id: ConversationId,
    members: BTreeSet<usize>,
}

impl World {
    async fn start(cluster: TestCluster) -> Self {
        let began = std::time::Instant::now();
        let names: [String; PEOPLE] = std::array::from_fn(|index| format!("person{index}"));
        let names: [&str; PEOPLE] = std::array::from_fn(|index| names[index].as_str());
        let people: Vec<Person> = cluster.register_all(names).await.into();
        let mut players = Vec::new();
        for (index, person) in people.iter().enumerate() {
            let mut devices = Vec::new();
            for number in 0..DEVICES {
                let device = person.connect(cluster.node(index + number)).await;
                devices.push(Player {
                    device,
                    connected: true,
                    marks: HashMap::new(),
                    steps: 0,
                    recent: Recent::default(),
                });
            }
            players.push(devices);
        }
        let everybody: Vec<&Person> = people[1..].iter().collect();
        let square = people[0].group("square", &everybody).await;
        let world = Self {
            began,
            cluster,
            people,
            players,
            rooms: vec![Room {
                id: square,
                members: (0..PEOPLE).collect(),
            }],
            number: 0,
        };
        for player in world.players.iter().flatten() {
            world.watch_everybody(&player.device);
        }
        world
    }

    fn watch_everybody(&self, device: &Device) {
        let user_ids = self.people.iter().map(Person::id).collect();
        device.command(ClientCommand::PresenceSubscribe(PresenceWatch {
            reference: None,
            user_ids,
        }));
    }

    async fn take(&mut self, step: &Step) {
        let (who, which) = (step.who % PEOPLE, step.device % DEVICES);
        if !self.players[who][which].connected {
            if matches!(step.op, Op::Resume) {
                self.resume(who, which, step.number).await;
            }
            return;
        }
        match step.op {
            Op::Resume => {}
            Op::Cut => self.cut(who, which).await,
            Op::NewGroup
            | Op::Join
            | Op::Leave
            | Op::Remove
            | Op::Promote
            | Op::Rename
            | Op::Block
            | Op::Unblock => self.by_rest(who, step).await,
            _ => self.by_socket(who, which, step).await,
        }
    }

    async fn cut(&mut self, who: usize, which: usize) {
        let player = &mut self.players[who][which];
        // What it said has been heard: a mark lost on the way would be nobody's fault.
        player.device.ping().await;
        player.device.cut().await;
        player.connected = false;
    }

    async fn resume(&mut self, who: usize, which: usize, number: usize) {
        let node = self.cluster.node(number);
        let player = &mut self.players[who][which];
        let since = player.device.read(Record::was_ready_at);
        let since = since.expect("it was ready once");
        player.device.resume_since(node, since).await;
        player.connected = true;
        self.watch_everybody(&self.players[who][which].device);
    }

    /// Mostly one that this person is a member of.
    fn room(&self, who: usize, number: usize) -> usize {
        let all = 0..self.rooms.len();
        let own: Vec<usize> = all
            .filter(|room| self.rooms[*room].members.contains(&who))
            .collect();
        match own.len() {
            0 => number % self.rooms.len(),
            _ if number.is_multiple_of(20) => number % self.rooms.len(),
            count => own[number % count],
        }
    }

    async fn by_socket(&mut self, who: usize, which: usize, step: &Step) {
        self.number += 1;
        let text = format!("{} says {}", self.people[who].name(), self.number);
        let room = self.room(who, step.room);
        let conversation_id = self.rooms[room].id;
        let player = &mut self.players[who][which];
        let me = self.people[who].id();
        player.device.read(|record| player.recent.look(me, record));
        let own = matches!(step.op, Op::Edit | Op::Delete) && !step.number.is_multiple_of(10);
        let seq = player.recent.choose(conversation_id, own, step.number);
        let Some(command) = self.command(who, step, (conversation_id, seq), text) else {
            return;
        };
        let player = &mut self.players[who][which];
        if let ClientCommand::MessageRead(mark) = &command
            && let Some(reference) = &mark.reference
        {
            let place = (mark.conversation_id, mark.seq);
            player.marks.insert(reference.clone(), place);
        }
        player.device.command(command);
        player.steps += 1;
        if player.steps.is_multiple_of(PACE) {
            player.device.ping().await;
        }
    }

    /// What a step says on a socket; `None` for a direct message to oneself.
    fn command(
        &mut self,
        who: usize,
        step: &Step,
        (conversation_id, seq): (ConversationId, Seq),
        text: String,
    ) -> Option<ClientCommand> {
        let me = self.people[who].id();
        let other = &self.people[step.number % PEOPLE];
        let (other_id, other_name) = (other.id(), other.name().to_owned());
        let reference = Some(new_message_id().to_string());
        let mark = Mark {
            reference: reference.clone(),
            conversation_id,
            seq,
        };
        let reaction = ReactionChange {
            reference: reference.clone(),
            conversation_id,
            seq,
            emoji: EMOJIS[step.room % EMOJIS.len()].to_owned(),
        };
        let send = |content: String, reply_to| MessageSend {
            reference: reference.clone(),
            message_id: new_message_id(),
            content,
            conversation_id: Some(conversation_id),
            recipient_id: None,
            reply_to,
            metadata: None,
        };
        Some(match step.op {
            Op::Send => ClientCommand::MessageSend(send(text, None)),
            Op::Reply => ClientCommand::MessageSend(send(text, Some(seq))),
            Op::Mention => {
                ClientCommand::MessageSend(send(format!("{text}, @{other_name}!"), None))
            }
            Op::Direct if other_id == me => return None,
            Op::Direct => {
                let direct = ConversationId::direct(me, other_id);
                if !self.rooms.iter().any(|room| room.id == direct) {
                    self.rooms.push(Room {
                        id: direct,
                        members: [who, step.number % PEOPLE].into(),
                    });
                }
                ClientCommand::MessageSend(MessageSend {
                    conversation_id: None,
                    recipient_id: Some(other_id),
                    ..send(text, None)
                })
            }
            Op::Read => ClientCommand::MessageRead(mark.clone()),
            Op::Delivered => ClientCommand::MessageDelivered(mark.clone()),
            Op::Edit => ClientCommand::MessageEdit(MessageEdit {
                reference,
                conversation_id,
                seq,
                content: text,
            }),
            Op::Delete => ClientCommand::MessageDelete(MessageDelete {
                reference,
                conversation_id,
                seq,
            }),
            Op::React => ClientCommand::ReactionAdd(reaction),
            Op::Unreact => ClientCommand::ReactionRemove(reaction),
            Op::Appear => ClientCommand::PresenceSet(PresenceSet {
                reference,
                status: plan::STATUSES[step.number % plan::STATUSES.len()],
            }),
            _ => ClientCommand::Typing(Typing {
                reference,
                conversation_id,
                active: true,
            }),
        })
    }

    /// Refusals are as good as successes here: what counts is what everybody sees in the end.
    async fn by_rest(&mut self, who: usize, step: &Step) {
        let api = self.people[who].at(self.cluster.node(step.number));
        let other = self.people[step.number % PEOPLE].id();
        let chosen = some_people(step.number);
        let ids: Vec<UserId> = chosen
            .iter()
            .map(|index| self.people[*index].id())
            .collect();
        let place = self.room(who, step.room);
        let room = self.rooms[place].id;
        let members = &mut self.rooms[place].members;
        match step.op {
            Op::NewGroup => {
                if let Ok(group) = api.create_group("another", &ids).await {
                    self.rooms.push(Room {
                        id: group.conversation_id,
                        members: chosen.into_iter().chain([who]).collect(),
                    });
                }
            }
            Op::Join if api.add_members(room, &ids).await.is_ok() => members.extend(chosen),
            Op::Leave if api.leave(room, self.people[who].id()).await.is_ok() => {
                members.remove(&who);
            }
            Op::Remove if api.remove_member(room, other).await.is_ok() => {
                members.remove(&(step.number % PEOPLE));
            }
            Op::Join | Op::Leave | Op::Remove => {}
            Op::Promote => drop(api.change_role(room, other, MemberRole::Admin).await),
            Op::Rename => drop(api.rename(room, &format!("room {}", step.number)).await),
            Op::Block => drop(api.block(other).await),
            _ => drop(api.unblock(other).await),
        }
    }

    /// Everybody comes back, then all must agree.
    async fn rest(&mut self, seed: u64) {
        for who in 0..PEOPLE {
            for which in 0..DEVICES {
                // One person stays away, to be seen offline.
                if !self.players[who][which].connected && who + 1 < PEOPLE {
                    self.resume(who, which, who + which).await;
                }
            }
        }
        for player in self.players.iter().flatten().filter(|p| p.connected) {
            player.device.ping().await;
        }
        let mut disagreements = Vec::new();
        let agreed = eventually_within(REST, async || {
            disagreements = check::disagreements(self).await;
            disagreements.is_empty()
        });
        let agreed = agreed.await;
        assert!(
            agreed,
            "seed {seed}: {} disagreements, the first of them:\n{}",
            disagreements.len(),
            disagreements[..disagreements.len().min(5)].join("\n")
        );
    }

    /// Every device must have been told all it was owed, once and in order, and nothing else.
    async fn judge(&self, seed: u64) {
        let report = verdict::of(self).await;
        let text = report.to_markdown("What the oracle says");
        assert!(report.is_clean(), "seed {seed}: {text}");
        println!("{:?}, not judged: {:?}", report.counts, report.unjudged);
    }

    /// What came of it. A plan of which little succeeds would prove little.
    fn sum_up(&self, operations: usize) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for player in self.players.iter().flatten() {
            player.device.read(|record| {
                for event in record.all_events() {
                    let name = match event {
                        ServerEvent::Error(error) => format!("error {}", error.code.as_str()),
                        event => event.type_name().to_owned(),
                    };
                    *counts.entry(name).or_default() += 1;
                }
            });
        }
        println!("{counts:?}");
        for (kind, share) in [("message.ack", 5), ("ok", 20), ("conversation.read", 50)] {
            let count = counts.get(kind).copied().unwrap_or_default();
            assert!(count >= operations / share, "only {count} of {kind}");
        }
    }

    fn view(&self, who: usize, which: usize) -> View {
        let player = &self.players[who][which];
        let mut view = player
            .device
            .read(|record| View::of(self.people[who].id(), record));
        let refused = player.device.read(view::refused);
        for (reference, (id, seq)) in &player.marks {
            if !refused.contains(reference) {
                view.own_mark(*id, *seq);
            }
        }
        view
    }
}

fn some_people(number: usize) -> Vec<usize> {
    let chosen = (0..PEOPLE).filter(|index| (number >> index) & 1 == 1);
    chosen.collect()
}

/// The message that a device sent, and knows by its ack alone.
type Acked = HashMap<Seq, MessageId>;

async fn run(seed: u64, operations: usize, cluster: TestCluster) {
    println!("seed {seed}, {operations} operations");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start(cluster).await;
    for _ in 0..operations {
        let step = Step::next(&mut random);
        world.take(&step).await;
    }
    world.rest(seed).await;
    if world.cluster.has_sql() {
        world.judge(seed).await;
    }
    world.sum_up(operations);
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a test's own setting")]
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

/// The settings make some groups large.
fn builder() -> rookery_test_support::Builder {
    TestCluster::builder(ROOKERY).set("ROOKERY_FANOUT_DIRECT_MAX", "4")
}

#[tokio::test]
async fn every_device_agrees_with_the_store_in_the_end() {
    let operations = setting("ROOKERY_RANDOM_OPERATIONS").unwrap_or(3_000) as usize;
    let first = setting("ROOKERY_RANDOM_SEED").unwrap_or(1);
    let seeds = setting("ROOKERY_RANDOM_SEEDS").unwrap_or(1);
    for seed in first..first + seeds {
        run(seed, operations, builder().nodes(3).start().await).await;
    }
}

#[tokio::test]
async fn every_device_of_a_single_node_agrees_with_its_store_in_the_end() {
    let seed = setting("ROOKERY_RANDOM_SEED").unwrap_or(2);
    run(seed, 1_000, builder().alone().start().await).await;
}
