//! One `message_id` from two sockets of an account at once, on two nodes, and again from others.
//! All of it is in the history, and the oracle judges that each message is stored once; here it is
//! seen that every answer names the same place, and that another content is refused.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use rookery_client::{Live, LiveConfig, Outgoing, Start, Update};
use rookery_oracle::View;
use rookery_oracle::client::LiveRecorder;
use rookery_protocol::{ErrorCode, MessageId, Seq};
use tokio::time::{Instant, timeout_at};

use super::nothing;
use crate::kinds::{Kind, Part, Victim};
use crate::people::Account;
use crate::world::{NODES, World};

/// Messages of a race.
const MESSAGES: usize = 20;
/// How long one socket may take for all of them: longer than any other fault lasts.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const KINDS: &[Kind] = &[Kind {
    name: "message-id-race",
    what: "an account sends the same messages on two nodes at once, again later, and with other contents",
    part: Part::People,
    hold_ms: 0..=500,
    begin: |world, victim| Box::pin(race(world, victim)),
    heal: |world, victim| Box::pin(nothing(world, victim)),
}];

type Places = HashMap<MessageId, Seq>;

async fn race(world: &World, victim: Victim) -> Result<()> {
    let account = &world.accounts[victim.of(world.accounts.len())];
    let room = world.rooms.direct_of(account.number, victim.0);
    let room = room.context("somebody has nobody to write to")?;
    let text = |number| format!("race {} {number}", victim.0);
    let messages: Vec<Outgoing> = (0..MESSAGES)
        .map(|number| Outgoing::to_conversation(room, &text(number)))
        .collect();
    let nodes = [victim.of(NODES), (victim.of(NODES) + 1) % NODES];

    let at_once = nodes.map(|node| told(world, account, node, &messages));
    let at_once = try_join_all(at_once).await?;
    // Frames from before, to nodes that may have acknowledged others.
    let again = nodes.map(|node| told(world, account, (node + 1) % NODES, &messages));
    let again = try_join_all(again).await?;
    for places in at_once.iter().chain(&again) {
        ensure!(
            *places == at_once[0],
            "a message has two places: {places:?} and {:?}",
            at_once[0]
        );
    }
    let others = messages.iter().map(|message| Outgoing {
        content: format!("not {}", message.content),
        ..message.clone()
    });
    let others: Vec<Outgoing> = others.collect();
    let refused = nodes.map(|node| refused(world, account, node, &others));
    try_join_all(refused).await.map(drop)
}

/// Sends these from a socket of its own, as often as it takes; where each was stored.
async fn told(
    world: &World,
    account: &Account,
    node: usize,
    messages: &[Outgoing],
) -> Result<Places> {
    let socket = Racer::start(world, account, node).await?;
    for message in messages {
        socket.notes.device().outgoing(message);
    }
    let answers = socket.answers(messages).await?;
    let place = |(id, answer): (MessageId, Answer)| match answer {
        Answer::Stored(seq) => Ok((id, seq)),
        Answer::Refused(code) => bail!("{id} was refused with {}", code.as_str()),
    };
    answers.into_iter().map(place).collect()
}

/// Sends these, whose ids are taken by other contents. They are no part of the history: nothing may
/// come of them.
async fn refused(
    world: &World,
    account: &Account,
    node: usize,
    messages: &[Outgoing],
) -> Result<()> {
    let socket = Racer::start(world, account, node).await?;
    for (id, answer) in socket.answers(messages).await? {
        match answer {
            Answer::Refused(ErrorCode::Conflict) => {}
            Answer::Refused(code) => bail!("{id} was refused with {}", code.as_str()),
            Answer::Stored(seq) => bail!("{id} was acknowledged at {seq} with another content"),
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Stored(Seq),
    Refused(ErrorCode),
}

/// A device for one race, which knows one node only.
struct Racer {
    name: String,
    live: Live,
    notes: LiveRecorder,
}

impl Racer {
    async fn start(world: &World, account: &Account, node: usize) -> Result<Self> {
        let url = world.cluster.node(node).url();
        let tokens = account.log_in().await?;
        let start = Start::Now;
        let mut config = LiveConfig::new([url], (&tokens).into());
        config.start = start.clone();
        let name = format!("{} racing on node-{node}", account.name());
        let device = world.recorder.device(&name, account.id(), View::Client);
        Ok(Self {
            name,
            live: Live::start(config)?,
            notes: LiveRecorder::new(device, &start),
        })
    }

    /// What became of each of these; then it leaves.
    async fn answers(mut self, messages: &[Outgoing]) -> Result<HashMap<MessageId, Answer>> {
        let mut answers = HashMap::new();
        for message in messages {
            self.live.handle().send(message.clone()).await?;
        }
        let deadline = Instant::now() + PATIENCE;
        while answers.len() < messages.len() {
            let Ok(update) = timeout_at(deadline, self.live.next()).await else {
                bail!("{} has {} answers", self.name, answers.len());
            };
            let update = update.with_context(|| format!("{} was stopped", self.name))?;
            self.notes.update(&update);
            match update {
                Update::Acked(ack) => drop(answers.insert(ack.message_id, Answer::Stored(ack.seq))),
                Update::Failed { message_id, error } => {
                    answers.insert(message_id, Answer::Refused(error.code));
                }
                _ => {}
            }
        }
        self.notes.update(&Update::Stopped {
            code: 1000,
            reason: String::new(),
        });
        self.notes.end(&self.live.close().await.unacked);
        Ok(answers)
    }
}
