//! The annex is killed, and its disk is full.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rookery_client::{Connect, ConnectError, Socket};
use rookery_oracle::{DeviceRecorder, Resume, View};
use rookery_protocol::command::{ClientCommand, MessageSend};
use rookery_protocol::event::{ErrorEvent, ServerEvent};
use rookery_protocol::{ConversationId, MessageId};
use rookery_test_support::new_message_id;
use tokio::time::{Instant, sleep, timeout};

use crate::annex::Annex;
use crate::kinds::{Kind, Part, Victim};
use crate::world::World;

/// Not even the first page of a database can be written.
const FULL: u64 = 512;
/// How long a disk that is full, or has room again, may go unnoticed, and an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "sqlite-kill",
        what: "SIGKILL for the node with SQLite, which comes back some time later",
        part: Part::Annex,
        hold_ms: 0..=2_000,
        begin: |world, _| Box::pin(kill(world)),
        heal: |world, _| Box::pin(restart(world)),
    },
    Kind {
        name: "sqlite-disk-full",
        what: "the node with SQLite can write nothing to its disk",
        part: Part::Annex,
        hold_ms: 1_000..=4_000,
        begin: |world, victim| Box::pin(fill(world, victim)),
        heal: |world, victim| Box::pin(make_room(world, victim)),
    },
];

pub(super) fn annex(world: &World) -> Result<&Annex> {
    world.annex.as_ref().context("there is no annex")
}

async fn kill(world: &World) -> Result<()> {
    annex(world)?.node().kill().await;
    Ok(())
}

pub(super) async fn restart(world: &World) -> Result<()> {
    annex(world)?.node().try_restart().await
}

/// Returns when a send was answered with an error that says that it may be repeated.
async fn fill(world: &World, victim: Victim) -> Result<()> {
    let annex = annex(world)?;
    // Before: nobody can get tokens then.
    let mut prober = Prober::start(annex, victim).await?;
    annex.node().limit_files(Some(FULL)).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match prober.send().await? {
            Err(error) => {
                ensure!(error.retryable, "a full disk is a {}", error.code.as_str());
                prober.leave();
                return Ok(());
            }
            Ok(()) if Instant::now() > deadline => bail!("what is sent to a full disk is acked"),
            Ok(()) => {}
        }
    }
}

/// Returns when a send was acknowledged.
async fn make_room(world: &World, victim: Victim) -> Result<()> {
    let annex = annex(world)?;
    if !annex.node().is_running().await? {
        restart(world).await?;
        bail!("a full disk ended the node");
    }
    annex.node().limit_files(None).await?;
    let mut prober = Prober::start(annex, victim).await?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = prober.send().await? {
        if Instant::now() > deadline {
            bail!(
                "the disk has room, and a send is refused with {}",
                error.code.as_str()
            );
        }
        sleep(AGAIN).await;
    }
    prober.leave();
    Ok(())
}

/// A node with much to do may put it off.
pub(super) async fn connect(url: &str, how: &Connect) -> Result<Socket, ConnectError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Socket::connect(url, how).await {
            Err(_) if Instant::now() < deadline => sleep(AGAIN).await,
            outcome => return outcome,
        }
    }
}

/// A bare socket, of which every answer is seen; the client library keeps those that say "later" for
/// itself. What it does is in the history.
struct Prober {
    socket: Socket,
    notes: DeviceRecorder,
    room: ConversationId,
}

impl Prober {
    async fn start(annex: &Annex, victim: Victim) -> Result<Self> {
        let account = &annex.accounts[victim.of(annex.accounts.len())];
        let room = annex.rooms.direct_of(account.number, victim.0);
        let how = Connect::with_token(&account.token().await?);
        let mut socket = connect(account.url(), &how).await?;
        let ready = socket.ready().await?;
        let name = format!("annex/{} probing", account.name());
        let notes = annex.recorder.device(&name, account.id(), View::Wire);
        notes.ready(&ready, Resume::Fresh);
        Ok(Self {
            socket,
            notes,
            room: room.context("somebody has nobody to write to")?,
        })
    }

    /// Sends something, once; whether it was acknowledged.
    async fn send(&mut self) -> Result<Result<(), ErrorEvent>> {
        let message_id = new_message_id();
        let send = ClientCommand::MessageSend(MessageSend {
            reference: Some(message_id.to_string()),
            message_id,
            content: format!("probe {message_id}"),
            conversation_id: Some(self.room),
            recipient_id: None,
            reply_to: None,
            metadata: None,
        });
        self.notes.command(&send);
        self.socket.send(&send).await?;
        let answer = timeout(PATIENCE, self.answer(message_id)).await;
        answer.context("a send has no answer")?
    }

    async fn answer(&mut self, message_id: MessageId) -> Result<Result<(), ErrorEvent>> {
        loop {
            let event = self.socket.recv().await?;
            self.notes.event(&event);
            match event {
                ServerEvent::MessageAck(ack) if ack.message_id == message_id => return Ok(Ok(())),
                ServerEvent::Error(error) if error.message_id == Some(message_id) => {
                    return Ok(Err(error));
                }
                _ => {}
            }
        }
    }

    fn leave(self) {
        self.notes.disconnected(1006);
        self.notes.end(false, Vec::new());
    }
}
