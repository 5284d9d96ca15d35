//! The cluster, and everybody on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use rookery_oracle::Recorder;
use rookery_test_support::TestCluster;
use rookery_test_support::servers::{Redis, Sentinels};

use crate::annex::Annex;
use crate::device::Device;
use crate::faults::sentinels::PATIENT;
use crate::keys::Keys;
use crate::kinds::{Kind, Part};
use crate::measure::Measure;
use crate::people::Account;
use crate::rooms::Rooms;
use crate::workload::{Workload, Writers};

pub(crate) const NODES: usize = 3;
/// The most devices that a person has.
const DEVICES: usize = 3;
/// Accounts that are made at a time: passwords cost what they should.
const AT_A_TIME: usize = 4;

/// What nodes run with here, besides what tests run with.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    // Connections that were cut without a word count as open for a while, several times over.
    ("ROOKERY_LIMITS_SOCKETS_PER_USER", "100"),
    ("RUST_LOG", "warn,rookery=info"),
];

pub(crate) struct World {
    /// The server's program.
    pub(crate) binary: PathBuf,
    pub(crate) cluster: TestCluster,
    /// They watch the cluster's Redis, if a kind of fault asks for them.
    pub(crate) sentinels: Option<Sentinels>,
    pub(crate) keys: Keys,
    pub(crate) accounts: Vec<Arc<Account>>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) devices: Vec<Device>,
    pub(crate) measure: Arc<Measure>,
    pub(crate) recorder: Recorder,
    pub(crate) workload: Workload,
    /// The node beside it, if a kind of fault asks for it.
    pub(crate) annex: Option<Annex>,
}

impl World {
    /// Starts everything; nobody does anything yet.
    pub(crate) async fn start(
        binary: &Path,
        people: usize,
        with_sentinels: bool,
        recorder: Recorder,
    ) -> Result<Self> {
        let path = binary.to_str().context("the binary's path is not UTF-8")?;
        let mut builder = TestCluster::builder(path)
            .nodes(NODES)
            .proxied()
            .own_postgres();
        for (name, value) in SETTINGS {
            builder = builder.set(name, value);
        }
        let sentinels = match with_sentinels {
            true => Some(patient_sentinels().await?),
            false => None,
        };
        if let Some(sentinels) = &sentinels {
            builder = builder.sentinels(sentinels);
        }
        let keys = Keys::new()?;
        for (name, value) in keys.settings() {
            builder = builder.set(name, &value);
        }
        let cluster = builder.try_start().await;
        let cluster = cluster.context("the cluster does not start")?;
        let measure = Arc::new(Measure::default());
        let mut accounts = Vec::new();
        for numbers in (0..people).collect::<Vec<_>>().chunks(AT_A_TIME) {
            let made = numbers
                .iter()
                .map(|number| Account::register(*number, cluster.api(), &measure));
            accounts.extend(try_join_all(made).await?.into_iter().map(Arc::new));
        }
        let rooms = Arc::new(Rooms::make(&accounts).await?);
        let mut world = Self {
            binary: binary.to_owned(),
            annex: None,
            cluster,
            sentinels,
            keys,
            rooms,
            devices: Vec::new(),
            measure,
            recorder,
            workload: Workload::default(),
            accounts,
        };
        for accounts in world.accounts.chunks(AT_A_TIME) {
            let common = (&world.rooms, &world.measure, &world.recorder);
            let own = accounts
                .iter()
                .map(|account| devices_of(account, "", common));
            let own = try_join_all(own).await?;
            world.devices.extend(own.into_iter().flatten());
        }
        Ok(world)
    }

    /// The Redis that nodes are meant to use at present.
    pub(crate) async fn redis(&self) -> Result<&Redis> {
        match &self.sentinels {
            Some(sentinels) => Ok(sentinels.redis(sentinels.master().await?)),
            None => Ok(self.cluster.redis()),
        }
    }

    /// All that there are, whatever they are at present.
    pub(crate) fn all_redis(&self) -> Vec<&Redis> {
        match &self.sentinels {
            Some(sentinels) => sentinels.servers().collect(),
            None => vec![self.cluster.redis()],
        }
    }

    pub(crate) fn writers(&self) -> Writers<'_> {
        Writers {
            devices: &self.devices,
            measure: &self.measure,
            workload: &self.workload,
        }
    }

    /// Where it counts what happens during such a fault.
    pub(crate) fn measure_of(&self, kind: &Kind) -> &Measure {
        match &self.annex {
            Some(annex) if kind.part == Part::Annex => &annex.measure,
            _ => &self.measure,
        }
    }

    /// Ends all devices, each with the last line of its history.
    pub(crate) async fn end_devices(&mut self) {
        let devices = std::mem::take(&mut self.devices);
        join_all(devices.into_iter().map(Device::end)).await;
    }
}

/// One to three devices, by the number of the person, each with a session of its own.
pub(crate) async fn devices_of(
    account: &Arc<Account>,
    prefix: &str,
    common: (&Arc<Rooms>, &Arc<Measure>, &Recorder),
) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for number in 0..=account.number % DEVICES {
        let tokens = account.log_in().await;
        let tokens = tokens.with_context(|| format!("{} cannot log in", account.name()))?;
        let name = format!("{prefix}{}/{number}", account.name());
        devices.push(Device::start(name, account, (&tokens).into(), common));
    }
    Ok(devices)
}

async fn patient_sentinels() -> Result<Sentinels> {
    let sentinels = Sentinels::start().await.context("no sentinels")?;
    sentinels.set_patience(PATIENT).await?;
    Ok(sentinels)
}
