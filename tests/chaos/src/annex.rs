//! The annex: one node with SQLite beside the cluster, with a few people of its own who write a little
//! all the time. Its disk can be full and its database set back, which no cluster goes through.
//!
//! Its history is its own, too. It is judged at the end, and before each time the database is set
//! back, which takes with it what was acknowledged: the epoch, which every device is told, says what
//! belongs to which judgement.

pub(crate) mod file;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use rookery_oracle::{FinalState, Recorder};
use rookery_test_support::{Node, TestCluster};

use crate::device::Device;
use crate::kinds::{Kind, Part};
use crate::measure::{Measure, lock};
use crate::people::Account;
use crate::rest::{Restless, settle_until};
use crate::rooms::Rooms;
use crate::run::judge;
use crate::workload::{Workload, Writers};
use crate::world::{SETTINGS, devices_of};

use file::File;

const PEOPLE: usize = 4;
/// Messages a second.
pub(crate) const RATE: f64 = 10.0;

pub(crate) struct Annex {
    cluster: TestCluster,
    /// Where the histories go.
    folder: PathBuf,
    pub(crate) accounts: Vec<Arc<Account>>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) devices: Vec<Device>,
    pub(crate) measure: Arc<Measure>,
    pub(crate) recorder: Recorder,
    pub(crate) workload: Workload,
    judged: Mutex<Vec<Judged>>,
    /// What it is to be set back to.
    base: Mutex<Option<File>>,
}

/// What became of one epoch.
pub(crate) struct Judged {
    pub(crate) restless: Vec<String>,
    pub(crate) verdict: rookery_oracle::Report,
}

/// Whether one of the kinds is about it.
pub(crate) fn is_needed(kinds: &[&Kind]) -> bool {
    kinds.iter().any(|kind| kind.part == Part::Annex)
}

impl Annex {
    /// Starts it, with its history in this folder; nobody does anything yet.
    pub(crate) async fn start(binary: &Path, folder: &Path) -> Result<Self> {
        let binary = binary.to_str().context("the binary's path is not UTF-8")?;
        let mut builder = TestCluster::builder(binary).alone();
        for (name, value) in SETTINGS {
            builder = builder.set(name, value);
        }
        let cluster = builder.try_start().await;
        let cluster = cluster.context("the annex does not start")?;
        let measure = Arc::new(Measure::default());
        let register = |number| Account::register(number, cluster.api(), &measure);
        let accounts = try_join_all((0..PEOPLE).map(register)).await?;
        let accounts: Vec<Arc<Account>> = accounts.into_iter().map(Arc::new).collect();
        let rooms = Arc::new(Rooms::make(&accounts).await?);
        let recorder = Recorder::create(&folder.join(history(None)), "annex")?;
        let mut devices = Vec::new();
        for account in &accounts {
            let common = (&rooms, &measure, &recorder);
            devices.extend(devices_of(account, "annex/", common).await?);
        }
        Ok(Self {
            cluster,
            folder: folder.to_owned(),
            accounts,
            rooms,
            devices,
            measure,
            recorder,
            workload: Workload::default(),
            judged: Mutex::default(),
            base: Mutex::default(),
        })
    }

    pub(crate) fn node(&self) -> &Node {
        self.cluster.node(0)
    }

    pub(crate) fn file(&self) -> File {
        File::new(self.node().sqlite_file())
    }

    pub(crate) fn writers(&self) -> Writers<'_> {
        Writers {
            devices: &self.devices,
            measure: &self.measure,
            workload: &self.workload,
        }
    }

    /// Where the next base goes; kept until it is taken.
    pub(crate) fn set_base(&self, base: File) {
        *lock(&self.base) = Some(base);
    }

    pub(crate) fn take_base(&self) -> Option<File> {
        lock(&self.base).take()
    }

    /// Brings back what a fault that went wrong may have left broken.
    pub(crate) async fn heal(&self) -> Result<()> {
        if self.node().is_running().await? {
            self.node().limit_files(None).await?;
        }
        if !self.node().is_ready().await {
            self.node().try_restart().await?;
        }
        Ok(())
    }

    /// Waits until all that was written is everywhere; what never came to rest.
    pub(crate) async fn settle(&self) -> Result<Vec<String>> {
        let who = Restless {
            devices: &self.devices,
            measure: &self.measure,
        };
        let file = self.file();
        let (_, restless) = settle_until(who, async || file.owed().await).await?;
        Ok(restless)
    }

    /// Holds all that devices saw under the present epoch to what the file has. They go on.
    pub(crate) async fn judge_epoch(&self, restless: Vec<String>) -> Result<()> {
        self.recorder.finish()?;
        // Before the file is read: what is seen after that could not be judged.
        let so_far = history(Some(lock(&self.judged).len()));
        std::fs::copy(self.folder.join(history(None)), self.folder.join(&so_far))?;
        let is_clean = self.judge(&so_far, restless).await?;
        if is_clean {
            std::fs::remove_file(self.folder.join(so_far))?;
        }
        Ok(())
    }

    /// The last judgement, of devices that have ended.
    pub(crate) async fn end(&mut self) -> Result<()> {
        let restless = self.settle().await?;
        let devices = std::mem::take(&mut self.devices);
        join_all(devices.into_iter().map(Device::end)).await;
        self.recorder.finish()?;
        self.judge(&history(None), restless).await.map(drop)
    }

    async fn judge(&self, history: &str, restless: Vec<String>) -> Result<bool> {
        let state = self.file().truth().await?;
        let verdict = judge(&self.folder.join(history), &state)?;
        let is_clean = verdict.is_clean();
        if !is_clean {
            self.keep(history, &state)?;
        }
        lock(&self.judged).push(Judged { restless, verdict });
        Ok(is_clean)
    }

    fn keep(&self, history: &str, state: &FinalState) -> Result<()> {
        let path = self.folder.join(history).with_extension("state.json");
        Ok(std::fs::write(path, serde_json::to_vec(state)?)?)
    }

    /// Each epoch's, in their order.
    pub(crate) fn take_judged(&self) -> Vec<Judged> {
        std::mem::take(&mut *lock(&self.judged))
    }

    /// Keeps its log, or removes its history.
    pub(crate) fn leave(&self, keep: bool) -> Result<()> {
        if keep {
            let log = self.folder.join("annex.txt");
            std::fs::write(log, self.node().log())?;
        } else {
            std::fs::remove_file(self.folder.join(history(None)))?;
        }
        Ok(())
    }
}

/// The file of the whole history, or of it up to a judgement.
fn history(judgement: Option<usize>) -> String {
    judgement.map_or_else(
        || "annex.jsonl".to_owned(),
        |number| format!("annex-{number}.jsonl"),
    )
}
