//! The annex' database is set back to an older copy, as after the loss of a disk. What was written
//! since is gone, so all is brought to rest and judged before; then every device has to be told that
//! what it has does not count, and the history that follows is judged as a new one.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rookery_client::Connect;
use rookery_protocol::command::{ClientCommand, Sync};
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{ConversationId, Seq};
use rookery_test_support::eventually_within;
use tokio::time::timeout;

use super::annex::{annex, connect};
use crate::annex::Annex;
use crate::annex::file::File;
use crate::device::Device;
use crate::kinds::{Kind, Part};
use crate::people::Account;
use crate::world::World;

/// How long devices may take to come back to a node that was restarted.
const BACK_WITHIN: Duration = Duration::from_secs(90);
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) const KINDS: &[Kind] = &[Kind {
    name: "set-back",
    what: "the database of the node with SQLite is set back to a copy that is some seconds old",
    part: Part::Annex,
    hold_ms: 2_000..=5_000,
    begin: |world, _| Box::pin(back_up(world)),
    heal: |world, _| Box::pin(set_back(world)),
}];

type Cursors = HashMap<ConversationId, Seq>;

/// Makes the copy, while people write.
async fn back_up(world: &World) -> Result<()> {
    let annex = annex(world)?;
    let base = File::new(annex.file().path().with_file_name("base.db"));
    let copied = tokio::process::Command::new(&world.binary)
        .arg("backup")
        .arg(base.path())
        .env(
            "DATABASE_URL",
            format!("sqlite://{}", annex.file().path().display()),
        )
        .env(
            "JWT_SECRET",
            "the copy needs none, and the program wants one",
        )
        .kill_on_drop(true)
        .output()
        .await?;
    let complaint = String::from_utf8_lossy(&copied.stderr);
    ensure!(copied.status.success(), "no copy: {complaint}");
    annex.set_base(base);
    Ok(())
}

async fn set_back(world: &World) -> Result<()> {
    let annex = annex(world)?;
    let Some(base) = annex.take_base() else {
        return Ok(());
    };
    annex.workload.rest(true);
    let outcome = while_nobody_writes(annex, &base).await;
    annex.workload.rest(false);
    std::fs::remove_file(base.path())?;
    outcome
}

async fn while_nobody_writes(annex: &Annex, base: &File) -> Result<()> {
    let restless = annex.settle().await?;
    annex.judge_epoch(restless).await?;
    let (epoch, heads) = (base.epoch().await?, base.heads().await?);
    ensure!(
        epoch != annex.file().epoch().await?,
        "the copy has the epoch of its original"
    );
    let had: Vec<Cursors> = annex
        .devices
        .iter()
        .map(|device| device.seen.all_highest())
        .collect();
    let lost: Vec<Cursors> = had.iter().map(|had| beyond(had, &heads)).collect();
    ensure!(
        lost.iter().any(|lost| !lost.is_empty()),
        "there is nothing to set back"
    );

    let code = annex.node().stop().await;
    annex.file().replace_with(base)?;
    annex.node().try_restart().await?;
    ensure!(code == 0, "the annex left with exit code {code}");

    for ((device, had), lost) in annex.devices.iter().zip(&had).zip(&lost) {
        let told = told_by_sync(&device.account, had).await?;
        same(
            &device.name,
            "the answer to its old cursors",
            lost,
            &told,
            &heads,
        )?;
        is_back(device, &epoch).await?;
        same(
            &device.name,
            "the client library",
            lost,
            &device.seen.resets(),
            &heads,
        )?;
        // Nothing that it shows may be beyond what there is.
        let shown = beyond(&device.seen.all_highest(), &heads);
        ensure!(shown.is_empty(), "{} still shows {shown:?}", device.name);
    }
    Ok(())
}

/// What is newer than the base.
fn beyond(had: &Cursors, heads: &Cursors) -> Cursors {
    let newer = had.iter().filter(|(room, seq)| heads.get(room) < Some(seq));
    newer.map(|(room, seq)| (*room, *seq)).collect()
}

/// Each conversation of which it lost something must be reset to the base's last entry.
fn same(device: &str, who: &str, lost: &Cursors, told: &Cursors, heads: &Cursors) -> Result<()> {
    for (room, seq) in lost {
        let (told, head) = (told.get(room), heads.get(room));
        if told != head {
            bail!("{who} told {device}, which had {room} up to {seq}, {told:?} and not {head:?}");
        }
    }
    Ok(())
}

/// What a device is told that comes back with these cursors.
async fn told_by_sync(account: &Account, cursors: &Cursors) -> Result<Cursors> {
    let how = Connect::resuming(&account.token().await?);
    let told = async {
        let mut socket = connect(account.url(), &how).await?;
        socket.ready().await?;
        let sync = Sync {
            reference: None,
            cursors: Some(cursors.clone()),
            since: None,
        };
        socket.send(&ClientCommand::Sync(sync)).await?;
        loop {
            if let ServerEvent::SyncDone(done) = socket.recv().await? {
                let resets = done.reset.into_iter();
                return anyhow::Ok(
                    resets
                        .map(|reset| (reset.conversation_id, reset.seq))
                        .collect(),
                );
            }
        }
    };
    timeout(ANSWERED_WITHIN, told)
        .await
        .context("a sync has no end")?
}

/// Waits until a device has caught up under this epoch.
async fn is_back(device: &Device, epoch: &str) -> Result<()> {
    let seen = &device.seen;
    let is_so = async || seen.epoch() == epoch && seen.is_in_step();
    if !eventually_within(BACK_WITHIN, is_so).await {
        bail!(
            "{} is at the epoch {}, and not at {epoch}",
            device.name,
            seen.epoch()
        );
    }
    Ok(())
}
